"""A stack of linear layers and activations that only predicts. Knows NumPy only.

A net is described by its layers, input side first: `{"linear": 64}`, `"relu"`, `{"dropout": 0.1}`;
the last one is linear. Parameters are named by the place of their layer: `0.weight`, `0.bias`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.errors import CheckpointCorrupt

Activations: TypeAlias = NDArray[np.float32]
#: Weights (outputs, inputs) and biases (outputs,) of a linear layer, or the name of an activation.
StackLayer: TypeAlias = "tuple[Activations, Activations] | str"
#: One step of the stack: a function of the activations.
Operation: TypeAlias = Callable[[Activations], Activations]

ZERO = np.float32(0)
#: Rows with an encoded number beyond this are computed in float64; the unit is mostly standard
#: deviations.
FAR = 16.0


@dataclass(frozen=True)
class Stack:
    """A net without gradients."""

    inputs: int
    outputs: int
    operations: tuple[Operation, ...]
    #: The layers that the operations compute, in the same order.
    layers: tuple[StackLayer, ...]
    #: the count of learned numbers
    parameters: int

    def forward(self, x: Activations) -> Activations:
        """(rows, inputs) to (rows, outputs)."""
        # An overflow becomes an infinity; the caller checks the outputs for it.
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            for operation in self.operations:
                x = operation(x)
        return x

    def forward_precisely(self, x: Activations) -> Activations:
        """Do the same as `forward` in float64 and round once: slower and more exact.

        Far outside the training rows large numbers may cancel. The float32 result then depends on
        the order in which a library adds terms.
        """
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            y = x.astype(np.float64)
            for operation in self.operations:
                y = operation(y)  # type: ignore[arg-type,assignment]
            return y.astype(np.float32)


def load_stack(net: Mapping[str, Any], parameters: Mapping[str, NDArray[Any]]) -> Stack:
    """Build a stack from a net's description and its parameters by name.

    Raises `CheckpointCorrupt` if they do not fit each other.
    """
    try:
        width = net["inputs"]
        operations: list[Operation] = []
        layers: list[StackLayer] = []
        count = 0
        for place, layer in enumerate(net["layers"]):
            if isinstance(layer, str):
                operations.append(ACTIVATIONS[layer])
                layers.append(layer)
            elif "linear" in layer:
                weight, bias = parameters[f"{place}.weight"], parameters[f"{place}.bias"]
                _check_shapes(place, weight, bias, (layer["linear"], width))
                operations.append(_linear(weight, bias))
                layers.append((weight, bias))
                width = layer["linear"]
                count += weight.size + bias.size
        return Stack(net["inputs"], net["outputs"], tuple(operations), tuple(layers), count)
    except (KeyError, TypeError) as error:
        raise CheckpointCorrupt(f"the net does not fit its tensors: {error}") from error


def _check_shapes(
    place: int, weight: NDArray[Any], bias: NDArray[Any], shape: tuple[int, int]
) -> None:
    if weight.shape != shape or bias.shape != shape[:1] or weight.dtype != np.float32:
        raise CheckpointCorrupt(
            f"layer {place} needs float32 weights {shape}, found {weight.dtype} {weight.shape}"
        )


def _linear(weight: Activations, bias: Activations) -> Operation:
    transposed = weight.T

    def apply(x: Activations) -> Activations:
        y: Activations = x.dot(transposed)  # the same as `@`, at half its cost for one row
        y += bias
        return y

    return apply


def _relu(x: Activations) -> Activations:
    return np.maximum(x, ZERO)


def _sigmoid(x: Activations) -> Activations:
    return np.float32(1) / (np.float32(1) + np.exp(-x))


def _tanh(x: Activations) -> Activations:
    return np.tanh(x)


def _gelu(x: Activations) -> Activations:
    half = np.float32(0.5)
    return half * x * (np.float32(1) + _erf(x * np.float32(np.sqrt(half))))


#: erf(x) ≈ x · P(x²) / Q(x²) for |x| ≤ 3.74; beyond that it is ±1 in float32. The coefficients are
#: those of Eigen and XLA, highest power first. NumPy has no erf.
ERF_LIMIT = np.float32(3.7439211627767994)
ERF_P = np.array(
    [
        0.00022905065861350646,
        0.0034082910107109506,
        0.050955695062380861,
        0.18520832239976145,
        1.128379143519084,
    ],
    dtype=np.float32,
)
ERF_Q = np.array(
    [
        -1.1791602954361697e-7,
        0.000023547966471313185,
        0.0010179625278914885,
        0.014070470171167667,
        0.11098505178285362,
        0.49746925110067538,
        1.0,
    ],
    dtype=np.float32,
)


def _erf(x: Activations) -> Activations:
    is_one = np.abs(x) >= ERF_LIMIT
    x = np.clip(x, -ERF_LIMIT, ERF_LIMIT)
    square = x * x
    top, bottom = np.zeros_like(x), np.zeros_like(x)
    for coefficient in ERF_P:
        top = top * square + coefficient
    for coefficient in ERF_Q:
        bottom = bottom * square + coefficient
    return np.where(is_one, np.sign(x), x * top / bottom)


ACTIVATIONS: dict[str, Operation] = {
    "relu": _relu,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "gelu": _gelu,
}
