"""The forward pass of a net, said once: named operations on rows of numbers, as data.

NumPy, torch, ONNX, onnxruntime, the exported script and the engines are made from it. Knows no
library: the client reads it too.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

Activation = Literal["relu", "sigmoid", "tanh", "gelu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
#: the name of the rows that a net reads
INPUT = "x"
#: Limits of graphs from files that anybody may have written.
MAX_OPERATIONS = 4096
MAX_WIDTH = 2**31 - 1
MAX_HELD = 2**27  # numbers of a row at one time
MAX_BINS, MAX_SIZE = 256, 256  # of a piecewise-linear code
MAX_TREES, MAX_DEPTH, MAX_LEAVES = 1_000_000, 8, 2**29
NAME = re.compile(r"[A-Za-z0-9_]{1,64}")

Shape: TypeAlias = tuple[int, ...]
Attributes: TypeAlias = Mapping[str, int | float]


@dataclass(frozen=True)
class Kind:
    """A kind of operation in a graph; each evaluator has a table with the arithmetic of kinds."""

    #: how many values it reads; None for any number from one
    inputs: int | None = 1
    #: its attributes, and whether a number is allowed
    attributes: Mapping[str, Callable[[int | float], bool]] = field(default_factory=dict)
    #: whether it multiplies by constants and adds, nothing else
    is_affine: bool = False
    #: whether its slopes say how its result changes; steps have slopes of zero almost everywhere
    is_smooth: bool = True
    #: the width of its result, from those of its inputs and its attributes
    width: Callable[[Sequence[int], Attributes], int] = lambda widths, _: widths[0]
    #: the shape of each parameter, by the last part of its name
    shapes: Callable[[Sequence[int], Attributes], dict[str, Shape]] = lambda _widths, _: {}
    #: about how many multiplications a row takes, from the widths of its inputs and its attributes
    work: Callable[[Sequence[int], Attributes], int] = lambda widths, _: widths[0]
    #: how many numbers of a row it holds beside its inputs and its result
    inside: Callable[[Attributes], int] = lambda _: 0


def _is_width(number: float) -> bool:
    return isinstance(number, int) and 0 < number <= MAX_WIDTH


def _is_at_most(limit: int) -> Callable[[float], bool]:
    return lambda number: isinstance(number, int) and 0 < number <= limit


def _shapes_of_trees(_widths: Sequence[int], attributes: Attributes) -> dict[str, Shape]:
    trees, depth, outputs = (int(attributes[name]) for name in ("trees", "depth", "outputs"))
    return {
        "feature": (trees, depth),
        "threshold": (trees, depth),
        "leaves": (trees, 2**depth, outputs),
        "start": (outputs,),
    }


def _shapes_of_codes(_widths: Sequence[int], attributes: Attributes) -> dict[str, Shape]:
    numbers, bins, size = (int(attributes[name]) for name in ("numbers", "bins", "size"))
    return {
        "place": (numbers,),
        "knots": (numbers, bins + 1),
        "weight": (numbers, bins, size),
        "bias": (numbers, size),
    }


KINDS: dict[str, Kind] = {
    # y = x Wᵀ + b
    "linear": Kind(
        attributes={"units": _is_width},
        is_affine=True,
        width=lambda _, attributes: int(attributes["units"]),
        shapes=lambda widths, attributes: {
            "weight": (int(attributes["units"]), widths[0]),
            "bias": (int(attributes["units"]),),
        },
        work=lambda widths, attributes: widths[0] * int(attributes["units"]),
    ),
    "relu": Kind(),
    "sigmoid": Kind(),
    "tanh": Kind(),
    "gelu": Kind(),
    # In training it sets a share of the numbers to zero, otherwise it does nothing.
    "dropout": Kind(attributes={"share": lambda number: 0 <= number < 1}, is_affine=True),
    "add": Kind(inputs=2, is_affine=True),
    "multiply": Kind(inputs=2),
    # The sum of `start` and a leaf of each tree. Bit d of the leaf's number, from the lowest, is 1
    # where x[feature[d]] > threshold[d], both rounded to float32; features are whole numbers.
    "trees": Kind(
        attributes={
            "trees": _is_at_most(MAX_TREES),
            "depth": _is_at_most(MAX_DEPTH),
            "outputs": _is_width,
        },
        is_smooth=False,
        width=lambda _, attributes: int(attributes["outputs"]),
        shapes=_shapes_of_trees,
        # Reading from memory in no order takes longer than a product.
        work=lambda _, attributes: int(
            8 * attributes["trees"] * (attributes["depth"] + attributes["outputs"])
        ),
    ),
    # x beside relu(code Wᵀ + b) of each number x[place], with a W and b of its own. Its code has a
    # part for each bin between two knots: the share of the bin that lies below the number, from 0
    # to 1; the first bin goes on below its knots, and the last one above. Equal neighbours among
    # the knots make no bin: its part is 0. `place` and `knots` are not trained.
    "piecewise_linear": Kind(
        attributes={
            "numbers": _is_width,
            "bins": _is_at_most(MAX_BINS),
            "size": _is_at_most(MAX_SIZE),
        },
        width=lambda widths, attributes: (
            widths[0] + int(attributes["numbers"] * attributes["size"])
        ),
        shapes=_shapes_of_codes,
        work=lambda _, attributes: int(
            attributes["numbers"] * attributes["bins"] * (attributes["size"] + 4)
        ),
        inside=lambda attributes: int(attributes["numbers"] * attributes["bins"]),
    ),
    # Σ weight[i] · value i, over the values that it reads
    "mix": Kind(
        inputs=None,
        is_affine=True,
        shapes=lambda widths, _: {"weight": (len(widths),)},
        work=lambda widths, _: sum(widths),
    ),
    # log(Σ weight[i] · softmax(value i)): the mean of probabilities, as classes before a softmax
    "mix_classes": Kind(
        inputs=None,
        shapes=lambda widths, _: {"weight": (len(widths),)},
        work=lambda widths, _: 2 * sum(widths),
    ),
}


@dataclass(frozen=True)
class Operation:
    """A step of a forward pass: it reads values by name and gives its result a name."""

    kind: str
    inputs: tuple[str, ...]
    #: Its parameters are named after it: `0.weight`, `0.bias`.
    output: str
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True)
class DenseLayer:
    """A linear layer, then at most one activation, then at most one dropout."""

    inputs: int
    outputs: int
    activation: Activation | None = None
    #: the share of the activations that training sets to zero
    dropout: float = 0.0


@dataclass(frozen=True)
class Graph:
    """A net: operations in an order in which each reads only earlier results.

    The last result has the outputs. Every graph that exists is valid: making another one raises
    ValueError.
    """

    inputs: int
    operations: tuple[Operation, ...]

    def __post_init__(self) -> None:
        if not _is_width(self.inputs) or not 0 < len(self.operations) <= MAX_OPERATIONS:
            msg = (
                f"a net has 1 to {MAX_WIDTH} inputs and 1 to {MAX_OPERATIONS} operations, got"
                f" {self.inputs} and {len(self.operations)}"
            )
            raise ValueError(msg)
        unread = set(self.widths) - {name for each in self.operations for name in each.inputs}
        if unread != {self.operations[-1].output}:
            shown = ", ".join(sorted(unread - {self.operations[-1].output})) or INPUT
            raise ValueError(f"the net reads no result {shown[:100]}")
        if self.held > MAX_HELD:
            raise ValueError(f"the net holds {self.held} numbers for a row, more than {MAX_HELD}")

    # ---- stored ----

    def to_json(self) -> dict[str, Any]:
        """Return everything that `from_json` needs."""
        return {
            "inputs": self.inputs,
            "outputs": self.outputs,
            "operations": [
                {"kind": each.kind, "inputs": list(each.inputs), "output": each.output}
                | dict(each.attributes)
                for each in self.operations
            ],
        }

    @classmethod
    def from_json(cls, document: object) -> "Graph":
        """Return a stored net, also one of a version that knew only layers; raises ValueError."""
        if not isinstance(document, Mapping):
            raise ValueError("a net is an object")  # noqa: TRY004  it is a value of a file
        listed = document.get("operations")
        if listed is None:
            listed = _operations_of_layers(document.get("layers"))
        if not isinstance(listed, list) or len(listed) > MAX_OPERATIONS:
            raise ValueError(f"a net has a list of at most {MAX_OPERATIONS} operations")
        inputs, outputs = document.get("inputs"), document.get("outputs")
        if type(inputs) is not int or type(outputs) is not int:
            raise ValueError("the numbers of inputs and outputs are whole")
        found = cls(inputs, tuple(map(_operation, listed)))
        if found.outputs != outputs:
            raise ValueError(f"the last operation has {found.outputs} outputs, not {outputs}")
        return found

    # ---- shape ----

    @cached_property
    def widths(self) -> dict[str, int]:
        """The count of numbers of each value, for one row."""
        found = {INPUT: self.inputs}
        for each in self.operations:
            kind = _checked_kind(each)
            missing = [name for name in each.inputs if name not in found]
            if missing or each.output in found or not NAME.fullmatch(each.output):
                raise ValueError(
                    f"the operation {each.output[:64]!r} reads {missing[:1] or 'values'}:"
                    " it may read earlier results only, and its own name must be new"
                )
            widths = [found[name] for name in each.inputs]
            if len(set(widths)) > 1:
                raise ValueError(f"{each.output!r} reads values of different widths: {widths}")
            found[each.output] = kind.width(widths, each.attributes)
        return found

    @property
    def outputs(self) -> int:
        return self.widths[self.operations[-1].output]

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each parameter by its name, in the order of the operations."""
        return {
            f"{each.output}.{part}": shape
            for each in self.operations
            for part, shape in self.shapes_of(each).items()
        }

    def shapes_of(self, operation: Operation) -> dict[str, Shape]:
        """Return the shape of each parameter of an operation by the last part of its name."""
        widths = [self.widths[name] for name in operation.inputs]
        return KINDS[operation.kind].shapes(widths, operation.attributes)

    @cached_property
    def parameters(self) -> int:
        """The count of learned numbers."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @cached_property
    def work(self) -> int:
        """About how many multiplications a row takes; a number through any function is one."""
        return sum(
            KINDS[each.kind].work([self.widths[name] for name in each.inputs], each.attributes)
            for each in self.operations
        )

    @cached_property
    def kept(self) -> int:
        """The count of numbers that a training step keeps for each row.

        For each operation these are its result, the slopes by what it reads, and twice what it
        holds inside.
        """
        return sum(
            self.widths[each.output]
            + sum(self.widths[name] for name in each.inputs)
            + 2 * KINDS[each.kind].inside(each.attributes)
            for each in self.operations
        )

    @cached_property
    def held(self) -> int:
        """The largest count of numbers that predicting holds for each row at one time."""
        most, present = 0, {INPUT}
        for place, each in enumerate(self.operations):
            present.add(each.output)
            inside = KINDS[each.kind].inside(each.attributes)
            most = max(most, inside + sum(self.widths[name] for name in present))
            present -= set(self.last_reads[place])
        return most

    @cached_property
    def last_reads(self) -> tuple[tuple[str, ...], ...]:
        """For each operation, the values that no later one reads."""
        last = {name: place for place, each in enumerate(self.operations) for name in each.inputs}
        return tuple(
            tuple(name for name in dict.fromkeys(each.inputs) if last[name] == place)
            for place, each in enumerate(self.operations)
        )

    # ---- what it is ----

    @property
    def is_linear(self) -> bool:
        """Whether the net is y = Wx + b, which has a closed form; asked only here."""
        return [each.kind for each in self.operations] == ["linear"]

    @property
    def is_affine(self) -> bool:
        """Whether the net could be one linear layer, as it has nothing that bends."""
        return all(KINDS[each.kind].is_affine for each in self.operations)

    @property
    def is_smooth(self) -> bool:
        """Whether slopes explain the net; a step has none."""
        return all(KINDS[each.kind].is_smooth for each in self.operations)

    @cached_property
    def is_chain(self) -> bool:
        """Whether each operation reads the result of the one before it, and nothing else."""
        before = [INPUT, *(each.output for each in self.operations)]
        return all(
            each.inputs == (name,) for each, name in zip(self.operations, before, strict=False)
        )

    def dense(self) -> tuple[DenseLayer, ...] | None:
        """Return the net as dense layers, the input side first; None if it is no stack of them."""
        layers: list[DenseLayer] = []
        for each in self.operations if self.is_chain else ():
            if each.kind == "linear":
                layers.append(DenseLayer(self.widths[each.inputs[0]], self.widths[each.output]))
                continue
            last = layers.pop() if layers else None
            if last is None or last.dropout:
                return None
            if each.kind == "dropout":
                layers.append(replace(last, dropout=float(each.attributes["share"])))
            elif each.kind in ACTIVATIONS and last.activation is None:
                layers.append(replace(last, activation=each.kind))
            else:
                return None
        return tuple(layers) or None


class GraphBuilder:
    """Collects operations, which are named by their places, from `0`."""

    def __init__(self, inputs: int) -> None:
        self._inputs = inputs
        self._operations: list[Operation] = []
        #: the rows that the net reads
        self.x = INPUT

    def add(self, kind: str, *inputs: str, **attributes: float) -> str:
        """Add an operation on these values; return the name of its result."""
        name = str(len(self._operations))
        self._operations.append(Operation(kind, inputs, name, attributes))
        return name

    def linear(self, x: str, units: int) -> str:
        """Add a linear layer with this number of units."""
        return self.add("linear", x, units=units)

    def stack(self, x: str, layers: Sequence[str | Mapping[str, int | float]]) -> str:
        """Add layers one upon the other: `{"linear": 64}`, `"relu"`, `{"dropout": 0.1}`."""
        for layer in layers:
            if isinstance(layer, str):
                x = self.add(layer, x)
            elif "linear" in layer:
                x = self.add("linear", x, units=layer["linear"])
            else:
                x = self.add("dropout", x, share=layer["dropout"])
        return x

    def graph(self) -> Graph:
        """Return the net, whose outputs are the last result."""
        return Graph(self._inputs, tuple(self._operations))


def without_idle_trees(graph: Graph, tensors: Mapping[str, Any]) -> tuple[Graph, dict[str, Any]]:
    """Return the same net without the trees at the ends whose leaves are zero.

    A training has room for the trees of all its epochs, also where it stops earlier. `tensors` are
    arrays of NumPy that fit the graph.
    """
    operations, kept = [], dict(tensors)
    for each in graph.operations:
        if each.kind == "trees":
            grown = tensors[f"{each.output}.leaves"].any(axis=(1, 2)).nonzero()[0]
            trees = max(1, int(grown[-1]) + 1 if len(grown) else 1)
            for part in ("feature", "threshold", "leaves"):
                kept[f"{each.output}.{part}"] = tensors[f"{each.output}.{part}"][:trees]
            each = replace(each, attributes=dict(each.attributes) | {"trees": trees})  # noqa: PLW2901
        operations.append(each)
    return Graph(graph.inputs, tuple(operations)), kept


def chain(inputs: int, layers: Sequence[str | Mapping[str, int | float]]) -> Graph:
    """Return a stack of layers on the rows; see `GraphBuilder.stack`."""
    builder = GraphBuilder(inputs)
    builder.stack(builder.x, layers)
    return builder.graph()


def _checked_kind(operation: Operation) -> Kind:
    kind = KINDS.get(operation.kind)
    if kind is None:
        known = ", ".join(KINDS)
        raise ValueError(f"there is no operation {operation.kind[:64]!r}: the kinds are {known}")
    if not operation.inputs or len(operation.inputs) != (kind.inputs or len(operation.inputs)):
        wanted = kind.inputs or "one or more"
        raise ValueError(f"{operation.kind} reads {wanted} values, not {len(operation.inputs)}")
    given = operation.attributes
    if given.keys() != kind.attributes.keys() or not all(
        type(given[name]) in {int, float} and is_allowed(given[name])
        for name, is_allowed in kind.attributes.items()
    ):
        wanted = ", ".join(kind.attributes) or "no attributes"
        raise ValueError(f"{operation.kind} has {wanted} within limits, got {str(given)[:100]}")
    if operation.kind == "trees":
        leaves = given["trees"] * 2 ** given["depth"] * given["outputs"]
        if leaves > MAX_LEAVES:
            raise ValueError(f"trees have at most {MAX_LEAVES} numbers in leaves, not {leaves}")
    return kind


def _operation(document: object) -> Operation:
    if not isinstance(document, Mapping):
        raise ValueError("an operation is an object")  # noqa: TRY004  it is a value of a file
    rest = dict(document)
    kind, inputs, output = (rest.pop(name, None) for name in ("kind", "inputs", "output"))
    if (
        not isinstance(kind, str)
        or not isinstance(output, str)
        or not isinstance(inputs, list)
        or not all(isinstance(name, str) for name in inputs)
    ):
        raise ValueError("an operation has a kind, the names of its inputs, and an output")
    return Operation(kind, tuple(inputs), output, rest)


def _operations_of_layers(layers: object) -> list[dict[str, Any]]:
    """Return the operations of a net of a version that knew only stacks of layers."""
    if not isinstance(layers, list) or not layers:
        raise ValueError("a net has operations")
    found, at = [], INPUT
    for place, layer in enumerate(layers[: MAX_OPERATIONS + 1]):
        entry: dict[str, Any] = {"inputs": [at], "output": str(place)}
        if isinstance(layer, str):
            entry["kind"] = layer
        elif isinstance(layer, Mapping) and len(layer) == 1 and "linear" in layer:
            entry |= {"kind": "linear", "units": layer["linear"]}
        elif isinstance(layer, Mapping) and len(layer) == 1 and "dropout" in layer:
            entry |= {"kind": "dropout", "share": layer["dropout"]}
        else:
            raise ValueError(f"there is no layer {str(layer)[:100]}")
        found.append(entry)
        at = str(place)
    return found
