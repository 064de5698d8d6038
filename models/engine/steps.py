"""One optimizer step: forward, loss, backward, update.

Two classes compute forward and backward. `Autograd` takes any net. `DensePasses` takes linear
layers and activations, has their derivatives written by hand, and reuses its buffers: for small
nets autograd's bookkeeping costs several times the arithmetic. A test compares the two.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from descent.spec import LossName
from models.engine.optimizers import Optimizer
from models.features.targets import NumberTargets, Target
from models.nets.architectures import Flat


class Loss(ABC):
    """A loss over rows of outputs.

    A step reduces the objective: the mean of the loss over rows and outputs, or its sum for `sse`.
    Each row counts once, or as often as its weight says; the mean of all weights is 1.
    """

    @property
    @abstractmethod
    def width(self) -> int:
        """The count of sums that `measure` returns."""

    @abstractmethod
    def measure(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return float32 (width,): the loss summed over the rows, in scaled units."""

    @abstractmethod
    def differentiate(
        self, outputs: Tensor, truth: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the sums of the loss, and the objective's slopes by outputs, (rows, outputs).

        `weights` are (rows,); without them the sums are those of `measure`.
        """

    @abstractmethod
    def divisor(self, rows: int) -> float:
        """Return the divisor that turns the sums over `rows` rows into the objective."""

    @abstractmethod
    def report(self, sums: Sequence[float], rows: int) -> float:
        """Turn sums over `rows` rows into the loss in the targets' own units."""


@dataclass(frozen=True)
class ErrorLoss(Loss):
    """A loss of each number's error; several targets are averaged, or summed for `sse`."""

    #: Whether the value is the sum over the rows instead of their mean.
    is_sum: ClassVar[bool] = False
    #: One per target.
    scale: tuple[float, ...]
    #: The error at which huber changes from a parabola to a line, in scaled units, one per target.
    delta: Tensor

    @property
    def width(self) -> int:
        return len(self.scale)

    def measure(self, outputs: Tensor, truth: Tensor) -> Tensor:
        return self.add_up(torch.sub(outputs, truth), None)

    def differentiate(
        self, outputs: Tensor, truth: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        errors = torch.sub(outputs, truth)
        sums = self.add_up(errors, weights)
        slopes = self.slopes(errors, 1 / self.divisor(errors.shape[0]))
        return sums, slopes if weights is None else slopes.mul_(weights[:, None])

    def divisor(self, rows: int) -> float:
        return 1.0 if self.is_sum else float(rows * self.width)

    def report(self, sums: Sequence[float], rows: int) -> float:
        total = sum(
            part * self.in_units(scale) for part, scale in zip(sums, self.scale, strict=True)
        )
        return total / self.divisor(rows)

    def add_up(self, errors: Tensor, weights: Tensor | None) -> Tensor:
        """Return float32 (width,): the loss of errors (rows, width), summed over the rows."""
        each = self.each(errors)
        return each.sum(0) if weights is None else each.mul_(weights[:, None]).sum(0)

    @abstractmethod
    def each(self, errors: Tensor) -> Tensor:
        """Return the loss of each error, (rows, width)."""

    @abstractmethod
    def slopes(self, errors: Tensor, share: float) -> Tensor:
        """Return `share` times the loss's derivative, (rows, width); may overwrite `errors`."""

    def in_units(self, scale: float) -> float:
        """Return the factor from scaled to own units: the square, as most losses are quadratic."""
        return scale**2


class MeanSquared(ErrorLoss):
    def each(self, errors: Tensor) -> Tensor:
        return torch.mul(errors, errors)

    def slopes(self, errors: Tensor, share: float) -> Tensor:
        return errors.mul_(2 * share)


class SumSquared(MeanSquared):
    is_sum = True


class MeanAbsolute(ErrorLoss):
    def each(self, errors: Tensor) -> Tensor:
        return errors.abs()

    def slopes(self, errors: Tensor, share: float) -> Tensor:
        return errors.sign_().mul_(share)

    def in_units(self, scale: float) -> float:
        return scale


class Huber(ErrorLoss):
    """Half the square of an error up to `delta`, and a straight line beyond (Huber, 1964)."""

    def each(self, errors: Tensor) -> Tensor:
        slopes = self.slopes(errors, 1.0)
        # e²/2 within delta, delta (|e| - delta / 2) beyond.
        return torch.mul(slopes, errors - slopes / 2)

    def slopes(self, errors: Tensor, share: float) -> Tensor:
        return torch.clamp(errors, -self.delta, self.delta).mul_(share)


class CrossEntropy(Loss):
    """The negative logarithm of the true class's probability, in nats."""

    width = 1

    def measure(self, outputs: Tensor, truth: Tensor) -> Tensor:
        return -outputs.log_softmax(1).gather(1, truth[:, None]).sum(0)

    def differentiate(
        self, outputs: Tensor, truth: Tensor, weights: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        logarithms = outputs.log_softmax(1)
        index = truth[:, None]
        likely = logarithms.gather(1, index)
        sums = -(likely if weights is None else likely.mul_(weights[:, None])).sum(0)
        slopes = logarithms.exp_()
        slopes.scatter_add_(1, index, torch.full_like(index, -1, dtype=slopes.dtype))
        slopes.div_(self.divisor(truth.shape[0]))
        return sums, slopes if weights is None else slopes.mul_(weights[:, None])

    def divisor(self, rows: int) -> float:
        return float(rows)

    def report(self, sums: Sequence[float], rows: int) -> float:
        return sums[0] / rows


ERROR_LOSSES: dict[str, type[ErrorLoss]] = {
    "mse": MeanSquared,
    "sse": SumSquared,
    "mae": MeanAbsolute,
    "huber": Huber,
}


def choose_loss(name: LossName, target: Target, device: torch.device) -> Loss:
    """Return the loss of this name for these targets; classes always have cross entropy."""
    if not isinstance(target, NumberTargets):
        return CrossEntropy()
    # Huber's delta is one standard deviation of the target, here in scaled units.
    pairs = zip(target.std, target.scale, strict=True)
    delta = torch.tensor([std / scale for std, scale in pairs], device=device)
    return ERROR_LOSSES[name](target.scale, delta)


aten = torch.ops.aten
Apply: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Derive: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Stepper:
    """Makes optimizer steps and adds up their losses."""

    passes: "Passes"
    loss: Loss
    optimizer: Optimizer

    def step(
        self,
        x: Tensor,
        truth: Tensor,
        rate: float,
        totals: Tensor,
        weights: Tensor | None = None,
    ) -> None:
        """Make a step on the rows x (rows, inputs) and add their loss before it to `totals`.

        `totals` stays on the device. `weights` are (rows,).
        """
        measured: list[Tensor] = []

        def evaluate() -> tuple[Tensor, float]:
            outputs = self.passes.forward(x)
            sums, slopes = self.loss.differentiate(outputs, truth, weights)
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
