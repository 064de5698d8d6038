"""A graph as nodes of ONNX: in the exported file, and in the session of onnxruntime.

Knows the operators; nothing of columns or files.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.nets.graph import INPUT, Graph, Operation
from models.nets.numeric import bounds_of_bins

OPSET = 18  # of the operators: old enough for runtimes of 2023
IR_VERSION = 8
SQRT_HALF = np.sqrt(0.5)


class Nodes:
    """Nodes and constants, with names that differ from those of all inputs and outputs."""

    def __init__(self, taken: Iterable[str], outputs: Iterable[str]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.taken = set(taken)
        self._prefix = "/"
        while any(name.startswith(self._prefix) for name in self.taken.union(outputs)):
            self._prefix += "/"

    def constant(self, values: NDArray[Any]) -> str:
        name = f"{self._prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def apply(
        self,
        operator: str,
        *inputs: str,
        output: str | None = None,
        domain: str = "",
        **attributes: Any,  # noqa: ANN401  the type in onnx.helper.make_node
    ) -> str:
        """Add a node with one output and return the output's name."""
        name = f"{self._prefix}{operator}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operator, inputs, [output or name], name, domain=domain, **attributes)
        )
        return output or name

    def join(self, parts: Sequence[str]) -> str:
        """Put columns side by side."""
        return parts[0] if len(parts) == 1 else self.apply("Concat", *parts, axis=1)

    def pick(self, matrix: str, places: Sequence[int], output: str | None = None) -> str:
        """Return these columns of a matrix, in this order."""
        found = self.constant(np.array(places, dtype=np.int64))
        return self.apply("Gather", matrix, found, output=output, axis=1)

    def part(self, vector: str, place: int) -> str:
        """Return a number of a vector, of the shape (1,)."""
        return self.apply("Gather", vector, self.constant(np.array([place], dtype=np.int64)))

    def single(self, value: str) -> str:
        """Round numbers to float32."""
        return self.apply("Cast", value, to=TensorProto.FLOAT)

    def double(self, value: str) -> str:
        return self.apply("Cast", value, to=TensorProto.DOUBLE)

    def free(self, name: str) -> str:
        """Return this name, with underscores appended until no column has it."""
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


#: from a parameter's name to the name of its constant
Weight = Callable[[str], str]


def add_net(nodes: Nodes, graph: Graph, x: str, weight: Weight) -> str:
    """Add the operations of a net on the rows x; return the name of its outputs."""
    values = {INPUT: x}
    for each in graph.operations:
        inputs = [values[name] for name in each.inputs]
        if each.kind == "linear":
            # Not `weight` twice in the call: the file keeps its parameters in this order.
            names = [weight(f"{each.output}.{part}") for part in ("weight", "bias")]
            found = nodes.apply("Gemm", *inputs, *names, transB=1)
        elif each.kind == "dropout":
            (found,) = inputs
        elif each.kind == "gelu":
            found = _gelu(nodes, *inputs)
        elif each.kind in LEARNED:
            names = [weight(f"{each.output}.{part}") for part in graph.shapes_of(each)]
            found = LEARNED[each.kind](nodes, each, inputs, *names)
        else:
            found = nodes.apply(OPERATORS[each.kind], *inputs)
        values[each.output] = found
    return values[graph.operations[-1].output]


OPERATORS = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "add": "Add",
    "multiply": "Mul",
}


def _gelu(nodes: Nodes, x: str) -> str:
    half, one = (nodes.constant(np.array(number, dtype=np.float64)) for number in (0.5, 1))
    scaled = nodes.apply("Mul", x, nodes.constant(np.array(SQRT_HALF)))
    # Runtimes have no Erf of doubles; it lies between -1 and 1, so float32 loses no relevant digit.
    bent = nodes.double(nodes.apply("Erf", nodes.single(scaled)))
    return nodes.apply("Mul", nodes.apply("Mul", x, half), nodes.apply("Add", bent, one))


def _trees(nodes: Nodes, operation: Operation, inputs: Sequence[str], *own: str) -> str:
    """Add trees by arithmetic: in double, and equal for any number of outputs."""
    trees, depth, outputs = (
        int(operation.attributes[name]) for name in ("trees", "depth", "outputs")
    )

    def shape(*sizes: int) -> str:
        return nodes.constant(np.array(sizes, dtype=np.int64))

    (x,), (feature, threshold, leaves, start) = inputs, own
    places = nodes.apply("Cast", feature, to=TensorProto.INT64)
    read = nodes.apply("Gather", nodes.single(x), places, axis=1)
    gone = nodes.apply("Greater", read, nodes.single(threshold))
    bits = nodes.constant((2.0 ** np.arange(depth)).astype(np.float32)[:, None])
    found = nodes.apply("MatMul", nodes.single(gone), bits)
    found = nodes.apply("Cast", found, to=TensorProto.INT64)
    first = nodes.constant((np.arange(trees, dtype=np.int64) * 2**depth)[:, None])
    found = nodes.apply("Reshape", nodes.apply("Add", found, first), shape(-1, trees))
    flat = nodes.apply("Reshape", leaves, shape(-1, outputs))
    values = nodes.apply("Gather", flat, found, axis=0)
    return nodes.apply("Add", nodes.apply("ReduceSum", values, shape(1), keepdims=0), start)


def _piecewise_linear(nodes: Nodes, operation: Operation, inputs: Sequence[str], *own: str) -> str:
    numbers, bins, size = (int(operation.attributes[name]) for name in ("numbers", "bins", "size"))

    def whole(*values: int) -> str:
        return nodes.constant(np.array(values, dtype=np.int64))

    def like_x(values: NDArray[Any]) -> str:
        return nodes.apply("CastLike", nodes.constant(values), x)

    (x,), (place, knots, weight, bias) = inputs, own
    start = nodes.apply("Slice", knots, whole(0), whole(bins), whole(1))
    end = nodes.apply("Slice", knots, whole(1), whole(bins + 1), whole(1))
    widths, zero = nodes.apply("Sub", end, start), like_x(np.zeros(1, np.float32))
    per_width = nodes.apply(
        "Where",
        nodes.apply("Greater", widths, zero),
        nodes.apply("Reciprocal", widths),
        zero,
    )
    read = nodes.apply("Gather", x, nodes.apply("Cast", place, to=TensorProto.INT64), axis=1)
    code = nodes.apply("Sub", nodes.apply("Unsqueeze", read, whole(2)), start)
    code = nodes.apply("Mul", code, per_width)
    least, largest = map(like_x, bounds_of_bins(bins))
    code = nodes.apply("Min", nodes.apply("Max", code, least), largest)
    # Not MatMul between two Transpose: onnxruntime joins them to one that ends the process where
    # there are no rows.
    bent = nodes.apply("Einsum", code, weight, equation="rnb,nbs->rns")
    bent = nodes.apply("Relu", nodes.apply("Add", bent, bias))
    return nodes.join([x, nodes.apply("Reshape", bent, whole(-1, numbers * size))])


def _mix(nodes: Nodes, _operation: Operation, values: Sequence[str], weight: str) -> str:
    parts = [nodes.apply("Mul", value, nodes.part(weight, at)) for at, value in enumerate(values)]
    return nodes.apply("Sum", *parts)


def _mix_classes(nodes: Nodes, _operation: Operation, values: Sequence[str], weight: str) -> str:
    logs = [nodes.apply("LogSoftmax", value, axis=1) for value in values]
    largest = nodes.apply("Max", *logs)  # so that no sum becomes zero
    parts = [
        nodes.apply(
            "Mul", nodes.apply("Exp", nodes.apply("Sub", each, largest)), nodes.part(weight, at)
        )
        for at, each in enumerate(logs)
    ]
    return nodes.apply("Add", nodes.apply("Log", nodes.apply("Sum", *parts)), largest)


#: the kinds with parameters and more than one node
LEARNED: dict[str, Callable[..., str]] = {
    "trees": _trees,
    "piecewise_linear": _piecewise_linear,
    "mix": _mix,
    "mix_classes": _mix_classes,
}
