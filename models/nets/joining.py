"""Several nets as one: each reads the same rows, and their mean is the result.

Knows NumPy only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.data import Floats
from models.features.between import Block, blocks, output_scale
from models.features.encoding import Features
from models.features.targets import ClassTarget
from models.nets.graph import INPUT, Graph, GraphBuilder, Operation, without_idle_trees

Parameters = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Part:
    """A net with the features that it was trained with."""

    features: Features
    graph: Graph
    #: float32, by name as in the graph
    tensors: Mapping[str, NDArray[np.float32]]


def join(
    whole: Features, parts: Sequence[Part], weights: Sequence[float]
) -> tuple[Graph, Parameters]:
    """Return the net of the weighted mean of the parts' predictions, and its parameters.

    It reads rows in the encoding `whole`, from which `features.between` leads to that of each part;
    of classes the mean is that of their probabilities. The weights are above 0.
    """
    net, tensors = GraphBuilder(whole.width), Parameters()
    results = [_Joined(net, tensors, whole, part).result() for part in parts]
    kind = "mix_classes" if isinstance(whole.target, ClassTarget) else "mix"
    name = net.add(kind, *results)
    tensors[f"{name}.weight"] = np.array(weights, np.float32)
    return net.graph(), tensors


class _Joined:
    """Adds one part to a net."""

    def __init__(self, net: GraphBuilder, tensors: Parameters, whole: Features, part: Part) -> None:
        self._net, self._tensors, self._whole, self._features = net, tensors, whole, part.features
        self._graph, self._own = without_idle_trees(part.graph, part.tensors)
        self._blocks = list(blocks(whole, part.features))
        #: the names of the part's values in the net
        self._names: dict[str, str] = {}

    def result(self) -> str:
        """Add everything; return the name of the result, in the scale of all rows."""
        readers = [each for each in self._graph.operations if INPUT in each.inputs]
        is_absorbed = all(each.kind == "linear" for each in readers)
        if is_absorbed:
            self._names[INPUT] = self._net.x
        elif all(each.kind == "trees" for each in readers):
            self._names[INPUT] = self._read_few(readers)
        else:
            self._names[INPUT] = self._read(np.arange(self._features.width))
        scale = output_scale(self._whole, self._features)
        last = self._graph.operations[-1]
        for each in self._graph.operations:
            self._add(each, is_first=is_absorbed and INPUT in each.inputs)
        name = self._names[last.output]
        return name if scale is None else self._scaled(last, name, *scale)

    def _add(self, each: Operation, *, is_first: bool) -> None:
        inputs = [self._names[name] for name in each.inputs]
        if each.kind == "dropout":  # it does nothing to a prediction
            self._names[each.output] = inputs[0]
            return
        name = self._net.add(each.kind, *inputs, **each.attributes)
        self._names[each.output] = name
        own = {
            part.removeprefix(f"{each.output}."): tensor
            for part, tensor in self._own.items()
            if part.startswith(f"{each.output}.")
        }
        if is_first:
            own = _absorbed(self._whole.width, self._blocks, own["weight"], own["bias"])
        self._tensors |= {f"{name}.{part}": tensor for part, tensor in own.items()}

    def _read(self, places: NDArray[np.int64]) -> str:
        """Add the part's own encoding of the rows, of which it needs these places."""
        weight = np.eye(self._features.width, dtype=np.float32)[places]
        own = _absorbed(self._whole.width, self._blocks, weight, np.zeros(len(places), np.float32))
        name = self._net.linear(self._net.x, len(places))
        self._tensors |= {f"{name}.{part}": tensor for part, tensor in own.items()}
        return name

    def _read_few(self, readers: Sequence[Operation]) -> str:
        """Add the encoding of the places that trees ask for, and let them ask there."""
        names = [f"{each.output}.feature" for each in readers]
        asked = np.concatenate([self._own[name].ravel() for name in names])
        places = np.unique(asked).astype(np.int64)
        for name in names:
            self._own[name] = np.searchsorted(places, self._own[name]).astype(np.float32)
        return self._read(places)

    def _scaled(self, last: Operation, name: str, factor: Floats, shift: Floats) -> str:
        """Bring the result to the scale of all rows, within the last operation if possible."""
        mine = self._tensors
        if last.kind == "linear":
            mine[f"{name}.weight"] = _single(mine[f"{name}.weight"] * factor[:, None])
            mine[f"{name}.bias"] = _single(mine[f"{name}.bias"] * factor + shift)
            return name
        if last.kind == "trees":
            mine[f"{name}.leaves"] = _single(mine[f"{name}.leaves"] * factor)
            mine[f"{name}.start"] = _single(mine[f"{name}.start"] * factor + shift)
            return name
        scaled = self._net.linear(name, len(factor))
        mine |= {f"{scaled}.weight": _single(np.diag(factor)), f"{scaled}.bias": _single(shift)}
        return scaled


def _absorbed(
    width: int, encoding: Sequence[Block], weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> Parameters:
    """Return a linear layer that reads the encoding of all rows instead of the part's own."""
    found, biases = np.zeros((len(weight), width)), bias.astype(np.float64)
    for block in encoding:
        own = weight[:, block.own].astype(np.float64)
        found[:, block.whole] = own @ block.weight
        biases += own @ block.bias
    return {"weight": _single(found), "bias": _single(biases)}


def _single(values: Floats) -> NDArray[np.float32]:
    return values.astype(np.float32)
