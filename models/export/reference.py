"""Reference predictions in torch, with which every other way to predict is compared.

The net is the one that was trained; the code shares nothing with the ways that it verifies except
the features.
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
from models.features.encoding import Features
from models.nets.architectures import build_stack

LAYERS: TypeAdapter[Any] = TypeAdapter(list[Layer])


@dataclass(frozen=True)
class Reference:
    """A checkpoint's features, and its net in torch."""

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
        """Return (rows, outputs): numbers in the targets' units, or class probabilities.

        A row whose outputs are not finite is NaN. The net is computed in float64 and rounded once:
        far outside the training rows large numbers cancel, and the float32 result would depend on
        the order of additions.
        """
        with torch.no_grad(), np.errstate(all="ignore"):
            encoded = torch.from_numpy(self.features.encode(table)).double()
            outputs = self.net(encoded).float().numpy()
            decoded = self.features.decode(outputs)
        decoded[~np.isfinite(outputs).all(axis=1)] = np.nan
        return decoded


def keep_to_one_thread() -> None:
    """Use one thread of torch, so that other processes keep the other processors."""
    torch.set_num_threads(1)
