"""When a training looks up from its steps: to stop, or to save what a crash would lose."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from models.events import EndReason, StopReason
from models.training import Training

FIRST = 1.0  # seconds; a run that is over sooner saves once, at its end
FIRST_AT_MOST = 60.0  # seconds; the first waits for an epoch's end, but not for ever
SHARE = 0.03  # of the time may go into checkpoints
LOSS_AT_MOST = 60.0  # seconds of work that a crash may cost, and …
LOSS_SHARE = 0.01  # … the share of the expected run, unless SHARE forbids it


class Pace:
    """The clock of one attempt."""

    def __init__(self, training: Training, should_stop: Callable[[], StopReason | None]) -> None:
        self.training, self.should_stop = training, should_stop
        now = time.monotonic()
        self.saved_at, self.shown_at, self.looks_at = now, now, now + training.job.poll_s
        #: Seconds that the last checkpoint took.
        self.cost_s: float | None = None

    def is_due(self) -> bool:
        """Whether it is time to ask the other questions; cheap enough for every step."""
        now = time.monotonic()
        if now < self.looks_at:
            return False
        self.looks_at = now + self.training.job.poll_s
        return True

    def wants_sign(self) -> bool:
        """Whether it is time to show that steps are made."""
        now = time.monotonic()
        if now - self.shown_at < self.training.job.sign_s:
            return False
        self.shown_at = now
        return True

    def reason_to_end(self) -> EndReason | None:
        budget = self.training.config.budget
        if budget and self.training.elapsed_s >= budget.time_s:
            return "budget"
        return self.should_stop()

    def wants_checkpoint(self) -> bool:
        return time.monotonic() - self.saved_at >= self._interval()

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Note what a checkpoint costs."""
        begun = time.monotonic()
        yield
        self.saved_at = time.monotonic()
        self.cost_s = self.saved_at - begun
        self.training.saving_s += self.cost_s

    def _interval(self) -> float:
        job, progress = self.training.job, self.training.progress()
        if job.checkpoint_s is not None:
            return job.checkpoint_s
        if self.cost_s is None:
            return FIRST if progress.epoch else FIRST_AT_MOST
        expected = self.training.elapsed_s + (progress.eta_s or 0.0)
        return max(self.cost_s / SHARE, min(LOSS_AT_MOST, LOSS_SHARE * expected))
