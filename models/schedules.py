"""The learning rate of each epoch, as a share of the configured one. Knows numbers only."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from descent.spec import Constant, Cosine, OneCycle, Plateau, ScheduleSpec, Step

#: Where one_cycle starts and ends, as shares of the peak; PyTorch's OneCycleLR has the same.
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1 / 250_000


@dataclass
class PlateauState:
    """What the plateau schedule has seen: part of the state that a resumed run needs."""

    factor: float = 1.0
    best: float | None = None
    #: Epochs since `best`.
    waited: int = 0

    def note(self, schedule: ScheduleSpec, loss: float) -> None:
        """Look at an epoch's loss; NaN is no progress."""
        if not isinstance(schedule, Plateau):
            return
        if math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > schedule.patience:
            self.factor, self.waited = self.factor * schedule.factor, 0


def factor(schedule: ScheduleSpec, epoch: int, epochs: int, plateau: PlateauState) -> float:
    """Return what the learning rate is multiplied by in `epoch`, which counts from 0."""
    warmup = schedule.warmup_epochs
    if epoch < warmup:
        return (epoch + 1) / (warmup + 1)
    if isinstance(schedule, Plateau):
        return plateau.factor
    return _CURVES[schedule.type](schedule, epoch - warmup, max(1, epochs - warmup))


def _constant(_: Constant, __: int, ___: int) -> float:
    return 1.0


def _cosine(schedule: Cosine, epoch: int, epochs: int) -> float:
    return _glide(1.0, schedule.final, epoch / epochs)


def _one_cycle(schedule: OneCycle, epoch: int, epochs: int) -> float:
    done = epoch / epochs
    if done < schedule.peak_at:
        return _glide(ONE_CYCLE_START, 1.0, done / schedule.peak_at)
    return _glide(1.0, ONE_CYCLE_END, (done - schedule.peak_at) / (1 - schedule.peak_at))


def _step(schedule: Step, epoch: int, _: int) -> float:
    return float(schedule.factor ** (epoch // schedule.every_epochs))


def _glide(start: float, end: float, share: float) -> float:
    """Go from start to end along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


_CURVES: dict[str, Callable[..., float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "step": _step,
}
