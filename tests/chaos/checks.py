"""Checks promises I1 to I9 of a run in the tables, after or during any disturbance.

Everything here runs in a child process with connections of its own.
"""

import hashlib
import json
import math
import signal
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import httpx
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from models import checkpoint
from service.errors import ServiceError
from service.registry.tables import ModelVersion
from service.runs.lifecycle import TERMINAL, TRANSITIONS
from service.runs.tables import Checkpoint, Event, Metric, Run
from service.settings import Settings
from service.storage.blobs import BlobStore, read_blob
from service.storage.database import create_database, reading
from service.storage.s3 import open_store

LOOK_S = 0.005  # seconds between two looks of the observer
ASK_EVERY = 8  # looks between two requests of the follower
FIELDS = ("seq", "epoch", "step", "split", "name", "value")


def observe(settings: Settings, run_id: str, url: str, report: Path) -> None:
    """Observe a run until SIGTERM, then write the violations; the main function of the process."""
    is_over = False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_over
        is_over = True

    signal.signal(signal.SIGTERM, stop)
    observer = Observer(create_database(settings.resolved_database_url), run_id)
    follower = Follower(url, run_id)
    while not is_over:
        observer.look()
        if observer.looks % ASK_EVERY == 0:
            follower.ask()
        time.sleep(LOOK_S)
    observer.look()
    follower.ask_until_complete()
    wrong = observer.wrong + follower.compare(curve(settings, run_id))
    report.write_text(json.dumps({"looks": observer.looks, "wrong": wrong}))


class Observer:
    """Reads state and curve in one statement, and compares each reading with the last."""

    def __init__(self, engine: Engine, run_id: str) -> None:
        self._engine = engine
        live = (
            select(Metric.run_id, func.count(), func.min(Metric.seq), func.max(Metric.seq))
            .where(Metric.run_id == run_id, Metric.superseded_by.is_(None))
            .group_by(Metric.run_id)
            .subquery()
        )
        self._query = (
            select(Run.state, Run.attempt, Run.metric_seq, *list(live.c)[1:])
            .outerjoin(live, live.c.run_id == Run.id)
            .where(Run.id == run_id)
        )
        self._last: tuple[str, int, int] = ("queued", 0, 0)
        self.looks = 0
        self.wrong: list[str] = []

    def look(self) -> None:
        try:
            with reading(self._engine) as session:
                row = session.execute(self._query).one_or_none()
        except ServiceError:
            return  # the database is not available now
        self.looks += 1
        if row is None:
            self.wrong.append("I1: the run is gone")
            return
        state, attempt, seq, count, first, last = row
        if (count or 0, last or 0, first or min(1, seq)) != (seq, seq, min(1, seq)):
            self.wrong.append(f"I2: {count} live rows from {first} to {last}, the run says {seq}")
        before, old_attempt, old_seq = self._last
        if state != before and state not in _reachable(before):
            self.wrong.append(f"I5: {before} became {state}")
        if attempt < old_attempt or (attempt == old_attempt and seq < old_seq):
            self.wrong.append(f"I4: attempt {old_attempt} row {old_seq} became {attempt}, {seq}")
        if before in TERMINAL and (state, attempt, seq) != self._last:
            self.wrong.append(f"I5: a run that was {before} changed to {state}, {attempt}, {seq}")
        self._last = (state, attempt, seq)


class Follower:
    """A client that polls the curve and follows rewinds, as api.md requires."""

    def __init__(self, url: str, run_id: str) -> None:
        self._url = f"{url}/api/v1/runs/{run_id}/metrics"
        self._client = httpx.Client(timeout=5)
        self._rows: list[dict[str, Any]] = []
        self._attempt: int | None = None
        self._is_final = False

    def ask(self) -> bool:
        """Read the next rows; return whether there was an answer."""
        after = {"after": self._rows[-1]["seq"] if self._rows else 0}
        known = {} if self._attempt is None else {"attempt": self._attempt}
        try:
            response = self._client.get(self._url, params=after | known)
        except httpx.TransportError:
            return False
        if response.status_code != 200:
            return False
        page = response.json()
        for rewind in page["rewinds"]:
            self._rows = [row for row in self._rows if row["seq"] <= rewind["after_seq"]]
        self._rows += page["data"]
        self._attempt, self._is_final = page["attempt"], page["is_final"]
        return True

    def ask_until_complete(self) -> None:
        deadline = time.monotonic() + 10
        while not self._is_final and time.monotonic() < deadline:
            self.ask()

    def compare(self, live: list[tuple[Any, ...]]) -> list[str]:
        mine = [tuple(row[field] for field in FIELDS) for row in self._rows]
        return [] if mine == live else [f"I2: a client has {len(mine)} rows of {len(live)}"]


def curve(settings: Settings, run_id: str) -> list[tuple[Any, ...]]:
    """Return the live rows as the API shows them."""
    named = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    with reading(create_database(settings.resolved_database_url)) as session:
        rows = session.execute(
            select(*(getattr(Metric, field) for field in FIELDS), Metric.kind)
            .where(Metric.run_id == run_id, Metric.superseded_by.is_(None))
            .order_by(Metric.seq)
        )
        return [(*row[:-2], named.get(row.kind, row.value)) for row in rows]


def digests(settings: Settings, run_id: str) -> dict[str, Any]:
    """Return the data that is equal in two equal runs, after checking all visible blobs."""
    rows, blobs = curve(settings, run_id), open_store(settings)
    with reading(create_database(settings.resolved_database_url)) as session:
        run = session.get_one(Run, run_id)
        wrong = list(_check(session, blobs, run))
        best = session.get(Checkpoint, run.best_checkpoint_id)
        tensors = checkpoint.read(read_blob(blobs, best.sha256))[0] if best else {}
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tensor.shape}".encode() + tensor.tobytes())
    values = json.dumps([(*row[:-1], _exact(row[-1])) for row in rows])
    return {
        "state": run.state,
        "engine": run.engine,
        "attempts": run.attempt,
        "error": run.error,
        "rows": len(rows),
        "curve": hashlib.sha256(values.encode()).hexdigest(),
        "tensors": found.hexdigest(),
        "wrong": wrong,
    }


def dump(settings: Settings, run_id: str) -> list[str]:
    """Return all rows of a run, to detect changes."""
    with reading(create_database(settings.resolved_database_url)) as session:
        rows = [*session.execute(_columns(Run, Run.id == run_id))]
        for table in (Metric, Checkpoint, ModelVersion):
            rows += session.execute(_columns(table, table.run_id == run_id))
        rows += session.execute(_columns(Event, Event.job_id == run_id))
        return sorted(repr(tuple(row)) for row in rows)


def _columns(table: Any, condition: Any) -> Any:
    return select(*table.__table__.columns).where(condition)


def _check(session: Session, blobs: BlobStore, run: Run) -> Iterator[str]:
    for kept in session.scalars(select(Checkpoint).where(Checkpoint.run_id == run.id)):
        try:
            read_blob(blobs, kept.sha256)
        except ServiceError as error:
            yield f"I3: {kept.id}: {error}"
    states = select(Event.data).where(Event.job_id == run.id, Event.kind == "state")
    names = [data["state"] for data in session.scalars(states.order_by(Event.seq))]
    for before, after in pairwise(names):
        if after not in TRANSITIONS[before]:
            yield f"I5: {before} became {after}"
    seqs = session.scalars(select(Event.seq).where(Event.job_id == run.id).order_by(Event.seq))
    if list(seqs) != list(range(1, run.event_seq + 1)):
        yield "I2: the events have a gap"
    ends = [name for name in names if name in TERMINAL]
    if ends != [run.state]:
        yield f"I5: the run is {run.state}, its events say {ends}"
    if run.state == "failed" and not (run.error and run.error["code"] and run.error["detail"]):
        yield "I9: it failed without a sentence"
    versions = select(func.count()).where(ModelVersion.run_id == run.id)
    if session.scalar(versions) != int(
        run.state == "succeeded" and bool(run.config.get("register_as"))
    ):
        yield "I4: the model was not registered exactly once"


def _exact(value: float | str) -> str:
    return value if isinstance(value, str) else float(value).hex() if math.isfinite(value) else "?"


def _reachable(state: str) -> set[str]:
    """Return the states reachable in one or more steps, since the observer misses some."""
    found: set[str] = set()
    todo = [state]
    while todo:
        for after in TRANSITIONS[todo.pop()] - found:
            found.add(after)
            todo.append(after)
    return found
