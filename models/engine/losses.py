"""The losses: their sum over rows, their gradient, and their value in the targets' own units.

A net learns on scaled targets; (output - target) * scale is the error in the target's own units.
`Loss.report` returns those units; everything else here is scaled. Knows torch.
"""

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
    """

    @property
    @abstractmethod
    def width(self) -> int:
        """The count of sums that `measure` returns."""

    @abstractmethod
    def measure(self, outputs: Tensor, truth: Tensor) -> Tensor:
        """Return float32 (width,): the loss summed over the rows, in scaled units."""

    @abstractmethod
    def differentiate(self, outputs: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums of `measure`, and the objective's slopes by outputs, (rows, outputs)."""

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
        return self.add_up(torch.sub(outputs, truth))

    def differentiate(self, outputs: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        errors = torch.sub(outputs, truth)
        return self.add_up(errors), self.slopes(errors, 1 / self.divisor(errors.shape[0]))

    def divisor(self, rows: int) -> float:
        return 1.0 if self.is_sum else float(rows * self.width)

    def report(self, sums: Sequence[float], rows: int) -> float:
        total = sum(
            part * self.in_units(scale) for part, scale in zip(sums, self.scale, strict=True)
        )
        return total / self.divisor(rows)

    @abstractmethod
    def add_up(self, errors: Tensor) -> Tensor:
        """Return float32 (width,): the loss of errors (rows, width), summed over the rows."""

    @abstractmethod
    def slopes(self, errors: Tensor, share: float) -> Tensor:
        """Return `share` times the loss's derivative, (rows, width); may overwrite `errors`."""

    def in_units(self, scale: float) -> float:
        """Return the factor from scaled to own units: the square, as most losses are quadratic."""
        return scale**2


class MeanSquared(ErrorLoss):
    def add_up(self, errors: Tensor) -> Tensor:
        return torch.mul(errors, errors).sum(0)

    def slopes(self, errors: Tensor, share: float) -> Tensor:
        return errors.mul_(2 * share)


class SumSquared(MeanSquared):
    is_sum = True


class MeanAbsolute(ErrorLoss):
    def add_up(self, errors: Tensor) -> Tensor:
        return errors.abs().sum(0)

    def slopes(self, errors: Tensor, share: float) -> Tensor:
        return errors.sign_().mul_(share)

    def in_units(self, scale: float) -> float:
        return scale


class Huber(ErrorLoss):
    """Half the square of an error up to `delta`, and a straight line beyond (Huber, 1964)."""

    def add_up(self, errors: Tensor) -> Tensor:
        slopes = self.slopes(errors, 1.0)
        # e²/2 within delta, delta (|e| - delta / 2) beyond.
        return torch.mul(slopes, errors - slopes / 2).sum(0)

    def slopes(self, errors: Tensor, share: float) -> Tensor:
        return torch.clamp(errors, -self.delta, self.delta).mul_(share)


class CrossEntropy(Loss):
    """The negative logarithm of the true class's probability, in nats."""

    width = 1

    def measure(self, outputs: Tensor, truth: Tensor) -> Tensor:
        return -outputs.log_softmax(1).gather(1, truth[:, None]).sum(0)

    def differentiate(self, outputs: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        logarithms = outputs.log_softmax(1)
        index = truth[:, None]
        sums = -logarithms.gather(1, index).sum(0)
        slopes = logarithms.exp_()
        slopes.scatter_add_(1, index, torch.full_like(index, -1, dtype=slopes.dtype))
        return sums, slopes.div_(self.divisor(truth.shape[0]))

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
