"""Random nets of every kind of operation: stacks, residual ones, gated ones."""

import numpy as np
from numpy.typing import NDArray

from models.nets.graph import ACTIVATIONS, Graph, GraphBuilder

LEARNED = ("trees", "mix", "mix_classes")
Parameters = dict[str, NDArray[np.float32]]


def random_graph(seed: int) -> Graph:
    """Return a net of up to twelve operations, each reading results that are there."""
    random = np.random.default_rng(seed)
    builder = GraphBuilder(int(random.integers(1, 6)))
    width = int(random.integers(1, 9))
    rows = builder.x
    if seed % 3 == 0:
        rows = builder.add(
            "piecewise_linear",
            rows,
            numbers=int(random.integers(1, 4)),
            bins=int(random.choice([1, 2, 5])),
            size=int(random.integers(1, 4)),
        )
    at = builder.linear(rows, width)
    free = [at]  # values of this width; all but the newest may be read again
    for _ in range(int(random.integers(0, 9))):
        kind = random.choice(["linear", "dropout", "add", "multiply", *LEARNED, *ACTIVATIONS])
        if kind == "linear":
            at = builder.linear(at, width)
        elif kind == "dropout":
            at = builder.add("dropout", at, share=0.25)
        elif kind == "trees":
            # Of the rows only: a result that lies on a threshold may be rounded to either side.
            sizes = {"trees": int(random.integers(1, 9)), "depth": int(random.integers(1, 9))}
            tree = builder.add("trees", builder.x, **sizes, outputs=width)
            at = builder.add("add", at, tree)
        elif kind in {"mix", "mix_classes"}:
            others = random.choice(free, int(random.integers(0, 4)))
            at = builder.add(str(kind), at, *map(str, others))
        elif kind in {"add", "multiply"}:
            at = builder.add(str(kind), at, str(random.choice(free)))
        else:
            at = builder.add(str(kind), at)
        free.append(at)
    builder.linear(at, int(random.integers(1, 4)))
    return builder.graph()


def gated(inputs: int, outputs: int, width: int = 6) -> Graph:
    """Return a net with a residual block that a gate opens and closes."""
    builder = GraphBuilder(inputs)
    begun = builder.linear(builder.x, width)
    gate = builder.add("sigmoid", builder.linear(begun, width))
    value = builder.add("gelu", builder.linear(begun, width))
    opened = builder.add("dropout", builder.add("multiply", gate, value), share=0.1)
    builder.linear(builder.add("add", begun, opened), outputs)
    return builder.graph()


def parameters_of(graph: Graph, seed: int = 0) -> Parameters:
    """Return parameters of the magnitude of trained ones."""
    random = np.random.default_rng(seed)
    found = {
        name: (random.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in graph.shapes.items()
    }
    for each in graph.operations:
        if each.kind == "trees":
            feature = f"{each.output}.feature"
            places = random.integers(0, graph.widths[each.inputs[0]], graph.shapes[feature])
            found[feature] = places.astype(np.float32)
        elif each.kind == "piecewise_linear":
            place, knots = f"{each.output}.place", f"{each.output}.knots"
            found[place] = random.integers(0, graph.inputs, graph.shapes[place]).astype(np.float32)
            found[knots] = np.cumsum(0.2 + random.random(graph.shapes[knots]), 1, np.float32) - 2
            found[knots][:, 2:4] = found[knots][:, 2:3]  # where there are so many: no bin
        elif each.kind in {"mix", "mix_classes"}:
            weight = f"{each.output}.weight"
            found[weight] = np.abs(found[weight]) + np.float32(0.1)
    return found
