"""Measures the time until a run trains again after `kill -9` of its worker.

    .venv/bin/python benchmarks/recovery.py

A linear model on the 13 scores, whose worker is killed once it has a checkpoint: the one worker of
`descent serve`, and one of two workers beside it. Each kill has a service of its own, with SQLite.
"""

import contextlib
import os
import platform
import signal
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from descent import Client
from descent.demo import DATA
from service.jobs.kind import Worker
from service.runs.tables import Event, Run
from service.storage.database import create_database, reading
from tests.serving import running_service, start_service, stop

TIMES = 5
TICK_S = 0.02  # seconds between two looks into the database
PATIENCE_S = 120.0
LONG: dict[str, Any] = {
    "model": {"type": "linear"},
    "epochs": 1_000_000,
    "split": {"type": "none"},
    "early_stopping": None,
}


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}\n")
    print(f"| seconds after the kill, {TIMES} times | median | slowest |\n|---|---|---|")
    for name, scene in (("the one worker of `serve`", _alone), ("one of two workers", _beside)):
        measured = zip(*(scene() for _ in range(TIMES)), strict=True)
        steps = ("queued again", "claimed", "first new row stored")
        for what, times in zip(steps, measured, strict=True):
            print(f"| {name}: {what} | {statistics.median(times):.2f} | {max(times):.2f} |")


def _alone() -> tuple[float, float, float]:
    with tempfile.TemporaryDirectory() as name, running_service(Path(name)) as url:
        return _kill(Path(name), url)


def _beside() -> tuple[float, float, float]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(running_service(folder, "--no-worker"))
        for _ in range(2):
            process = start_service(folder, "worker")
            stack.callback(stop, process)
        with Client(url) as client:
            _until(lambda: [w.state for w in client.system().workers] == ["ready"] * 2)
        return _kill(folder, url)


def _kill(folder: Path, url: str) -> tuple[float, float, float]:
    """Return the seconds from the kill to the queue, to the claim, and to the first new row."""
    engine = create_database(f"sqlite:///{folder / 'descent.sqlite3'}")
    with Client(url) as client:
        dataset = client.upload(DATA / "scores.csv").id
        run = client.submit(dataset, "Final", **LONG)
        _until(lambda: bool(run.checkpoints()))
        with reading(engine) as session:
            owner = select(Worker.pid).join(Run, Run.owner == Worker.id).where(Run.id == run.id)
            pid = session.execute(owner).scalar_one()
        os.kill(pid, signal.SIGKILL)
        killed = datetime.now(UTC)
        _until(lambda: bool(_times(engine, killed)["metrics"]))
        run.cancel()
    times = _times(engine, killed)
    engine.dispose()
    queued, claimed, trained = (times[what][0] for what in ("queued", "starting", "metrics"))
    return queued, claimed, trained


def _times(engine: Engine, killed: datetime) -> dict[str, list[float]]:
    """Return the seconds from the kill to each event that it caused, by the event's name."""
    found = defaultdict[str, list[float]](list)
    with reading(engine) as session:
        for event in session.scalars(select(Event).where(Event.at > killed).order_by(Event.seq)):
            if event.kind == "state" or (event.kind, event.attempt) == ("metrics", 2):
                name = event.data.get("state", event.kind)
                found[name].append((event.at - killed).total_seconds())
    return found


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.perf_counter() + PATIENCE_S
    while not condition():
        if time.perf_counter() > deadline:
            raise TimeoutError
        time.sleep(TICK_S)


if __name__ == "__main__":
    main()
