"""A stack of linear layers and activations that only predicts. Knows NumPy only.

A net is described by its layers, input side first: `{"linear": 64}`, `"relu"`, `{"dropout": 0.1}`;
the last one is linear. Parameters are named by the place of their layer: `0.weight`, `0.bias`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
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
#: Numbers of the encoded table for an exact solution, which is read for it once more.
MAX_CELLS = 20_000_000
CHUNK = 16_384  # rows that are encoded at a time
#: A scaled column whose deviation over the rows is below this is constant but for rounding.
CONSTANT = 1e-12


@dataclass(frozen=True)
class Line:
    """y = Wx + b, from encoded columns to outputs in the scale of the net's outputs."""

    #: (outputs, width) and (outputs,)
    weights: Floats
    biases: Floats


def is_small(rows: int, width: int) -> bool:
    """Return whether an exact solution for a table of this size takes a few seconds at most."""
    return rows * width**2 <= MAX_WORK and rows * width <= MAX_CELLS


def least_squares(
    features: Features, table: Table, rows: Integers, weights: Floats | None = None
) -> Line | None:
    """Return the line with the smallest sum of squared errors over `rows`.

    `weights`, (rows,), multiply the squares. Of several equally good lines it is the one with the
    smallest parameters. None for classes, and if the table is too large.
    """
    target, width = features.target, features.width
    if not is_small(len(rows), width) or not isinstance(target, NumberTargets):
        return None
    center, scale = np.zeros(width), np.ones(width)
    triangle = np.empty((0, 1 + width + features.outputs))
    for part, place in _parts(table, rows):
        x = features.encode(part, dtype=np.float64)
        if place.start == 0:
            # Roughly centre and scale the columns, so that those of small numbers are not taken for
            # rounding errors.
            center, spread = x.mean(axis=0), x.std(axis=0)
            scale = np.where(spread, spread, 1.0)
        y = target.encode(part, np.arange(part.rows))
        block = np.column_stack([np.ones(len(x)), (x - center) / scale, y])
        if weights is not None:
            block *= np.sqrt(weights[place])[:, None]
        # The triangle of the QR decomposition has the same products of columns as all rows so far.
        triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, block]), mode="r"))
    solution = _solve(triangle[1:, 1:], width, len(rows))
    # The first row belongs to the bias. Below it are the products of centred columns.
    biases = triangle[0, 1 + width :] - triangle[0, 1 : 1 + width] @ solution
    learned = (solution / scale[:, None]).T
    return Line(learned, biases / triangle[0, 0] - learned @ center)


def _solve(triangle: Floats, width: int, rows: int) -> Floats:
    """Return the least squares of the last columns by the first ones, (width, outputs)."""
    x, y = triangle[:, :width], triangle[:, width:]
    sizes = np.linalg.norm(x, axis=0)
    is_constant = sizes <= CONSTANT * math.sqrt(rows)
    sizes = np.where(is_constant, 1.0, sizes)
    precision = max(rows, width) * np.finfo(np.float64).eps
    solution, *_ = np.linalg.lstsq(np.where(is_constant, 0.0, x / sizes), y, rcond=precision)
    found: Floats = solution / sizes[:, None]
    return found


def _parts(table: Table, rows: Integers) -> Iterator[tuple[Table, slice]]:
    """Yield the rows as small tables, each with its place among `rows`."""
    start = 0
    for part in table.parts(rows, CHUNK):
        if part.rows:
            yield part, slice(start, start + part.rows)
        start += part.rows


def products(
    features: Features, table: Table, rows: Integers, weights: Floats | None = None
) -> Floats:
    """Return the sums of the products of each two encoded columns, the last one being ones.

    `weights`, (rows,), multiply the products. The result is (width + 1, width + 1).
    """
    total = np.zeros((features.width + 1, features.width + 1))
    for part, place in _parts(table, rows):
        x = np.column_stack([features.encode(part, dtype=np.float64), np.ones(part.rows)])
        total += x.T @ (x if weights is None else x * weights[place][:, None])
    return total


def largest_learning_rate(
    products: Floats, rows: int, loss: LossName, optimizer: Sgd, outputs: int = 1
) -> float | None:
    """Return the rate above which full-batch gradient descent on a linear model diverges.

    The error surface of `mse` and `sse` is a parabola, whose curvatures are in the `products` of
    the encoded columns over `rows` rows. Along its steepest axis, with curvature c, a step with a
    rate above 2 / c ends higher than it began. Momentum m allows (1 + m) times that rate;
    Nesterov's allows (1 + m) / (1 + 2m) times. None for a loss whose surface is not a parabola.
    """
    if loss not in {"mse", "sse"} or not np.isfinite(products).all():
        return None
    steepest = float(np.linalg.eigvalsh(products)[-1])
    curvature = 2 * steepest / (rows * outputs if loss == "mse" else 1) + optimizer.weight_decay
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


def predict_line(features: Features, line: Line, table: Table, rows: Integers) -> Floats:
    """Return the line's predictions of these rows; shapes as in `Features.decode`."""
    found = np.empty((len(rows), features.outputs))
    for part, place in _parts(table, rows):
        x = features.encode(part, dtype=np.float64)
        found[place] = features.decode(x @ line.weights.T + line.biases)
    return found


def squared_errors(
    features: Features, line: Line, table: Table, rows: Integers, weights: Floats | None = None
) -> list[float]:
    """Return the sum of squared errors of each target over `rows`, in its own units.

    `weights`, (rows,), multiply the squares.
    """
    if not isinstance(features.target, NumberTargets):
        return []
    errors = predict_line(features, line, table, rows) - features.target.truth(table, rows)
    squares = errors**2 if weights is None else errors**2 * weights[:, None]
    return [float(total) for total in squares.sum(axis=0)]


def parameters(
    features: Features,
    trained: Line,
    best: Line | None,
    table: Table,
    rows: Integers,
    weights: Floats | None = None,
) -> dict[str, Any]:
    """Return a trained line beside the closed-form line, in the API's format.

    For one target: `{"weights", "bias", "sse", "closed_form": {"weights", "bias", "sse"}}`. For
    several targets or classes: one such object by name; classes have no `sse` and no closed form.
    `weights`, (rows,), multiply the squared errors.
    """
    answer = _with_errors(features, trained, table, rows, weights)
    if best is not None:
        for name, solution in _with_errors(features, best, table, rows, weights).items():
            answer[name]["closed_form"] = solution
    single = isinstance(features.target, NumberTargets) and len(answer) == 1
    return next(iter(answer.values())) if single else answer


def _with_errors(
    features: Features, line: Line, table: Table, rows: Integers, weights: Floats | None
) -> dict[str, dict[str, Any]]:
    described = describe_line(features, line)
    for entry, total in zip(
        described.values(), squared_errors(features, line, table, rows, weights), strict=False
    ):
        entry["sse"] = total
    return described
