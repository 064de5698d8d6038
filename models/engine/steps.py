"""One optimizer step: forward, loss, backward, update.

Two classes compute forward and backward. `Autograd` takes any net. `DensePasses` takes linear
layers and activations, has their derivatives written by hand, and reuses its buffers: for small
nets autograd's bookkeeping costs several times the arithmetic. A test compares the two.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from models.engine.losses import Loss
from models.engine.optimizers import Optimizer
from models.nets.architectures import Flat

aten = torch.ops.aten
Apply: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Derive: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Stepper:
    """Makes optimizer steps and adds up their losses."""

    passes: "Passes"
    loss: Loss
    optimizer: Optimizer

    def step(self, x: Tensor, truth: Tensor, rate: float, totals: Tensor) -> None:
        """Make a step on the rows x (rows, inputs) and add their loss before it to `totals`.

        `totals` stays on the device.
        """
        measured: list[Tensor] = []

        def evaluate() -> tuple[Tensor, float]:
            outputs = self.passes.forward(x)
            sums, slopes = self.loss.differentiate(outputs, truth)
            self.passes.backward(slopes)
            measured.append(sums)
            return sums, self.loss.divisor(x.shape[0])

        self.optimizer.update(rate, evaluate)
        totals.add_(measured[0])


def choose_passes(net: nn.Sequential, flat: Flat) -> "Passes":
    """Return the fast passes if they cover the net, otherwise autograd."""
    return DensePasses(net, flat) if DensePasses.covers(net) else Autograd(net, flat)


class Passes(Protocol):
    """The forward and the backward pass of a net."""

    def forward(self, x: Tensor) -> Tensor:
        """(rows, inputs) to (rows, outputs); the result may be overwritten by the next call."""

    def backward(self, slopes: Tensor) -> None:
        """Set the gradients of the last `forward`; `slopes` is the derivative by each output."""


class Autograd:
    """PyTorch's automatic differentiation, for any net."""

    def __init__(self, net: nn.Module, flat: Flat) -> None:
        self.net = net
        self.gradients = flat.gradients

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            self.outputs: Tensor = self.net(x)
        return torch.detach(self.outputs)

    def backward(self, slopes: Tensor) -> None:
        # Backward adds to the parameters' gradients, which are views of the flat tensor.
        self.gradients.zero_()
        # Differentiate a number whose derivative by the outputs equals the slopes, because
        # `backward(slopes)` would import SymPy first, which takes as long as a small run.
        with torch.enable_grad():
            torch.sum(self.outputs * slopes).backward()  # type: ignore[no-untyped-call]


class DensePasses:
    """Linear layers and activations with derivatives written by hand."""

    def __init__(self, net: nn.Sequential, flat: Flat) -> None:
        values, gradients = flat.named(flat.values), flat.named(flat.gradients)
        self.layers: list[_Layer] = []
        for place, module in enumerate(net):
            if isinstance(module, nn.Linear):
                names = f"{place}.weight", f"{place}.bias"
                weight, bias = (Parameter(values[name], gradients[name]) for name in names)
                # The first layer needs no derivative by its input, the data.
                self.layers.append(_Linear(weight, bias, is_first=place == 0))
            else:
                self.layers.append(_Elementwise(*ELEMENTWISE[type(module)]))

    @staticmethod
    def covers(net: nn.Module) -> bool:
        """Return whether this class can compute every layer; it has no dropout."""
        known = {nn.Linear, *ELEMENTWISE}
        return isinstance(net, nn.Sequential) and all(type(module) in known for module in net)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, slopes: Tensor) -> None:
        for layer in reversed(self.layers):
            slopes = layer.backward(slopes)


class Parameter(NamedTuple):
    """A parameter and its gradient, both views of the flat tensors."""

    value: Tensor
    gradient: Tensor


class _Layer(ABC):
    """A layer with its last input and output, and a buffer for each number of rows."""

    def __init__(self) -> None:
        # An epoch has two sizes of batches: the usual size and that of the last batch.
        self.buffers: dict[int, tuple[Tensor, Tensor]] = {}

    def prepare(self, x: Tensor, width: int) -> None:
        self.x, rows = x, x.shape[0]
        if rows not in self.buffers:
            self.buffers[rows] = x.new_empty(rows, width), torch.empty_like(x)
        self.y, self.slopes = self.buffers[rows]

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def backward(self, slopes: Tensor) -> Tensor: ...


class _Linear(_Layer):
    def __init__(self, weight: Parameter, bias: Parameter, *, is_first: bool) -> None:
        super().__init__()
        self.weight, self.bias, self.is_first = weight, bias, is_first
        self.width, self.transposed = len(bias.value), weight.value.t()

    def forward(self, x: Tensor) -> Tensor:
        self.prepare(x, self.width)
        return torch.addmm(self.bias.value, x, self.transposed, out=self.y)

    def backward(self, slopes: Tensor) -> Tensor:
        torch.mm(slopes.t(), self.x, out=self.weight.gradient)
        torch.sum(slopes, 0, out=self.bias.gradient)
        return slopes if self.is_first else torch.mm(slopes, self.weight.value, out=self.slopes)


class _Elementwise(_Layer):
    def __init__(self, run: Apply, derive: Derive) -> None:
        super().__init__()
        self.run, self.derive = run, derive

    def forward(self, x: Tensor) -> Tensor:
        self.prepare(x, x.shape[1])
        return self.run(x, self.y)

    def backward(self, slopes: Tensor) -> Tensor:
        return self.derive(slopes, self.x, self.y, self.slopes)


#: Each activation, and its derivative times `slopes`; both write into `out`.
ELEMENTWISE: dict[type[nn.Module], tuple[Apply, Derive]] = {
    nn.ReLU: (
        lambda x, out: torch.clamp_min(x, 0, out=out),
        lambda slopes, _, y, out: aten.threshold_backward.grad_input(slopes, y, 0, grad_input=out),
    ),
    nn.Sigmoid: (
        lambda x, out: torch.sigmoid(x, out=out),
        lambda slopes, _, y, out: aten.sigmoid_backward.grad_input(slopes, y, grad_input=out),
    ),
    nn.Tanh: (
        lambda x, out: torch.tanh(x, out=out),
        lambda slopes, _, y, out: aten.tanh_backward.grad_input(slopes, y, grad_input=out),
    ),
    nn.GELU: (
        lambda x, out: aten.gelu.out(x, out=out),
        lambda slopes, x, _, out: aten.gelu_backward.grad_input(slopes, x, grad_input=out),
    ),
}
