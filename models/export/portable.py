"""The parts of a checkpoint that an export contains: the features, the net and its parameters.

An export leaves out everything else, such as the optimizer's state. Knows NumPy only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from models import checkpoint
from models.checkpoint import NET, Written, read_parameters
from models.errors import CheckpointCorrupt
from models.features.encoding import Features
from models.nets.stack import load_stack

NetParameters: TypeAlias = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Portable:
    """A model that can only predict."""

    features: Features
    #: the description in the format of `nets.stack`
    net: Mapping[str, Any]
    #: by the place of their layer: `0.weight` (outputs, inputs), `0.bias` (outputs,)
    parameters: NetParameters

    @classmethod
    def load(cls, source: Path | bytes) -> "Portable":
        """Read a checkpoint; raises `CheckpointCorrupt`."""
        parameters, document = read_parameters(source)
        try:
            found = cls(Features.from_json(document["features"]), document["net"], parameters)
        except KeyError as error:
            raise CheckpointCorrupt(f"the document lacks {error}") from error
        found.check()
        return found

    def check(self) -> None:
        """Raise `CheckpointCorrupt` if the parts do not fit each other."""
        stack = load_stack(self.net, self.parameters)
        layers = self.net["layers"]
        places = [place for place, layer in enumerate(layers) if "linear" in layer]
        names = {f"{place}.{part}" for place in places for part in ("weight", "bias")}
        if names != self.parameters.keys():
            raise CheckpointCorrupt(f"the layers need {sorted(names)} and nothing else")
        if not layers or layers[-1] != {"linear": stack.outputs}:
            raise CheckpointCorrupt(f"the last layer must be linear with {stack.outputs} outputs")
        if (stack.inputs, stack.outputs) != (self.features.width, self.features.outputs):
            raise CheckpointCorrupt(
                f"a net {stack.inputs} → {stack.outputs} does not fit features "
                f"{self.features.width} → {self.features.outputs}"
            )

    def save(self, path: Path, document: Mapping[str, Any]) -> Written:
        """Write a checkpoint that predicts but cannot be resumed; `document` adds to its JSON."""
        tensors = {NET + name: tensor for name, tensor in self.parameters.items()}
        own = {"net": dict(self.net), "features": self.features.to_json(), "resumable": False}
        return checkpoint.write(path, tensors, own | dict(document))
