"""For wide nets, onnxruntime gives the same answers as NumPy."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from models.nets.graph import chain
from models.nets.numeric import Net, compiled
from models.nets.sessions import BLOCK, MANY, REACH, OnnxSession, is_fit

NEAR = 1e-5


def net_of(activation: str, width: int = 512, scale: float = 1.0) -> Net:
    random = np.random.default_rng(0)
    parameters, layers = {}, list[Any]()
    for inputs, outputs in pairwise((8, width, width, 2)):
        weights = scale * random.normal(size=(outputs, inputs)) / np.sqrt(inputs)
        parameters[f"{len(layers)}.weight"] = weights.astype(np.float32)
        parameters[f"{len(layers)}.bias"] = random.normal(size=outputs).astype(np.float32)
        layers += [{"linear": outputs}, activation]
    return compiled(chain(8, layers[:-1]), parameters)


def rows(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(1).normal(size=(count, 8)).astype(np.float32)


@pytest.mark.parametrize("activation", ["relu", "sigmoid", "tanh"])
@pytest.mark.parametrize("count", [MANY, BLOCK, 2 * BLOCK + 1])
def test_the_answers_are_those_of_numpy(activation: str, count: int) -> None:
    net, x = net_of(activation), rows(count)
    outputs = OnnxSession(net).forward(x)
    expected = net.forward(x)
    assert outputs is not None
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=NEAR * float(expected.std()))


def test_a_narrow_net_and_one_that_onnx_knows_no_layer_for_stay_with_numpy() -> None:
    assert is_fit(net_of("relu"))
    assert not is_fit(net_of("relu", width=256))
    assert not is_fit(net_of("gelu"))


def test_few_rows_stay_with_numpy() -> None:
    assert OnnxSession(net_of("relu")).forward(rows(MANY - 1)) is None


@pytest.mark.parametrize("far", [np.inf, -np.inf, np.nan, 2 * REACH])
def test_what_may_overflow_stays_with_numpy(far: float) -> None:
    x = rows(MANY)
    x[3, 2] = far
    assert OnnxSession(net_of("relu")).forward(x) is None
    assert not is_fit(net_of("relu", scale=1e10))
