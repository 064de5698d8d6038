"""The predictions of a model by torch, as in training: the measure of all other ways."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from models.data import Floats, Table
from models.features.encoding import Features
from models.model import Model
from models.nets.graph import Graph
from models.nets.module import build_graph


@dataclass(frozen=True)
class Reference:
    """A model's features, and its net in torch."""

    features: Features
    net: nn.Module

    @classmethod
    def of(cls, model: Model) -> "Reference":
        """Return the reference of a model."""
        stored, tensors = model.state()
        net = build_graph(Graph.from_json(stored)).eval().double()
        net.load_state_dict({name: torch.from_numpy(each) for name, each in tensors.items()})
        return cls(model.features, net)

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
