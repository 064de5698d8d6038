"""The losses: their values, and their slopes by the outputs of a net."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from descent.spec import LossName
from models.features.targets import NumberTargets, Target


class Loss(ABC):
    """A loss over rows of outputs.

    A step reduces the objective: the mean of the loss over rows and outputs, or its sum for `sse`.
    Each row counts once, or as often as its weight says; the mean of all weights is 1.
    """

    #: Whether the objective is the sum over the rows instead of their mean.
    is_sum: ClassVar[bool] = False

    @property
    @abstractmethod
    def width(self) -> int:
        """The count of losses of a row, which are summed separately."""

    @abstractmethod
    def each(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return the losses of each row, (rows, width), in scaled units."""

    @abstractmethod
    def report(self, sums: Sequence[float], rows: int) -> float:
        """Turn the sums over `rows` rows into the loss in the targets' own units."""

    def divisor(self, rows: int) -> float:
        """Return the divisor that turns the sums over `rows` rows into the objective."""
        return 1.0 if self.is_sum else float(rows * self.width)

    @abstractmethod
    def curvatures(self, outputs: Tensor) -> Tensor:
        """Return the second slopes of each row's loss by each output, (rows, outputs).

        A loss with corners has those of the parabola with the same slopes one unit from its lowest
        point.
        """

    @abstractmethod
    def constant(self, truth: Tensor, weights: Tensor | None, outputs: int) -> Tensor:
        """Return the outputs that suit all rows best, if each row has the same, (outputs,)."""

    def measure(self, outputs: Tensor, truth: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return float64 (width,): the losses summed over the rows; `weights` are (rows,)."""
        each = self.each(outputs, truth).double()
        return each.sum(0) if weights is None else (each * weights[:, None]).sum(0)

    def slopes(
        self, outputs: Tensor, truth: Tensor, divisor: float, weights: Tensor | None = None
    ) -> Tensor:
        """Return the slopes of the objective by the outputs, (rows, outputs).

        By automatic differentiation; a loss may have a faster way.
        """
        with torch.enable_grad():
            leaf = outputs.detach().requires_grad_()
            each = self.each(leaf, truth)
            total = each.sum() if weights is None else (each * weights[:, None]).sum()
            (found,) = torch.autograd.grad(total, leaf)
        return found.div_(divisor)


@dataclass(frozen=True)
class ErrorLoss(Loss):
    """A loss of each number's error; several targets are averaged, or summed for `sse`."""

    #: The slope of the loss by an error is this factor times what `bend` returns.
    factor: ClassVar[float] = 1.0
    #: Whether the loss is the square of the error, so that `bend` changes nothing.
    is_squared: ClassVar[bool] = False
    #: One per target.
    scale: tuple[float, ...]
    #: The error at which huber changes from a parabola to a line, in scaled units, one per target.
    delta: Tensor

    @property
    def width(self) -> int:
        return len(self.scale)

    def each(self, outputs: Tensor, truth: Tensor) -> Tensor:
        return self.of_errors(torch.sub(outputs, truth))

    def slopes(
        self, outputs: Tensor, truth: Tensor, divisor: float, weights: Tensor | None = None
    ) -> Tensor:
        slopes = self.bend(torch.sub(outputs, truth)).mul_(self.factor / divisor)
        return slopes if weights is None else slopes.mul_(weights[:, None])

    def curvatures(self, outputs: Tensor) -> Tensor:
        return torch.full_like(outputs, self.factor)

    def constant(self, truth: Tensor, weights: Tensor | None, outputs: int) -> Tensor:  # noqa: ARG002
        if weights is None:
            return truth.double().mean(0)
        return (truth.double() * weights[:, None]).sum(0) / weights.sum()

    def report(self, sums: Sequence[float], rows: int) -> float:
        total = sum(
            part * self.in_units(scale) for part, scale in zip(sums, self.scale, strict=True)
        )
        return total / self.divisor(rows)

    @abstractmethod
    def of_errors(self, errors: Tensor) -> Tensor:
        """Return the loss of each error, (rows, width)."""

    @abstractmethod
    def bend(self, errors: Tensor) -> Tensor:
        """Return the slopes of the loss by the errors over `factor`; may overwrite `errors`."""

    def in_units(self, scale: float) -> float:
        """Return the factor from scaled to own units: the square, as most losses are quadratic."""
        return scale**2


class MeanSquared(ErrorLoss):
    factor = 2.0
    is_squared = True

    def of_errors(self, errors: Tensor) -> Tensor:
        return torch.mul(errors, errors)

    def bend(self, errors: Tensor) -> Tensor:
        return errors


class SumSquared(MeanSquared):
    is_sum = True


class MeanAbsolute(ErrorLoss):
    def of_errors(self, errors: Tensor) -> Tensor:
        return errors.abs()

    def bend(self, errors: Tensor) -> Tensor:
        return errors.sign_()

    def in_units(self, scale: float) -> float:
        return scale


class Huber(ErrorLoss):
    """Half the square of an error up to `delta`, and a straight line beyond (Huber, 1964)."""

    def of_errors(self, errors: Tensor) -> Tensor:
        slopes = torch.clamp(errors, -self.delta, self.delta)
        # e²/2 within delta, delta (|e| - delta / 2) beyond.
        return torch.mul(slopes, errors - slopes / 2)

    def bend(self, errors: Tensor) -> Tensor:
        return torch.clamp(errors, -self.delta, self.delta)


class CrossEntropy(Loss):
    """The negative logarithm of the true class's probability, in nats."""

    width = 1

    def each(self, outputs: Tensor, truth: Tensor) -> Tensor:
        return -outputs.log_softmax(1).gather(1, truth[:, None])

    def slopes(
        self, outputs: Tensor, truth: Tensor, divisor: float, weights: Tensor | None = None
    ) -> Tensor:
        index = truth[:, None]
        slopes = outputs.softmax(1)
        slopes.scatter_add_(1, index, torch.full_like(index, -1, dtype=slopes.dtype))
        slopes.div_(divisor)
        return slopes if weights is None else slopes.mul_(weights[:, None])

    def curvatures(self, outputs: Tensor) -> Tensor:
        shares = outputs.softmax(1)
        return shares * (1 - shares)

    def constant(self, truth: Tensor, weights: Tensor | None, outputs: int) -> Tensor:
        ones = torch.ones(len(truth), dtype=torch.float64) if weights is None else weights.double()
        counts = torch.zeros(outputs, dtype=torch.float64).index_add_(0, truth.cpu(), ones.cpu())
        # A class without a row counts as half a row.
        return counts.clamp(min=0.5).div(len(truth)).log()

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
