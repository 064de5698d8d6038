"""The events of a run: one append-only sequence that pages, streams and waits all read.

A run's events are numbered 1, 2, 3, … under the lock of the run's row, so a reader that has seen
number n can never miss one that commits later with a smaller number.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

from anyio.to_thread import run_sync
from sqlalchemy import Engine, insert, select, update
from sqlalchemy.orm import Session

from service.errors import ServiceError
from service.jobs import queue
from service.jobs.tables import JobEvent
from service.storage.database import reading

POLL = 0.05  # seconds between two looks at the runs that somebody watches
END_S = 1.0  # seconds that reading may go on when the service ends
T = TypeVar("T")
EventT = TypeVar("EventT", bound=JobEvent)
KINDS = ("state", "metrics", "checkpoint", "log", "rewind", "end")


def append(session: Session, job_id: str, attempt: int, kind: str, data: dict[str, Any]) -> int:
    """Add one event to a job whose row the caller has locked; return its number.

    Only a run's events are kept. Those of other work are but counted, for whoever waits for news.
    """
    table = queue.table_of(job_id)
    seq = session.execute(
        update(table)
        .where(table.id == job_id)
        .values(event_seq=table.event_seq + 1)
        .returning(table.event_seq),
        execution_options={"synchronize_session": False},
    ).scalar_one()
    if table.event_table is not None:
        session.execute(
            insert(table.event_table).values(
                job_id=job_id, seq=seq, attempt=attempt, kind=kind, data=data
            )
        )
    return seq


def after(
    session: Session, table: type[EventT], job_id: str, seq: int, limit: int
) -> Sequence[EventT]:
    """Return the events of a job after number `seq`, oldest first."""
    return session.scalars(
        select(table)
        .where(table.job_id == job_id, table.seq > seq)
        .order_by(table.seq)
        .limit(limit)
    ).all()


def of_kind(session: Session, table: type[EventT], job_id: str, kind: str) -> Sequence[EventT]:
    return session.scalars(
        select(table).where(table.job_id == job_id, table.kind == kind).order_by(table.seq)
    ).all()


class Watcher:
    """Wakes those who wait for a job to change: one query for all of them, not one each."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        #: run id → those who wait, each with the last event number that it has seen
        self._waiting: dict[str, set[tuple[int, asyncio.Event]]] = {}
        self._someone = asyncio.Event()
        self._reads: dict[Hashable, asyncio.Task[Any]] = {}
        self.is_stopping = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch for as long as the service runs; then wake everybody."""
        task = asyncio.create_task(self._watch(), name="watch runs")
        try:
            yield
        finally:
            self.stop()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            if self._reads:  # their connections are closed after this
                await asyncio.wait(self._reads.values(), timeout=END_S)

    def stop(self) -> None:
        """Wake all who wait, so that streams end and the server can stop."""
        self.is_stopping.set()
        for waiters in self._waiting.values():
            for _seen, changed in waiters:
                changed.set()

    async def wait(self, run_id: str, seen: int, timeout_s: float) -> bool:
        """Wait until the run has an event after number `seen`; return whether one came."""
        if self.is_stopping.is_set():
            return False
        waiter = (seen, asyncio.Event())
        self._waiting.setdefault(run_id, set()).add(waiter)
        self._someone.set()
        try:
            await asyncio.wait_for(waiter[1].wait(), timeout_s)
        except TimeoutError:
            return False
        finally:
            self._waiting[run_id].discard(waiter)
            if not self._waiting[run_id]:
                del self._waiting[run_id]
        return not self.is_stopping.is_set()

    async def once(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return what `read` returns; whoever asks for the same while it is read waits for it.

        A thousand followers of a run are woken together and have all seen as much of it.
        """
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.create_task(run_sync(read))
            task.add_done_callback(partial(self._read_is_over, key))
        found: T = await asyncio.shield(task)  # one who leaves takes it from nobody else
        return found

    def _read_is_over(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._reads[key]
        if not task.cancelled():
            task.exception()  # everybody may have left who would have been told of it

    async def _watch(self) -> None:
        while True:
            if not self._waiting:
                self._someone.clear()
                await self._someone.wait()
            with contextlib.suppress(ServiceError):  # the database will be back; readers wait on
                self._wake(await self.once("numbers", partial(self._numbers, list(self._waiting))))
            await asyncio.sleep(POLL)

    def _numbers(self, jobs: list[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        with reading(self._engine) as session:
            for table in {queue.table_of(job) for job in jobs}:
                rows = session.execute(select(table.id, table.event_seq).where(table.id.in_(jobs)))
                found |= dict(rows.all())
        return found

    def _wake(self, numbers: dict[str, int]) -> None:
        for run_id, waiters in self._waiting.items():
            for seen, changed in waiters:
                # A run that is gone wakes its readers too: they will find out.
                if numbers.get(run_id, seen + 1) > seen:
                    changed.set()
