"""A stack of linear layers and activations that only predicts. Knows NumPy only.

A net is described by its layers, input side first: `{"linear": 64}`, `"relu"`, `{"dropout": 0.1}`;
the last one is linear. Parameters are named by the place of their layer: `0.weight`, `0.bias`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from descent.spec import LossName, Sgd
from models.data import Floats, Integers, Table
from models.errors import CheckpointCorrupt
from models.features.encoding import Features
from models.features.targets import NumberTargets

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


WIDE = 200_000  # learned numbers; for a smaller net it saves at most a tenth of a prediction
MANY = 32  # rows
BLOCK = 1024  # rows at a time; more rows take memory for activations and save nothing
#: A net is computed here only if no sum in it can overflow for rows up to this size, because each
#: library treats infinite numbers differently.
REACH = 1e6
LIMIT = 1e30
OPSET = 18
ONES = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}


class OnnxSession:
    """The onnxruntime session of a stack, made at its first use. Any thread may use it."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._is_fit = is_fit(stack)
        self._lock = Lock()
        self._made: onnxruntime.InferenceSession | None = None

    @property
    def bytes(self) -> int:
        """Bytes of memory beside the stack: the weights, and a copy in the session's order."""
        return 8 * self._stack.parameters if self._is_fit else 0

    def forward(self, x: Activations) -> Activations | None:
        """(rows, inputs) to (rows, outputs); None if the stack itself must compute these rows."""
        if not self._is_fit or len(x) < MANY or not np.abs(x).max() <= REACH:
            return None
        with self._lock:
            if self._made is None:
                self._made = made(self._stack)
        blocks = [x[start : start + BLOCK] for start in range(0, len(x), BLOCK)]
        return np.concatenate([self._made.run(None, {"x": block})[0] for block in blocks])


def is_fit(stack: Stack) -> bool:
    """Return whether a stack is wide enough and cannot overflow."""
    names = {layer for layer in stack.layers if isinstance(layer, str)}
    if stack.parameters < WIDE or not names <= ONES.keys():
        return False
    largest = REACH
    for layer in stack.layers:
        if not isinstance(layer, str):
            weight, bias = (np.abs(each.astype(np.float64)) for each in layer)
            largest = float((weight.sum(axis=1) * largest + bias).max())
    return largest < LIMIT


def made(stack: Stack) -> onnxruntime.InferenceSession:
    """Return the session of a stack, with the input `x` and the output `y`."""
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []
    at = "x"
    for place, layer in enumerate(stack.layers):
        out = "y" if place == len(stack.layers) - 1 else f"{place}"
        if isinstance(layer, str):
            nodes.append(helper.make_node(ONES[layer], [at], [out]))
        else:
            names = [f"{place}.weight", f"{place}.bias"]
            constants += map(numpy_helper.from_array, layer, names)
            nodes.append(helper.make_node("Gemm", [at, *names], [out], transB=1))
        at = out
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, stack.inputs])
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, stack.outputs])
    model = helper.make_model(
        helper.make_graph(nodes, "net", [given], [wanted], constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # each request has a thread
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # they never free memory
    content: bytes = model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


#: Multiplications that an exact solution may take: a few seconds of one core.
MAX_WORK = 10**10
#: Numbers of the encoded table for an exact solution. It holds several copies of 160 MB.
MAX_CELLS = 20_000_000
CHUNK = 16_384  # rows that are encoded at a time


@dataclass(frozen=True)
class Line:
    """y = Wx + b, from encoded columns to outputs in the scale of the net's outputs."""

    #: (outputs, width) and (outputs,)
    weights: Floats
    biases: Floats


def is_small(rows: int, width: int) -> bool:
    """Return whether an exact solution for a table of this size takes a few seconds at most."""
    return rows * width**2 <= MAX_WORK and rows * width <= MAX_CELLS


def least_squares(features: Features, table: Table, rows: Integers) -> Line | None:
    """Return the line with the smallest sum of squared errors over `rows`.

    Of several equally good lines it is the one with the smallest weights. None for classes, and if
    the table is too large.
    """
    if not is_small(len(rows), features.width) or not isinstance(features.target, NumberTargets):
        return None
    x = features.encode(table, rows, dtype=np.float64)
    y = features.target.encode(table, rows)
    # Centre x and y, so that the bias drops out, and scale x, so that a column of small numbers is
    # not taken for rounding errors.
    means, sizes = x.mean(axis=0), x.std(axis=0)
    sizes[sizes == 0] = 1.0
    solution, *_ = np.linalg.lstsq((x - means) / sizes, y - y.mean(axis=0))
    weights = (solution / sizes[:, None]).T
    return Line(weights, y.mean(axis=0) - weights @ means)


def largest_learning_rate(
    x: NDArray[np.floating[Any]], loss: LossName, optimizer: Sgd, outputs: int = 1
) -> float | None:
    """Return the rate above which full-batch gradient descent on a linear model diverges.

    `x` holds the encoded rows, (rows, width). The error surface of `mse` and `sse` is a parabola.
    Along its steepest axis, with curvature c, a step with a rate above 2 / c ends higher than it
    began. Momentum m allows (1 + m) times that rate; Nesterov's allows (1 + m) / (1 + 2m) times.
    None for a loss whose surface is not a parabola.
    """
    if loss not in {"mse", "sse"}:
        return None
    steepest = float(np.linalg.norm(np.column_stack([x, np.ones(len(x))]), 2)) ** 2
    curvature = 2 * steepest / (len(x) * outputs if loss == "mse" else 1) + optimizer.weight_decay
    largest = 2 * (1 + optimizer.momentum) / curvature
    return largest / (1 + 2 * optimizer.momentum) if optimizer.nesterov else largest


def describe_line(features: Features, line: Line) -> dict[str, dict[str, Any]]:
    """Return `{output: {"weights": {column: …}, "bias": …}}` in the columns' own units.

    An output is a target, or a class of a classification.
    """
    centers, scales = features.centers_and_scales()
    weights = line.weights / scales
    biases = line.biases - weights @ centers
    if isinstance(features.target, NumberTargets):
        units = np.array(features.target.scale)
        weights, biases = weights * units[:, None], biases * units + features.target.center
    return {
        name: {"weights": dict(zip(features.labels, row, strict=True)), "bias": bias}
        for name, row, bias in zip(
            features.target.output_names, weights.tolist(), biases.tolist(), strict=True
        )
    }


def squared_errors(features: Features, line: Line, table: Table, rows: Integers) -> list[float]:
    """Return the sum of squared errors of each target over `rows`, in its own units."""
    if not isinstance(features.target, NumberTargets):
        return []
    totals = np.zeros(features.outputs)
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK]
        outputs = features.encode(table, part, dtype=np.float64) @ line.weights.T + line.biases
        errors = features.target.decode(outputs) - features.target.truth(table, part)
        totals += (errors**2).sum(axis=0)
    return [float(total) for total in totals]


def parameters(
    features: Features, trained: Line, best: Line | None, table: Table, rows: Integers
) -> dict[str, Any]:
    """Return a trained line beside the closed-form line, in the API's format.

    For one target: `{"weights", "bias", "sse", "closed_form": {"weights", "bias", "sse"}}`. For
    several targets or classes: one such object by name; classes have no `sse` and no closed form.
    """
    answer = _with_errors(features, trained, table, rows)
    if best is not None:
        for name, solution in _with_errors(features, best, table, rows).items():
            answer[name]["closed_form"] = solution
    single = isinstance(features.target, NumberTargets) and len(answer) == 1
    return next(iter(answer.values())) if single else answer


def _with_errors(
    features: Features, line: Line, table: Table, rows: Integers
) -> dict[str, dict[str, Any]]:
    described = describe_line(features, line)
    for entry, total in zip(
        described.values(), squared_errors(features, line, table, rows), strict=False
    ):
        entry["sse"] = total
    return described
