"""The training loop: step · stop? · save · evaluate · report.

Yields what happens as events and touches no file outside its scratch folder. Knows nothing of
queues, databases or HTTP.
"""

from collections.abc import Callable, Generator, Iterator

from descent.spec import Sgd
from models.closed_form import is_small, largest_learning_rate
from models.devices import choose_device, memory_failures, repeatable
from models.errors import Diverged
from models.events import EndReason, Event, Finished, Job, Metrics, Started, StopReason
from models.failpoints import reach
from models.outcome import evaluate_best, scalar_figures
from models.pace import Pace
from models.prepare import prepare
from models.saving import save_at_last, try_to_save
from models.snapshots import linear_parameters
from models.training import Training


def train(job: Job, should_stop: Callable[[], StopReason | None]) -> Iterator[Event]:
    """Train, from the start or from `job.resume`, until the last epoch or a reason to end.

    `should_stop` is asked between steps, every `job.poll_s` seconds. Yields `Started`, `Metrics`
    an epoch, `Saved` now and then and once at the end, `Finished`. Raises `TrainingFailed`; a run
    that diverged has given its whole curve and its last finite checkpoint before.
    """
    device = choose_device(job.config.device)
    need = f"this table with model {job.config.model.type!r}, batch_size {job.config.batch_size!r}"
    with repeatable(device), memory_failures(need):
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
                reason = pace.reason_to_end()
                wants_checkpoint = pace.wants_checkpoint()
                if (reason or wants_checkpoint) and not training.is_finite():
                    break  # nothing worth keeping: the epoch's end says that it diverged
                if reason:
                    return reason
                if wants_checkpoint:
                    with pace.measured():
                        saved = try_to_save(training)
                    yield saved

        epoch = training.end_epoch()
        reach("train.epoch")
        yield Metrics(epoch.rows, training.progress(), state.best)
        if not epoch.is_finite:
            yield from _save_last_finite(training, should_stop)
            raise Diverged(_explain_divergence(training, rate))
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
    )


def _finish(
    training: Training, reason: EndReason | None, should_stop: Callable[[], StopReason | None]
) -> Iterator[Event]:
    if reason in {"cancel", "pause", "handback"}:
        yield from save_at_last(training, should_stop, is_best=True)
        yield Finished(reason, None)
        return
    reach("train.evaluate")
    evaluation = evaluate_best(training)
    # Saved before the test rows get their numbers: a training resumed here gives them again.
    stop = yield from save_at_last(training, should_stop, is_best=True, evaluation=evaluation)
    if stop is not None:
        yield Finished(stop, None)
        return
    if "test" in evaluation:
        rows = training.rows_of({"test": scalar_figures(evaluation["test"])})
        yield Metrics(rows, training.progress(), training.state.best)
    yield Finished(reason, evaluation, linear_parameters(training))


def _save_last_finite(
    training: Training, should_stop: Callable[[], StopReason | None]
) -> Iterator[Event]:
    training.flat.values.copy_(training.last_finite)
    yield from save_at_last(training, should_stop, is_best=True, resumable=False)


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
            return f"{message}; the largest that converges here{whole} is {largest:.4g}"
    return f"{message}; try a learning_rate of {rate / 10:g} or standardize: true"
