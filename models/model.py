"""A model: features, and a net that computes. One class for predictions, explanations and exports.

`Model` is all that the rest of the program asks of a trained model. `GraphModel` is the model whose
net is a graph; a net that no graph covers would be another class with these members, made by
`load`. Knows no torch: the API predicts without it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models import checkpoint
from models.checkpoint import NET, Tensors, Written, read_parameters
from models.data import Floats
from models.errors import CheckpointCorrupt
from models.features.encoding import Features
from models.nets.graph import Graph, without_idle_trees
from models.nets.lines import Line, line_of
from models.nets.numeric import Activations, Net, compiled
from models.nets.onnx_nodes import Nodes, add_net
from models.nets.sessions import MANY, OnnxSession


class Model(Protocol):
    """A trained model, whatever computes it."""

    @property
    def features(self) -> Features:
        """How rows become numbers, and outputs values."""

    @property
    def document(self) -> Mapping[str, Any]:
        """The checkpoint's document: configuration, metrics, environment and more."""

    # ---- what it is ----

    @property
    def parameters(self) -> int:
        """The count of learned numbers."""

    @property
    def work(self) -> int:
        """About how many multiplications the prediction of a row takes."""

    @property
    def held(self) -> int:
        """The largest count of numbers that predicting holds for each row at one time."""

    @property
    def traced(self) -> int:
        """The count of numbers that `slopes` holds for each row."""

    @property
    def bytes(self) -> int:
        """Bytes of memory that predictions take beside the tensors."""

    @property
    def is_affine(self) -> bool:
        """Whether the slopes by a row are the same everywhere."""

    @property
    def is_smooth(self) -> bool:
        """Whether slopes explain the model."""

    @property
    def line(self) -> Line | None:
        """The line that a linear model is; None for others."""

    # ---- what it computes ----

    def forward(self, x: Activations) -> Activations:
        """Encoded rows (rows, width) to (rows, outputs)."""

    def forward_precisely(self, x: Activations) -> Activations:
        """Do the same in float64, rounded once."""

    def slopes(self, x: Floats, slope_of: Callable[[Floats], Floats]) -> Floats:
        """Return the slopes by the rows x, (rows, width), of what has `slope_of` by the outputs."""

    def exact(self, x: Floats) -> Floats:
        """Do the same as `forward` in float64, without rounding."""

    # ---- what is stored and exported ----

    def state(self) -> tuple[dict[str, Any], Tensors]:
        """Return the net as JSON, and its tensors: all that `load` needs beside the features."""

    def add_to(self, nodes: Nodes, x: str) -> str:
        """Add the net to a graph of ONNX: from rows x of doubles to outputs of doubles."""


@dataclass(frozen=True)
class GraphModel:
    """A model whose net is a graph; making one raises `CheckpointCorrupt` if parts do not fit."""

    features: Features
    graph: Graph
    #: float32, by name: `0.weight` (outputs, inputs), `0.bias` (outputs,)
    tensors: Mapping[str, NDArray[np.float32]]
    document: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found, wanted = (
            (self.graph.inputs, self.graph.outputs),
            (self.features.width, self.features.outputs),
        )
        if found != wanted:
            raise CheckpointCorrupt(
                f"a net {found[0]} → {found[1]} does not fit features {wanted[0]} → {wanted[1]}"
            )
        _ = self.net

    @classmethod
    def of(
        cls,
        features: Features,
        net: object,
        tensors: Mapping[str, NDArray[Any]],
        document: Mapping[str, Any],
    ) -> "GraphModel":
        """Return the model of a stored net; raises `CheckpointCorrupt`."""
        try:
            graph = Graph.from_json(net)
        except ValueError as error:
            raise CheckpointCorrupt(f"the net cannot be computed: {error}") from error
        found = cls(features, graph, tensors, document)
        if graph.is_smooth:
            return found
        graph, tensors = without_idle_trees(graph, tensors)
        return cls(features, graph, tensors, document)

    @cached_property
    def net(self) -> Net:
        try:
            return compiled(self.graph, self.tensors)
        except ValueError as error:
            raise CheckpointCorrupt(f"the net does not fit its tensors: {error}") from error

    @cached_property
    def session(self) -> OnnxSession:
        """The onnxruntime session that computes a wide net for many rows."""
        return OnnxSession(self.net)

    @property
    def parameters(self) -> int:
        return self.graph.parameters

    @property
    def work(self) -> int:
        return self.graph.work

    @property
    def held(self) -> int:
        return self.graph.held

    @property
    def traced(self) -> int:
        return sum(self.graph.widths.values())

    @property
    def bytes(self) -> int:
        return self.session.bytes

    @property
    def is_affine(self) -> bool:
        return self.graph.is_affine

    @property
    def is_smooth(self) -> bool:
        return self.graph.is_smooth

    @property
    def line(self) -> Line | None:
        return line_of(self.graph, self.tensors)

    def forward(self, x: Activations) -> Activations:
        if len(x) >= MANY and (outputs := self.session.forward(x)) is not None:
            return outputs
        return self.net.forward(x)

    def forward_precisely(self, x: Activations) -> Activations:
        return self.net.forward_precisely(x)

    def slopes(self, x: Floats, slope_of: Callable[[Floats], Floats]) -> Floats:
        return self.net.slopes(x, slope_of)

    def exact(self, x: Floats) -> Floats:
        outputs: Floats = self.net.run(x)
        return outputs

    def state(self) -> tuple[dict[str, Any], Tensors]:
        return self.graph.to_json(), dict(self.tensors)

    def add_to(self, nodes: Nodes, x: str) -> str:
        # Stored as float32: a file of doubles would be twice as large.
        return add_net(
            nodes,
            self.graph,
            x,
            lambda name: nodes.double(nodes.constant(self.tensors[name])),
        )


def load(source: Path | bytes) -> Model:
    """Read the model of a checkpoint; raises `CheckpointCorrupt`."""
    tensors, document = read_parameters(source)
    try:
        features = Features.from_json(document["features"])
        return GraphModel.of(features, document["net"], tensors, document)
    except KeyError as error:
        raise CheckpointCorrupt(f"the document lacks {error}") from error


def save(model: Model, path: Path, document: Mapping[str, Any]) -> Written:
    """Write a checkpoint that predicts but cannot be resumed; `document` adds to its JSON."""
    net, tensors = model.state()
    own = {"net": net, "features": model.features.to_json(), "resumable": False}
    return checkpoint.write(
        path, {NET + name: tensor for name, tensor in tensors.items()}, own | dict(document)
    )
