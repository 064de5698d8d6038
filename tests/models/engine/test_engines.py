"""The engines: they agree with automatic differentiation, and neither cuts nor threads matter."""

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from descent.spec import ColumnType, OptimizerSpec
from models.architectures import ModelSpec
from models.data import Floats, Integers
from models.engine import EngineName
from models.engine.choice import make_engine
from models.engine.engine import Engine, Setup
from models.engine.examples import Examples
from models.engine.kernel import is_there
from models.engine.losses import choose_loss
from models.features.targets import ClassTarget, NumberTargets
from models.nets.dropout import is_kept
from models.nets.module import build, flatten

CPU = torch.device("cpu")
OPTIMIZERS: TypeAdapter[Any] = TypeAdapter(OptimizerSpec)
MODELS: TypeAdapter[Any] = TypeAdapter(ModelSpec)
#: The engines that are compared with `autograd`.
FAST = (
    pytest.param("kernel", marks=pytest.mark.skipif(not is_there(), reason="no kernel is built")),
    "chunked",
)
#: The random nets of every test run, and the others.
DAILY, NIGHTLY = range(70), range(70, 400)
CLASSES = 3


class Case:
    """A random net with random rows, and all that a training of it needs."""

    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng(seed)
        self.inputs, self.is_class = int(draw.integers(1, 20)), bool(draw.integers(2))
        self.outputs = CLASSES if self.is_class else int(draw.integers(1, 4))
        self.model = MODELS.validate_python(_model(draw))
        self.optimizer = OPTIMIZERS.validate_python(_optimizer(draw))
        self.rows = int(draw.integers(1, 90))
        self.batch = min(self.rows, int(draw.integers(1, 40)))
        self.loss = "cross_entropy" if self.is_class else _pick(draw, "mse", "sse", "mae", "huber")
        rng = torch.Generator().manual_seed(seed)
        x = torch.randn(self.rows, self.inputs, generator=rng)
        if self.is_class:
            truth = torch.randint(0, CLASSES, (self.rows,), generator=rng)
        else:
            truth = torch.randn(self.rows, self.outputs, generator=rng)
        weights = torch.rand(self.rows, generator=rng) if draw.integers(2) else None
        self.examples = Examples(x, truth, weights)
        self.rate = 1e-3
        self.seed = seed

    def engine(self, name: EngineName) -> Engine:
        engine = make_engine(self.setup(), name)
        assert engine.name == name
        return engine

    def setup(self) -> Setup:
        net = build(self.model, self.inputs, self.outputs, self.seed)
        layers = self.model.graph(self.inputs, self.outputs).dense()
        target: ClassTarget | NumberTargets = ClassTarget("y", "integer", (0, 1, 2))
        if not self.is_class:
            ones = (1.0,) * self.outputs
            names = tuple(f"y{place}" for place in range(self.outputs))
            number: ColumnType = "number"
            target = NumberTargets(names, (number,) * self.outputs, *[ones] * 6)
        loss = choose_loss(self.loss, target, CPU)  # type: ignore[arg-type]
        return Setup(net, flatten(net, CPU), layers, loss, self.optimizer, self.batch, self.seed)

    def orders(self, epochs: int) -> Iterator[Integers]:
        for epoch in range(epochs):
            yield np.random.default_rng([self.seed, epoch]).permutation(self.rows)

    @property
    def steps(self) -> int:
        return math.ceil(self.rows / self.batch)


def _pick(draw: np.random.Generator, *choices: Any) -> Any:
    return choices[draw.integers(len(choices))]


def _model(draw: np.random.Generator) -> dict[str, Any]:
    hidden = [int(width) for width in draw.integers(1, 40, draw.integers(0, 4))]
    if not hidden:
        return {"type": "linear"}
    activation = _pick(draw, "relu", "sigmoid", "tanh", "gelu")
    dropout = float(_pick(draw, 0.0, 0.0, 0.3))
    return {"type": "mlp", "hidden": hidden, "activation": activation, "dropout": dropout}


def _optimizer(draw: np.random.Generator) -> dict[str, Any]:
    kind = _pick(draw, "sgd", "sgd", "adam", "adamw", "rmsprop")
    decay = float(_pick(draw, 0.0, 0.01))
    if kind == "sgd":
        momentum = float(_pick(draw, 0.0, 0.9))
        nesterov = bool(momentum and draw.integers(2))
        return {"type": kind, "momentum": momentum, "nesterov": nesterov, "weight_decay": decay}
    if kind == "rmsprop":
        return {"type": kind, "momentum": float(_pick(draw, 0.0, 0.5)), "weight_decay": decay}
    return {"type": kind, "weight_decay": decay}


def advance(case: Case, engine: Engine, pieces: np.random.Generator | None = None) -> bytes:
    """Train two epochs, in one piece each or in random ones; return every bit of the result."""
    for order in case.orders(2):
        first = 0
        while first < case.steps:
            most = case.steps - first
            count = most if pieces is None else int(pieces.integers(1, most + 1))
            until = math.inf if pieces is None or pieces.integers(2) else 0.0
            first += engine.advance(case.examples, order, first, count, case.rate, until)
    engine.pull()
    tensors = [engine.flat.values, *engine.tensors().values()]
    return b"".join(tensor.numpy().tobytes() for tensor in tensors) + engine.totals.tobytes()


@functools.cache
def by_autograd(seed: int) -> tuple[NDArray[np.float32], Floats]:
    """Return the parameters and the totals of a random net that autograd has trained."""
    case = Case(seed)
    engine = case.engine("autograd")
    advance(case, engine)
    return engine.flat.values.numpy(), engine.totals


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("seeds", [DAILY, pytest.param(NIGHTLY, marks=pytest.mark.nightly)])
def test_an_engine_agrees_with_autograd(name: EngineName, seeds: range) -> None:
    for seed in seeds:
        case = Case(seed)
        engine, (values, totals) = case.engine(name), by_autograd(seed)
        advance(case, engine)
        found, words = engine.flat.values.numpy(), f"{vars(case)}"
        np.testing.assert_allclose(found, values, rtol=1e-3, atol=2e-5, err_msg=words)
        np.testing.assert_allclose(engine.totals, totals, rtol=1e-4, err_msg=words)


@pytest.mark.parametrize("name", [*FAST, "autograd"])
def test_an_epoch_cut_anywhere_gives_the_same_bits(name: EngineName) -> None:
    for seed in range(40):
        case = Case(seed)
        whole = advance(case, case.engine(name))
        assert advance(case, case.engine(name), np.random.default_rng(seed)) == whole


@pytest.mark.parametrize("name", [*FAST, "autograd"])
def test_threads_do_not_change_the_bits(name: EngineName) -> None:
    case = Case(3)
    case.model = MODELS.validate_python({"type": "mlp", "hidden": [250, 250]})
    case.rows, case.batch = 700, 300
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(case.rows, case.inputs, generator=rng)
    truth = torch.randn(case.rows, case.outputs, generator=rng)
    if case.is_class:
        truth = torch.randint(0, CLASSES, (case.rows,), generator=rng)
    case.examples = Examples(x, truth)
    found = []
    for threads in (1, 2, 3):
        engine = case.engine(name)
        assert engine.shards > 1
        engine.threads = threads
        found.append(advance(case, engine))
        engine.close()
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", [*FAST, "autograd"])
def test_an_engine_continues_from_the_state_of_another(name: EngineName) -> None:
    for seed in range(40):
        case = Case(seed)
        first, again, other = case.engine(name), case.engine(name), case.engine("autograd")
        advance(case, first)
        for engine in (again, other):
            engine.flat.values.copy_(first.flat.values)
            engine.push()
            saved = {name: tensor.clone() for name, tensor in first.tensors().items()}
            engine.load(saved, first.scalars())
            engine.step = first.step
            engine.totals[:] = first.totals
        assert advance(case, again) == advance(case, first)
        advance(case, other)
        np.testing.assert_allclose(
            first.flat.values.numpy(), other.flat.values.numpy(), rtol=1e-3, atol=2e-5
        )


def test_dropout_keeps_the_share_that_it_should() -> None:
    kept = is_kept(seed=7, steps=range(100), layer=1, rows=range(32), units=64, share=0.3)
    assert kept.shape == (64, 100, 32)
    assert kept.mean() == pytest.approx(0.7, abs=0.003)
    assert kept.mean((1, 2)) == pytest.approx(0.7, abs=0.05)
    assert kept.mean((0, 1)) == pytest.approx(0.7, abs=0.05)


def test_masks_differ_by_seed_step_and_layer() -> None:
    first = is_kept(1, [5], 0, range(32), 64, 0.5)
    for seed, step, layer in ((2, 5, 0), (1, 6, 0), (1, 5, 1)):
        same = first == is_kept(seed, [step], layer, range(32), 64, 0.5)
        assert same.mean() == pytest.approx(0.5, abs=0.05)


def test_the_masks_of_some_rows_are_those_of_all_rows() -> None:
    whole = is_kept(1, range(3), 0, range(40), 9, 0.5)
    assert np.array_equal(whole[:, 1:2, 10:25], is_kept(1, [1], 0, range(10, 25), 9, 0.5))


@pytest.mark.parametrize("name", [*FAST, "autograd"])
def test_a_step_after_long_idleness_takes_no_longer(name: EngineName) -> None:
    """The moments of parameters without a gradient reach zero instead of subnormal numbers."""
    case = Case(0)
    case.optimizer = OPTIMIZERS.validate_python({"type": "adam"})
    case.model = MODELS.validate_python({"type": "mlp", "hidden": [8]})
    engine = case.engine(name)
    state = {"mean": 1e-37, "square": 1e-37, "steps": 5.0}
    tensors = {key: torch.full_like(engine.tensors()[key], value) for key, value in state.items()}
    engine.load(tensors, {})
    nothing = Examples(torch.zeros_like(case.examples.x), case.examples.truth, None)
    torch.set_flush_denormal(True)
    try:
        for _ in range(100):
            engine.advance(nothing, None, 0, case.steps, 1e-3, math.inf)
    finally:
        torch.set_flush_denormal(False)
    first = engine.tensors()["mean"][: case.inputs].numpy().view(np.uint32)
    assert not ((first & 0x7F800000 == 0) & (first << 1 != 0)).any()
