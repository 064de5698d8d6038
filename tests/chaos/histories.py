"""Disturbances of a run while it trains: processes killed, stopped and continued, disks filled."""

import os
import random
import secrets
import signal
from dataclasses import dataclass, replace
from itertools import cycle
from typing import Literal, get_args

from models.engine import EngineName
from tests.chaos import points
from tests.chaos.stage import PATIENCE_S, Stage, tell
from tests.warm import end, has_ended, is_stopped, until

LOCKED_S = 2.0  # seconds; a transaction that is not stopped takes milliseconds
Kind = Literal["kill", "upload", "service", "zombie", "orphan", "full"]


@dataclass(frozen=True)
class History:
    """One disturbance of one run."""

    kind: Kind
    point: str
    times: int = 1
    #: the point at which the recovery is killed too
    again: str | None = None
    #: a key of RUNS
    number: int = 0
    #: the engine of every attempt, of the undisturbed run too
    engine: EngineName = "kernel"

    def __str__(self) -> str:
        again = f", then at {self.again}" if self.again else ""
        return f"{self.kind} at {self.point}:{self.times}{again}, run {self.number}, {self.engine}"


def plan(seed: int) -> list[History]:
    """Return every history once, in the order that the seed gives, with the engines in turns."""
    chance = random.Random(seed)  # noqa: S311  no secret

    def some(kind: Kind, point: str, times: int = 1, again: str | None = None) -> History:
        return History(kind, point, times, again, chance.randrange(3))

    run = (*points.TRAINER, *points.SITES, *points.TRANSACTIONS, *points.ANYWHERE, *points.API)
    found = [
        some("kill", point, times, chance.choice(points.RECOVERY))
        for point in run
        for times in points.times_of(point)
    ]
    found += [some("upload", point) for point in points.UPLOAD]
    # Not inside a transaction: a stopped API would leave the client of the run waiting.
    repeated = sorted(points.REPEATED - {*points.ANYWHERE, *points.TRANSACTIONS})
    found += [some("service", point, 2) for point in chance.sample(repeated, 10)]
    found += [some("zombie", point) for point in points.SITES]
    found += [some("orphan", point) for point in ("train.step", "trainer.checkpoint")]
    found += [some("full", point, times) for point in points.WRITES for times in (1, 2)]
    chance.shuffle(found)
    engines = chance.sample([each for each in get_args(EngineName) if each != "boosting"], 3)
    return [
        replace(history, engine=engine)
        for history, engine in zip(found, cycle(engines), strict=False)
    ]


def play(stage: Stage, history: History) -> None:
    """Play a history on the stage; violations are in the stage's figures."""
    if history.kind == "upload":
        _upload(stage, history)
        return
    stage.train_with(history.engine)
    stage.expect(history.number)
    {
        "kill": _arm_kill,
        "service": _arm_stop,
        "zombie": _arm_stop,
        "orphan": _arm_stop,
        "full": _arm_full,
    }[history.kind](stage, history)
    run_id = stage.submit(history.number)
    observer = stage.watch(run_id)
    try:
        {
            "kill": _kill,
            "service": _kill_service,
            "zombie": _wake,
            "orphan": _orphan,
            "full": _fill,
        }[history.kind](stage, history, run_id)
    finally:
        stage.disarm()
    if not until(lambda: _is_over(stage, run_id), PATIENCE_S):
        stage.figures.wrong.append(f"{history}: {run_id} is stuck in {stage.state(run_id)}")
        end(observer[0])
        return
    stage.judge(run_id, history.number, observer, str(history))


def _arm_kill(stage: Stage, history: History) -> None:
    stage.arm(history.point, f"kill {history.times}")


def _arm_stop(stage: Stage, history: History) -> None:
    stage.arm(history.point, f"stop {history.times}")


def _arm_full(stage: Stage, history: History) -> None:
    stage.arm(history.point, f"full {history.times}")


def _is_over(stage: Stage, run_id: str) -> bool:
    stage.note_deaths()
    return stage.has_ended(run_id)


# ---- killed -------------------------------------------------------------------------------------


def _kill(stage: Stage, history: History, run_id: str) -> None:
    if not _waits_for(stage, history, run_id):
        return
    if history.point in points.TRAINER:
        stage.figures.kills += 1
    if history.again is None:
        return
    stage.disarm()
    stage.arm(history.again, "kill 1")
    until(lambda: stage.has_fired(history.again or "", 1) or _is_over(stage, run_id), PATIENCE_S)
    if stage.has_fired(history.again, 1) and history.again in points.TRAINER:
        stage.figures.kills += 1


def _waits_for(stage: Stage, history: History, run_id: str) -> bool:
    """Wait until the point has been reached the given number of times; a run may end before."""

    def has_fired() -> bool:
        return stage.has_fired(history.point, history.times)

    until(lambda: has_fired() or _is_over(stage, run_id), PATIENCE_S)
    if has_fired():
        stage.figures.reached.add(f"{history.point}:{history.times}")
    return has_fired()


def _kill_service(stage: Stage, history: History, run_id: str) -> None:
    """Kill all processes of the service at once."""
    if not _waits_for(stage, history, run_id):
        return
    trainers = stage.warm.trainers()
    end(stage.worker)
    end(stage.api)
    tell(trainers, signal.SIGKILL)
    stage.start_worker()
    stage.start_api()
    stage.figures.services += 1
    stage.figures.kills += 2 + len(trainers)


def _upload(stage: Stage, history: History) -> None:
    """Kill the API or the worker during an upload; the client retries until the table is ready."""
    stage.arm(history.point, "kill 1")
    dataset = stage.upload(secrets.token_hex(8))
    if stage.has_fired(history.point, 1):
        stage.figures.reached.add(f"{history.point}:1")
    stage.disarm()
    rows = stage.rows(dataset)
    if rows != 13:
        stage.figures.wrong.append(f"{history}: {dataset} has {rows} rows")


# ---- stopped ------------------------------------------------------------------------------------


def _wake(stage: Stage, history: History, run_id: str) -> None:
    """Stop the supervisor, let another take over its run, continue it: it can write nothing."""
    zombie = stage.worker
    if not _waits_for(stage, history, run_id):
        return
    until(lambda: is_stopped(zombie), PATIENCE_S)
    if not until(stage.is_writable, LOCKED_S):
        # Another of its threads holds a lock of SQLite: no takeover is possible, no check needed.
        os.kill(zombie, signal.SIGCONT)
        return
    if not _is_taken_over(stage, history, run_id):
        end(zombie)
        return
    before = stage.dump(run_id)
    os.kill(zombie, signal.SIGCONT)
    # Before it obeys, it still does the write that it had begun.
    os.kill(zombie, signal.SIGTERM)
    if not until(lambda: has_ended(zombie), PATIENCE_S):
        stage.figures.wrong.append(f"{history}: the woken worker does not end")
        end(zombie)
    stage.figures.zombies += 1
    if stage.dump(run_id) != before:
        stage.figures.wrong.append(f"{history}: {run_id}: I4: the woken worker wrote something")


def _is_taken_over(stage: Stage, history: History, run_id: str) -> bool:
    """Start another worker and return whether it finishes the run, as it must."""
    stage.start_worker()
    is_over = until(lambda: stage.has_ended(run_id), PATIENCE_S)
    if not is_over:
        stage.figures.wrong.append(f"{history}: {run_id}: I8: nobody took the run over")
    return is_over


def _orphan(stage: Stage, history: History, run_id: str) -> None:
    """Stop a trainer and kill its supervisor: it continues after the takeover and has no reader."""
    if not _waits_for(stage, history, run_id):
        return
    trainers = stage.warm.trainers()
    end(stage.worker)
    stage.figures.kills += 1
    if not _is_taken_over(stage, history, run_id):
        tell(trainers, signal.SIGKILL)
        return
    tell(trainers, signal.SIGCONT)
    if not until(lambda: not set(trainers) & set(stage.warm.trainers()), PATIENCE_S):
        stage.figures.wrong.append(f"{history}: {run_id}: a trainer outlived its supervisor")
        tell(trainers, signal.SIGKILL)
    stage.figures.zombies += 1


# ---- full ---------------------------------------------------------------------------------------


def _fill(stage: Stage, history: History, run_id: str) -> None:
    if _waits_for(stage, history, run_id):
        stage.figures.full += 1
