"""The training loop: step · stop? · save · evaluate · report.

It yields events and writes no file outside its scratch folder. Knows nothing of queues, databases
or HTTP.
"""

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch

from descent.codes import make_warning
from descent.spec import KFoldSplit, Lbfgs
from models.engine.hardware import choose_device, memory_failures, repeatable
from models.errors import Diverged
from models.failpoints import reach
from models.features.encoding import Features
from models.features.targets import ClassTarget
from models.training.advice import explain_divergence
from models.training.bag import Bag
from models.training.cost import RATES
from models.training.dataset import Data, TrainingInput
from models.training.interface import (
    Alive,
    EndReason,
    Finished,
    Metrics,
    Started,
    StopReason,
    TrainingEvent,
)
from models.training.lr_range import find_rate
from models.training.out_of_fold import evaluate_bag
from models.training.outcome import evaluate_best, frame, scalar_scores, subject
from models.training.snapshots import Snapshot, linear_parameters, save_at_last, try_to_save
from models.training.state import Learner, Training, take_turn

#: Reasons to end after which the training is never resumed.
FINAL = ("budget", "cancel")
#: A warning for the run: `{"code", "column"?, "detail"}`.
Warning_ = dict[str, Any]
#: When to write a checkpoint.
FIRST = 1.0  # seconds; a shorter run saves only at its end
FIRST_AT_MOST = 60.0  # seconds; the first one waits for an epoch's end, but no longer than this
SHARE = 0.03  # of the time that may go into checkpoints
FIRST_SIGN_S = 0.05  # seconds of a long epoch after which the first sign of life comes
LOSS_AT_MOST = 60.0  # seconds of work that a crash may lose, unless SHARE forbids it
LOSS_SHARE = 0.01  # of the expected run that a crash may lose, unless SHARE forbids it


class MakeData(Protocol):
    """Makes the data of a training, or returns that of another one; see `Data`."""

    def __call__(
        self,
        given: TrainingInput,
        device: torch.device,
        features: Features | None = None,
        *,
        is_stored: bool | None = None,
    ) -> Data: ...


def train(
    given: TrainingInput,
    should_stop: Callable[[], StopReason | None],
    make_data: MakeData = Data,
) -> Iterator[TrainingEvent]:
    """Train, from the start or from `given.resume`, until the last epoch or a reason to end.

    Calls `should_stop` between steps, every `given.poll_s` seconds. Yields `Started`, `Metrics`
    after each epoch, `Alive` every second, `Saved` at intervals and once at the end, `Finished`.
    Raises `TrainingFailed`. A run that diverges first yields its whole curve and a checkpoint of
    its best epoch; with `on_divergence` "keep_best" it finishes with that instead of an error.
    With `lr_range` it is a test of learning rates instead, which saves nothing.
    """
    device = choose_device(given.config.device)
    need = (
        f"this table with model {given.config.model.type!r}, batch_size {given.config.batch_size!r}"
    )
    with repeatable(device), memory_failures(need, device):
        training, warnings = prepare(given, device, make_data)
        with closing(training):
            if given.config.lr_range is not None and isinstance(training, Training):
                started = _started(training, warnings)
                yield replace(started, steps=RATES, epochs=RATES, subject=None, frame=None)
                yield from find_rate(training, should_stop)
                return
            yield _started(training, warnings)
            yield from take_turn(training)
            reason = yield from _learn(training, should_stop)
            yield from _finish(training, reason, should_stop)


def _learn(
    training: Learner, should_stop: Callable[[], StopReason | None]
) -> Generator[TrainingEvent, None, EndReason | None]:
    state, pace = training.state, Pace(training, should_stop)
    while state.epoch < training.config.epochs:
        if between := _reason_between_epochs(training):
            return between
        rate = training.learning_rate()

        while not training.is_epoch_complete:
            training.advance(rate, time.monotonic() + training.given.poll_s)
            reach("train.step")
            yield from take_turn(training)
            reason = yield from _attend(training, pace)
            if reason in FINAL and not training.is_finite():
                break  # there is nothing to save: the epoch's end reports the divergence
            if reason:
                return reason

        epoch = training.end_epoch()
        reach("train.epoch")
        taken = frame(training) if epoch.is_finite else None
        yield Metrics(epoch.rows, training.progress(), state.best, taken)
        if not epoch.is_finite:
            why = _explain(training, rate)
            training.recall_best()
            if training.config.on_divergence == "keep_best" and state.best is not None:
                detail = f"{why}. The model is that of epoch {state.best.epoch}"
                training.warnings.append(make_warning("diverged", detail))
                return "diverged"
            yield from save_at_last(training, should_stop, resumable=False)
            raise Diverged(why)
    return None


def _explain(training: Learner, rate: float) -> str:
    if isinstance(training, Bag) and training.lost is not None:
        member, rate = training.lost
        name = training.name_of(training.members.index(member))
        return f"{name}: {explain_divergence(member, rate)}"
    if not isinstance(training, Training):
        raise TypeError(f"{type(training).__name__} has not diverged")
    return explain_divergence(training, rate)


def _attend(training: Learner, pace: "Pace") -> Generator[TrainingEvent, None, EndReason | None]:
    """Do between two pieces what is due; return the reason to end, if there is one."""
    if not pace.is_due():
        return None
    training.adapt_threads()
    if pace.wants_sign():
        yield Alive(training.progress())
    reason = pace.reason_to_end()
    if reason is None and pace.wants_checkpoint() and training.is_finite():
        with pace.measured():
            saved = try_to_save(training)
        yield saved
    return reason


def _reason_between_epochs(training: Learner) -> EndReason | None:
    pause_after = training.given.pause_after
    if training.rest is not None:
        return training.rest
    return "pause" if pause_after is not None and training.state.epoch >= pause_after else None


def _started(training: Learner, warnings: list[dict[str, str]]) -> Started:
    split, config = training.split, training.config
    # In a cross-validation each row is held out by some members and trains the others.
    held_out = split.train if isinstance(training, Bag) else split.validation
    return Started(
        device=str(training.device),
        engine=training.engine_name,
        parameters=training.parameters,
        rows={
            "train": len(split.train),
            "validation": len(held_out),
            "test": len(split.test),
        },
        steps=config.epochs * training.steps_per_epoch,
        epochs=config.epochs,
        warnings=warnings,
        subject=subject(training),
        frame=frame(training),
    )


def _finish(
    training: Learner, reason: EndReason | None, should_stop: Callable[[], StopReason | None]
) -> Iterator[TrainingEvent]:
    if reason in FINAL:
        training.keep_present()  # the run may end within its first epoch
    if reason in {"cancel", "pause", "handback"}:
        if training.is_finite():  # else the next attempt diverges again, from the checkpoint before
            yield from save_at_last(training, should_stop)
        yield Finished(reason, None)
        return
    reach("train.evaluate")
    evaluation = _evaluate(training)
    # Save before the test metrics are numbered: a training resumed from here yields them again.
    resumable = reason != "diverged"
    stop = yield from save_at_last(
        training, should_stop, resumable=resumable, evaluation=evaluation
    )
    if stop is not None:
        yield Finished(stop, None)
        return
    if "test" in evaluation:
        rows = training.rows_of({"test": scalar_scores(evaluation["test"])})
        yield Metrics(rows, training.progress(), training.state.best)
    learned = linear_parameters(training)
    yield Finished(reason, evaluation, learned, training.warnings, training.speed)


def _evaluate(training: Learner) -> dict[str, Any]:
    if isinstance(training, Bag):
        return evaluate_bag(training)
    if not isinstance(training, Training):
        raise TypeError(f"{type(training).__name__} has no evaluation")
    return evaluate_best(training)


def prepare(
    given: TrainingInput, device: torch.device, make_data: MakeData = Data
) -> tuple[Learner, list[Warning_]]:
    """Build the training, resumed from its checkpoint if there is one; return its warnings too.

    Raises `TrainingFailed`.
    """
    snapshot = Snapshot.read(given.resume) if given.resume else None
    stored = None if snapshot is None else snapshot.is_stored
    features = None if snapshot is None else snapshot.features
    torch.set_num_threads(1)  # of an operation; an engine has threads of its own
    training: Learner
    if isinstance(given.config.split, KFoldSplit) and given.config.lr_range is None:
        fitted = None if snapshot is None else [each.features for each in snapshot.members]
        training = Bag(given, device, features, fitted, is_stored=stored)
    else:
        training = Training(given, make_data(given, device, features, is_stored=stored))
    warnings = [*training.features.warnings(), *_warn(given, training)]
    if snapshot:
        snapshot.restore(training)
        if reason := snapshot.inexactness(training):
            detail = f"the resumed run may differ in the last digits: {reason}"
            warnings.append(make_warning("resume_inexact", detail))
    return training, warnings


def _warn(given: TrainingInput, training: Learner) -> list[Warning_]:
    warnings = []
    split, targets = training.split, given.config.targets
    left_out = given.table.rows - len(split.train) - len(split.validation) - len(split.test)
    if left_out:
        detail = (
            f"{left_out} of {given.table.rows} rows have no value in {targets} and are left out"
        )
        warnings.append(make_warning("target_missing", detail, targets[0]))
    if lonely := _lonely(training):
        detail = f"a class with one row is in the training rows only: {', '.join(lonely)}"
        warnings.append(make_warning("class_too_small", detail, targets[0]))
    first = training.members[0] if isinstance(training, Bag) else training
    if isinstance(given.config.optimizer, Lbfgs) and first.steps_per_epoch > 1:
        detail = "lbfgs compares losses from step to step; batch_size 'full' makes them comparable"
        warnings.append(make_warning("lbfgs_minibatch", detail))
    return warnings


def _lonely(training: Learner) -> list[str]:
    """Return the classes of one row where some rows are held out.

    The profile of a dataset counts the rows of each class, except for classes that are numbers.
    """
    target, split = training.features.target, training.split
    if not isinstance(target, ClassTarget) or target.type != "number":
        return []
    if not len(split.validation) + len(split.test):
        return []
    numbers = target.labels_of(training.given.table)
    counts = np.bincount(numbers[numbers >= 0], minlength=target.outputs)
    return [label for label, count in zip(target.labels, counts, strict=True) if count == 1]


class Pace:
    """The clock of an attempt: when to check for a stop, show a sign of life, or save."""

    def __init__(self, training: Learner, should_stop: Callable[[], StopReason | None]) -> None:
        self.training, self.should_stop = training, should_stop
        now = training.now()
        self.saved_at, self.shown_at, self.looks_at = now, now, now + training.given.poll_s
        #: The epoch whose first sign of life comes early: it has the first estimate of the rest.
        self.early: int | None = training.state.epoch
        #: Seconds that the last checkpoint took, None before the first.
        self.cost_s: float | None = None

    def is_due(self) -> bool:
        """Return whether it is time for the other checks; cheap enough for every step."""
        now = self.training.now()
        if now < self.looks_at:
            return False
        self.looks_at = now + self.training.given.poll_s
        return True

    def wants_sign(self) -> bool:
        """Return whether it is time for a sign of life."""
        now, every_s = self.training.now(), self.training.given.sign_s
        if self.training.state.epoch == self.early:
            every_s = min(every_s, FIRST_SIGN_S)
        if now - self.shown_at < every_s:
            return False
        self.shown_at, self.early = now, None
        return True

    def reason_to_end(self) -> EndReason | None:
        """Return "budget" if the time is used up, or the caller's reason to stop."""
        budget = self.training.config.budget
        if budget and self.training.elapsed_s >= budget.time_s:
            return "budget"
        return self.should_stop()

    def wants_checkpoint(self) -> bool:
        """Return whether it is time to save."""
        return self.training.now() - self.saved_at >= self._interval()

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure the seconds of a checkpoint."""
        begun = self.training.now()
        yield
        self.saved_at = self.training.now()
        self.cost_s = self.saved_at - begun
        self.training.saving_s += self.cost_s

    def _interval(self) -> float:
        given, progress = self.training.given, self.training.progress()
        if given.checkpoint_s is not None:
            return given.checkpoint_s
        if self.cost_s is None:
            return FIRST if progress.epoch else FIRST_AT_MOST
        expected = self.training.elapsed_s + (progress.eta_s or 0.0)
        return max(self.cost_s / SHARE, min(LOSS_AT_MOST, LOSS_SHARE * expected))
