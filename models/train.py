"""The training loop: step · stop? · save · evaluate · report.

Yields what happens as events and touches no file outside its scratch folder. Knows nothing of
queues, databases or HTTP.
"""

from collections.abc import Callable, Generator, Iterator
from decimal import ROUND_FLOOR, Context

from descent.spec import Sgd
from models.closed_form import is_small, largest_learning_rate
from models.devices import choose_device, memory_failures, repeatable
from models.errors import Diverged
from models.events import (
    Alive,
    EndReason,
    Event,
    Finished,
    Job,
    Metrics,
    Started,
    StopReason,
)
from models.failpoints import reach
from models.outcome import evaluate_best, scalar_figures
from models.pace import Pace
from models.prepare import prepare
from models.saving import save_at_last, try_to_save
from models.snapshots import linear_parameters
from models.training import Training
from models.trajectory import frame, subject

#: After these nobody goes on with the training.
FINAL = ("budget", "cancel")


def train(job: Job, should_stop: Callable[[], StopReason | None]) -> Iterator[Event]:
    """Train, from the start or from `job.resume`, until the last epoch or a reason to end.

    `should_stop` is asked between steps, every `job.poll_s` seconds. Yields `Started`, `Metrics`
    an epoch, `Alive` every second, `Saved` now and then and once at the end, `Finished`. Raises
    `TrainingFailed`; a run that diverged has given its whole curve and the checkpoint of its best
    epoch before, and with `on_divergence` "keep_best" it finishes with that.
    """
    device = choose_device(job.config.device)
    need = f"this table with model {job.config.model.type!r}, batch_size {job.config.batch_size!r}"
    with repeatable(device), memory_failures(need, device):
        training, warnings = prepare(job, device)
        yield _started(training, warnings)
        reason = yield from _learn(training, should_stop)
        yield from _finish(training, reason, should_stop)


def _learn(
    training: Training, should_stop: Callable[[], StopReason | None]
) -> Generator[Event, None, EndReason | None]:
    state, pace = training.state, Pace(training, should_stop)
    while state.epoch < training.config.epochs:
        if training.stopped_early:
            return "early_stopping"
        rate = training.learning_rate()

        for x, truth in training.batches():
            training.step(x, truth, rate)
            reach("train.step")

            if pace.is_due():
                if pace.wants_sign():
                    yield Alive(training.progress())
                reason = pace.reason_to_end()
                wants_checkpoint = pace.wants_checkpoint()
                if (reason or wants_checkpoint) and not training.is_finite():
                    # Nothing worth keeping. The epoch goes on to its end, which says that it
                    # diverged, so that its rows do not depend on the moment of this look.
                    if reason in FINAL:
                        break
                    wants_checkpoint = False
                if reason:
                    return reason
                if wants_checkpoint:
                    with pace.measured():
                        saved = try_to_save(training)
                    yield saved

        epoch = training.end_epoch()
        reach("train.epoch")
        taken = frame(training) if epoch.is_finite else None
        yield Metrics(epoch.rows, training.progress(), state.best, taken)
        if not epoch.is_finite:
            why = _explain_divergence(training, rate)
            training.recall_best()
            if training.config.on_divergence == "keep_best" and state.best is not None:
                detail = f"{why}. The model is that of epoch {state.best.epoch}"
                training.warnings.append({"code": "diverged", "detail": detail})
                return "diverged"
            yield from save_at_last(training, should_stop, is_best=True, resumable=False)
            raise Diverged(why)
    return None


def _started(training: Training, warnings: list[dict[str, str]]) -> Started:
    split, config = training.split, training.config
    return Started(
        device=str(training.device),
        parameters=training.parameters,
        rows={
            "train": len(split.train),
            "validation": len(split.validation),
            "test": len(split.test),
        },
        steps=config.epochs * training.steps_per_epoch,
        epochs=config.epochs,
        warnings=warnings,
        subject=subject(training),
        frame=frame(training),
    )


def _finish(
    training: Training, reason: EndReason | None, should_stop: Callable[[], StopReason | None]
) -> Iterator[Event]:
    if reason in FINAL and training.state.best is None:
        training.best.copy_(training.flat.values)  # part of an epoch is all that was learned
    if reason in {"cancel", "pause", "handback"}:
        if training.is_finite():  # else the next attempt finds out from the checkpoint before
            yield from save_at_last(training, should_stop, is_best=True)
        yield Finished(reason, None)
        return
    reach("train.evaluate")
    evaluation = evaluate_best(training)
    # Saved before the test rows get their numbers: a training resumed here gives them again.
    resumable = reason != "diverged"
    stop = yield from save_at_last(
        training, should_stop, is_best=True, resumable=resumable, evaluation=evaluation
    )
    if stop is not None:
        yield Finished(stop, None)
        return
    if "test" in evaluation:
        rows = training.rows_of({"test": scalar_figures(evaluation["test"])})
        yield Metrics(rows, training.progress(), training.state.best)
    yield Finished(reason, evaluation, linear_parameters(training), training.warnings)


def _explain_divergence(training: Training, rate: float) -> str:
    config = training.config
    message = (
        f"The loss or a parameter was no longer finite in epoch {training.state.epoch}, at "
        f"learning rate {rate:g}"
    )
    small = is_small(len(training.train), training.features.width)
    if small and not config.model.hidden_layers() and isinstance(config.optimizer, Sgd):
        x = training.features.encode(training.job.table, training.split.train, dtype="float64")
        outputs = training.features.outputs
        largest = largest_learning_rate(x, training.job.loss, config.optimizer, outputs)
        if largest is not None:
            whole = "" if training.steps_per_epoch == 1 else " with batch_size 'full'"
            return (
                f"{message}; the largest that converges here{whole} is {_rounded_down(largest):g}"
            )
    return f"{message}; try a learning_rate of {rate / 10:g} or standardize: true"


def _rounded_down(rate: float) -> float:
    """Return a rate of 4 digits that converges where `rate` is the largest that does."""
    return float(Context(prec=4, rounding=ROUND_FLOOR).create_decimal_from_float(rate))
