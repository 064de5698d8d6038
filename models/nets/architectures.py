"""The architectures, their builders, and a net's parameters as one flat tensor.

Knows torch; nothing of data or training.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from descent.spec import MAX_LAYERS, DropoutLayer, Layer, LinearLayer, ModelSpec
from models.checkpoint import read_parameters
from models.data import Floats, Table
from models.errors import CheckpointCorrupt
from models.features.encoding import Features
from models.nets.dropout import Dropout

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
}


#: Held while a net draws from torch's global generator, as another thread may build one.
SEEDING = threading.Lock()


def build(model: ModelSpec, inputs: int, outputs: int, seed: int) -> nn.Sequential:
    """Return the net with its initial parameters, a pure function of the arguments."""
    return BUILDERS[model.type](complete(model, outputs), inputs, seed)


def complete(model: ModelSpec, outputs: int) -> list[Layer]:
    """Add the output layer to a model's hidden layers."""
    return [*model.hidden_layers(), LinearLayer(linear=outputs)]


def describe(model: ModelSpec, inputs: int, outputs: int) -> dict[str, Any]:
    """Return the net's description, ready for JSON, in the format of `nets.stack`."""
    layers = [
        layer if isinstance(layer, str) else layer.model_dump()
        for layer in complete(model, outputs)
    ]
    return {"inputs": inputs, "outputs": outputs, "layers": layers}


def build_stack(layers: list[Layer], inputs: int, seed: int) -> nn.Sequential:
    """Return a stack of layers with PyTorch's initial parameters.

    The global random generator is left as it was.
    """
    with SEEDING, torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules: list[nn.Module] = []
        width, number = inputs, 0
        for layer in layers:
            if isinstance(layer, LinearLayer):
                modules.append(nn.Linear(width, layer.linear))
                width = layer.linear
                number += 1
            elif isinstance(layer, DropoutLayer):
                # The number of the linear layer before it; a second dropout has its own masks.
                again = isinstance(modules[-1], Dropout) if modules else False
                modules.append(Dropout(layer.dropout, max(0, number - 1) + again * MAX_LAYERS))
            else:
                modules.append(ACTIVATIONS[layer]())
        return nn.Sequential(*modules)


#: Each architecture's builder. Its arguments: all layers including the output, the width, the seed.
BUILDERS: dict[str, Callable[[list[Layer], int, int], nn.Sequential]] = {
    "linear": build_stack,
    "mlp": build_stack,
    "layers": build_stack,
}


@dataclass(frozen=True)
class Flat:
    """All parameters of a net in one tensor, and their gradients in another, (parameters,) each.

    The net's own parameters are views of it. So an optimizer step, a copy of the best parameters
    or a check for NaN is one operation for any number of layers.
    """

    values: Tensor
    gradients: Tensor
    shapes: dict[str, torch.Size]

    def named(self, values: Tensor) -> dict[str, Tensor]:
        """View a tensor like `values` as the net's parameters by name."""
        parts = torch.split(values, [shape.numel() for shape in self.shapes.values()])
        pairs = zip(self.shapes.items(), parts, strict=True)
        return {name: part.view(shape) for (name, shape), part in pairs}


def flatten(net: nn.Module, device: torch.device) -> Flat:
    """Move a net's parameters into one flat tensor on the device."""
    net.to(device)
    shapes = {name: parameter.shape for name, parameter in net.named_parameters()}
    values = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
    flat = Flat(values, torch.zeros_like(values), shapes)
    views, gradients = flat.named(flat.values), flat.named(flat.gradients)
    for name, parameter in net.named_parameters():
        parameter.data = views[name]
        parameter.grad = gradients[name]
    return flat


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
