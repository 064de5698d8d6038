"""A graph in NumPy: it predicts, and differentiates by its rows. Knows NumPy only."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models.data import Floats
from models.nets.graph import INPUT, Graph, Operation

Activations: TypeAlias = NDArray[np.float32]
#: float32 or float64, which every operation keeps
Numbers: TypeAlias = NDArray[Any]
#: the parameters of an operation by the last part of their names, such as `weight`
Own: TypeAlias = Mapping[str, NDArray[np.float32]]
#: an operation on its inputs, each (rows, width)
Apply: TypeAlias = Callable[..., Numbers]
#: from an operation's parameters, inputs and the slopes by its result to the slopes by each input
Pull: TypeAlias = Callable[[Own, Sequence[Floats], Floats], Sequence[Floats]]

ZERO = np.float32(0)
NOTHING: Numbers = np.empty(0)  # in place of a value that nothing reads any more


@dataclass(frozen=True)
class Arithmetic:
    """The arithmetic of a kind of operation."""

    #: returns the operation with these parameters
    bind: Callable[[Own], Apply]
    pull: Pull


@dataclass(frozen=True)
class Net:
    """A graph with its parameters, compiled."""

    graph: Graph
    #: float32, by name
    parameters: Mapping[str, NDArray[np.float32]]
    #: all operations, from the rows to the outputs
    run: Apply

    def forward(self, x: Activations) -> Activations:
        """(rows, inputs) to (rows, outputs)."""
        # An overflow becomes an infinity; the caller checks the outputs for it.
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            outputs: Activations = self.run(x)
        return outputs

    def forward_precisely(self, x: Activations) -> Activations:
        """Do the same as `forward` in float64 and round once: slower and more exact.

        Far outside the training rows large numbers may cancel. The float32 result then depends on
        the order in which a library adds terms.
        """
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            outputs: Activations = self.run(x.astype(np.float64)).astype(np.float32)
        return outputs

    def slopes(self, x: Floats, slope_of: Callable[[Floats], Floats]) -> Floats:
        """Return the slopes by the rows x, (rows, inputs), in float64, by the chain rule.

        `slope_of` returns the slopes by the outputs, from the outputs; (rows, outputs) each.
        """
        values = {INPUT: x}
        for each in self.graph.operations:
            apply = TABLE[each.kind].bind(self._own(each))
            values[each.output] = apply(*(values[name] for name in each.inputs))
        last = self.graph.operations[-1].output
        slopes = {last: slope_of(values[last])}
        for each in reversed(self.graph.operations):
            inputs = [values[name] for name in each.inputs]
            parts = TABLE[each.kind].pull(self._own(each), inputs, slopes.pop(each.output))
            for name, part in zip(each.inputs, parts, strict=True):
                slopes[name] = slopes[name] + part if name in slopes else part
        return slopes[INPUT]

    def _own(self, operation: Operation) -> Own:
        return _own(operation, self.graph, self.parameters)


def compiled(graph: Graph, parameters: Mapping[str, NDArray[Any]]) -> Net:
    """Return a net that predicts; raises ValueError if the parameters do not fit the graph."""
    if parameters.keys() != graph.shapes.keys():
        wanted = ", ".join(graph.shapes)
        raise ValueError(f"the net needs the parameters {wanted[:200]} and nothing else")
    for name, shape in graph.shapes.items():
        found = parameters[name]
        if found.shape != shape or found.dtype != np.float32:
            raise ValueError(
                f"{name} must be float32 of the shape {shape}, found {found.dtype} {found.shape}"
            )
    for each in graph.operations:
        if each.kind in CHECKS:
            CHECKS[each.kind](_own(each, graph, parameters), graph.widths[each.inputs[0]])
    bound = [TABLE[each.kind].bind(_own(each, graph, parameters)) for each in graph.operations]
    return Net(graph, parameters, _chain(graph, bound) if graph.is_chain else _web(graph, bound))


def _own(operation: Operation, graph: Graph, parameters: Mapping[str, NDArray[Any]]) -> Own:
    parts = graph.shapes_of(operation)
    return {part: parameters[f"{operation.output}.{part}"] for part in parts}


def _chain(graph: Graph, bound: Sequence[Apply]) -> Apply:
    works = tuple(
        apply
        for each, apply in zip(graph.operations, bound, strict=True)
        if each.kind != "dropout"  # it does nothing: one call less
    )

    def run(x: Numbers) -> Numbers:
        for apply in works:
            x = apply(x)
        return x

    return run


def _web(graph: Graph, bound: Sequence[Apply]) -> Apply:
    """Return the operations of a graph that branches; a value is dropped after its last use."""
    places = {name: place for place, name in enumerate(graph.widths)}
    steps = tuple(
        (apply, tuple(places[name] for name in each.inputs), tuple(places[name] for name in last))
        for each, apply, last in zip(graph.operations, bound, graph.last_reads, strict=True)
    )

    def run(x: Numbers) -> Numbers:
        values = [x]
        for apply, sources, last in steps:
            values.append(apply(*[values[place] for place in sources]))
            for place in last:
                values[place] = NOTHING
        return values[-1]

    return run


# ---- the operations ------------------------------------------------------------------------------


def _linear(own: Own) -> Apply:
    transposed, bias = own["weight"].T, own["bias"]

    def apply(x: Numbers) -> Numbers:
        y: Numbers = x.dot(transposed)  # the same as `@`, at half its cost for one row
        y += bias
        return y

    return apply


def _relu(x: Numbers) -> Numbers:
    return np.maximum(x, ZERO)


def _sigmoid(x: Numbers) -> Numbers:
    return np.float32(1) / (np.float32(1) + np.exp(-x))


def _tanh(x: Numbers) -> Numbers:
    return np.tanh(x)


def _gelu(x: Numbers) -> Numbers:
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


def _erf(x: Numbers) -> Numbers:
    is_one = np.abs(x) >= ERF_LIMIT
    x = np.clip(x, -ERF_LIMIT, ERF_LIMIT)
    square = x * x
    top, bottom = np.zeros_like(x), np.zeros_like(x)
    for coefficient in ERF_P:
        top = top * square + coefficient
    for coefficient in ERF_Q:
        bottom = bottom * square + coefficient
    return np.where(is_one, np.sign(x), x * top / bottom)


#: Numbers that trees read at a time: few enough for the processor's cache.
TREE_CELLS = 10**5


def _trees(own: Own) -> Apply:
    leaves = own["leaves"]
    trees, depth = own["threshold"].shape
    # Eight questions of each tree make a byte; no number is above infinity.
    feature, threshold = np.zeros((trees, 8), np.intp), np.full((trees, 8), np.inf, np.float32)
    feature[:, :depth], threshold[:, :depth] = own["feature"], own["threshold"]
    first = np.arange(trees, dtype=np.intp) * 2**depth
    flat = leaves.reshape(-1, leaves.shape[2])
    start = own["start"].astype(np.float64)
    block = max(1, TREE_CELLS // feature.size)

    def part(x: Activations) -> Floats:
        # The places are checked once, when the net is made; here a check would take half the time.
        gone = x.take(feature, axis=1, mode="clip") > threshold
        # The bits of a byte, from the lowest, are the number of the leaf.
        found = np.packbits(gone.reshape(len(x), feature.size), axis=1, bitorder="little") + first
        total: Floats = flat.take(found, axis=0, mode="clip").sum(axis=1, dtype=np.float64)
        total += start
        return total

    def apply(x: Numbers) -> Numbers:
        single = x.astype(np.float32, copy=False)
        if len(x) <= block:
            return part(single).astype(x.dtype)
        found = np.empty((len(x), len(start)), x.dtype)
        for begin in range(0, len(x), block):
            found[begin : begin + block] = part(single[begin : begin + block])
        return found

    return apply


def _check_trees(own: Own, width: int) -> None:
    feature = own["feature"]
    if not ((feature >= 0) & (feature < width) & (feature == np.floor(feature))).all():
        raise ValueError(f"the features of trees are whole numbers from 0 to {width - 1}")


def bounds_of_bins(bins: int) -> tuple[Activations, Activations]:
    """Return the least and the largest part of each bin in a piecewise-linear code, (bins,)."""
    least, largest = np.zeros(bins, np.float32), np.ones(bins, np.float32)
    least[0], largest[-1] = -np.inf, np.inf
    return least, largest


def _bins(own: Own) -> tuple[NDArray[np.intp], Activations, Floats]:
    """Return the place of each number, and for each of its bins the start and 1 / its width."""
    knots = own["knots"]
    widths = np.diff(knots.astype(np.float64))
    with np.errstate(divide="ignore"):
        per_width = np.where(widths > 0, 1 / widths, 0.0)
    return own["place"].astype(np.intp), knots[:, :-1], per_width


def _code(own: Own) -> Apply:
    """Return the function from rows, (rows, width), to their codes, (numbers, rows, bins)."""
    place, start, per_width = _bins(own)
    least, largest = bounds_of_bins(start.shape[1])
    start, precise = start[:, None], per_width[:, None]
    single = precise.astype(np.float32)

    def apply(x: Numbers) -> Numbers:
        code: Numbers = x.T.take(place, axis=0)[:, :, None] - start
        code *= precise if x.dtype == np.float64 else single
        np.maximum(code, least, out=code)
        np.minimum(code, largest, out=code)
        return code

    return apply


def _piecewise_linear(own: Own) -> Apply:
    code, weight, bias = _code(own), own["weight"], own["bias"][:, None]
    width = bias.size

    def apply(x: Numbers) -> Numbers:
        bent = np.matmul(code(x), weight)
        bent += bias
        np.maximum(bent, ZERO, out=bent)
        return np.concatenate([x, bent.transpose(1, 0, 2).reshape(len(x), width)], axis=1)

    return apply


def _pull_codes(own: Own, inputs: Sequence[Floats], slopes: Floats) -> list[Floats]:
    (x,) = inputs
    place, _, per_width = _bins(own)
    code = _code(own)(x)
    least, largest = bounds_of_bins(code.shape[2])
    numbers, size = own["bias"].shape
    bent = np.matmul(code, own["weight"]) + own["bias"][:, None]
    passed = slopes[:, x.shape[1] :].reshape(len(x), numbers, size).transpose(1, 0, 2)
    by_code = np.matmul(passed * (bent > 0), own["weight"].transpose(0, 2, 1))
    by_number = (by_code * ((code > least) & (code < largest)) * per_width[:, None]).sum(axis=2)
    found = slopes[:, : x.shape[1]].copy()
    np.add.at(found.T, place, by_number)
    return [found]


def _check_codes(own: Own, width: int) -> None:
    place, knots = own["place"], own["knots"]
    if not ((place >= 0) & (place < width) & (place == np.floor(place))).all():
        raise ValueError(f"the places of numbers are whole numbers from 0 to {width - 1}")
    if not (np.isfinite(knots).all() and (np.diff(knots) >= 0).all()):
        raise ValueError("the knots of a piecewise-linear code are finite and ascend")


def _mix(own: Own) -> Apply:
    weights = own["weight"].tolist()

    def apply(*values: Numbers) -> Numbers:
        found: Numbers = values[0] * weights[0]
        for weight, value in zip(weights[1:], values[1:], strict=True):
            found += weight * value
        return found

    return apply


def _mix_classes(own: Own) -> Apply:
    weights = own["weight"].tolist()

    def apply(*values: Numbers) -> Numbers:
        logs = [_log_softmax(value) for value in values]
        largest = np.maximum.reduce(logs)  # so that no sum becomes zero
        pairs = zip(weights, logs, strict=True)
        found: Numbers = largest + np.log(sum(w * np.exp(each - largest) for w, each in pairs))
        return found

    return apply


def _log_softmax(x: Numbers) -> Numbers:
    x = x - x.max(axis=1, keepdims=True)
    found: Numbers = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return found


def _pull_classes(own: Own, inputs: Sequence[Floats], slopes: Floats) -> list[Floats]:
    shares = [np.exp(_log_softmax(value)) for value in inputs]
    parts = [weight * share for weight, share in zip(own["weight"].tolist(), shares, strict=True)]
    pulled = [part / sum(parts) * slopes for part in parts]
    return [
        each - share * each.sum(axis=1, keepdims=True)
        for each, share in zip(pulled, shares, strict=True)
    ]


def _check_weights(own: Own, _width: int) -> None:
    weights = own["weight"]
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(f"the weights of a mix are above 0, got {weights.min()}")


#: by kind, what parameters must be beside their shapes, with the width of the first input
CHECKS: dict[str, Callable[[Own, int], None]] = {
    "trees": _check_trees,
    "piecewise_linear": _check_codes,
    "mix": _check_weights,
    "mix_classes": _check_weights,
}


def _sigmoid_slope(x: Floats) -> Floats:
    y: Floats = _sigmoid(x)
    return y * (1 - y)


def _gelu_slope(x: Floats) -> Floats:
    # gelu(x) = x · Φ(x), so Φ(x) = gelu(x) / x.
    share = np.where(x == 0, 0.5, _gelu(x) / np.where(x == 0, 1, x))
    slope: Floats = share + x * np.exp(-np.square(x) / 2) / np.sqrt(2 * np.pi)
    return slope


def _function(apply: Apply, slope: Callable[[Floats], Floats]) -> Arithmetic:
    """Return the arithmetic of a function of each number, with its derivative."""
    return Arithmetic(lambda _own: apply, lambda _own, inputs, slopes: [slopes * slope(inputs[0])])


TABLE: dict[str, Arithmetic] = {
    "linear": Arithmetic(_linear, lambda own, _inputs, slopes: [slopes @ own["weight"]]),
    "relu": _function(_relu, lambda x: (x > 0).astype(np.float64)),
    "sigmoid": _function(_sigmoid, _sigmoid_slope),
    "tanh": _function(_tanh, lambda x: 1 - np.square(np.tanh(x))),
    "gelu": _function(_gelu, _gelu_slope),
    "dropout": Arithmetic(lambda _own: lambda x: x, lambda _own, _inputs, slopes: [slopes]),
    "add": Arithmetic(lambda _own: np.add, lambda _own, _inputs, slopes: [slopes, slopes]),
    "multiply": Arithmetic(
        lambda _own: np.multiply,
        lambda _own, inputs, slopes: [slopes * inputs[1], slopes * inputs[0]],
    ),
    "trees": Arithmetic(_trees, lambda _own, inputs, _slopes: [np.zeros_like(inputs[0])]),
    "piecewise_linear": Arithmetic(_piecewise_linear, _pull_codes),
    "mix": Arithmetic(
        _mix, lambda own, _inputs, slopes: [slopes * each for each in own["weight"].tolist()]
    ),
    "mix_classes": Arithmetic(_mix_classes, _pull_classes),
}
