"""What training itself computes from a table: the measure of every other way to predict.

The net is torch's, as it was trained; nothing of the ways that are measured by it is used.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from descent.spec import Layer
from models.checkpoint import read_parameters
from models.data import Floats, Table
from models.errors import CheckpointCorrupt
from models.features import Features
from models.nets import build_stack

LAYERS: TypeAdapter[Any] = TypeAdapter(list[Layer])


@dataclass(frozen=True)
class Reference:
    """A checkpoint's features, and the net with which training would predict."""

    features: Features
    net: nn.Sequential

    @classmethod
    def load(cls, source: Path | bytes) -> "Reference":
        """Read a checkpoint; raises `CheckpointCorrupt`."""
        parameters, document = read_parameters(source)
        try:
            features = Features.from_json(document["features"])
            layers = LAYERS.validate_python(document["net"]["layers"])
            net = build_stack(layers, features.width, seed=0).eval().double()
            tensors = {name: torch.from_numpy(values) for name, values in parameters.items()}
            net.load_state_dict(tensors)
        except (KeyError, ValidationError, RuntimeError) as error:
            raise CheckpointCorrupt(f"the net does not fit its tensors: {error}") from error
        return cls(features, net)

    def predict(self, table: Table) -> Floats:
        """Return (rows, outputs): numbers in the targets' units, or shares of classes.

        NaN where they are not finite. Computed in float64 and rounded once: far outside of the
        training rows, what float32 leaves of large numbers that cancel depends on the order in
        which they are added.
        """
        with torch.no_grad(), np.errstate(all="ignore"):
            encoded = torch.from_numpy(self.features.encode(table)).double()
            outputs = self.net(encoded).float().numpy()
            decoded = self.features.decode(outputs)
        decoded[~np.isfinite(outputs).all(axis=1)] = np.nan
        return decoded


def keep_to_one_thread() -> None:
    """Leave the other processors to whoever is in more of a hurry."""
    torch.set_num_threads(1)
