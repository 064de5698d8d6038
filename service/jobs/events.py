"""The events of a job: an append-only sequence, which pages, streams and waiting requests read.

The events of a job are numbered 1, 2, 3, … under the lock of the job's row, so a reader that has
seen number n never misses an event that commits later with a smaller number.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from functools import partial
from typing import Any, TypeVar

from anyio.to_thread import run_sync
from sqlalchemy import Engine, insert, select
from sqlalchemy.orm import Session

from service.errors import ServiceError
from service.jobs import queue
from service.jobs.kind import Job, JobEvent
from service.storage import database
from service.storage.database import reading

POLL = 0.05  # seconds between two queries for the watched jobs
POLL_WOKEN = 0.25  # seconds between two queries if notices wake the watcher
PAUSE = 0.002  # the fewest seconds between two queries, however many notices arrive
END_S = 1.0  # seconds that reads may take to end when the service stops
T = TypeVar("T")
EventT = TypeVar("EventT", bound=JobEvent)


def append(session: Session, job: Job, kind: str, data: dict[str, Any]) -> None:
    """Add one event to a job that the caller has locked and then read.

    Only jobs with a table of events keep them. Other jobs count theirs, for waiting requests.
    """
    job.event_seq += 1  # written with the other changes of the job
    write(session, job, kind, data)


def write(session: Session, job: Job, kind: str, data: dict[str, Any]) -> None:
    """Add the event whose number `job.event_seq` is: the caller has counted it."""
    key = {"job_id": job.id, "seq": job.event_seq, "attempt": job.attempt}
    write_all(session, type(job), [key | {"kind": kind, "data": data}])


def append_all(session: Session, job: Job, kind: str, data: Sequence[dict[str, Any]]) -> None:
    """Add events of one kind to a job, like `append`, with one statement."""
    first = job.event_seq + 1
    job.event_seq += len(data)
    common = {"job_id": job.id, "attempt": job.attempt, "kind": kind}
    rows = [common | {"seq": seq, "data": each} for seq, each in enumerate(data, start=first)]
    write_all(session, type(job), rows)


def write_all(session: Session, table: type[Job], rows: Sequence[dict[str, Any]]) -> None:
    """Add events, which the caller has counted, as rows of the table of events."""
    if rows and table.event_table is not None:
        session.execute(insert(table.event_table), rows)
    database.tell(session, database.EVENTS)


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
    """Wakes the requests that wait for a job to change, with one query for all of them."""

    def __init__(self, engine: Engine, pipe: int | None = None) -> None:
        """Each byte on the descriptor `pipe` means that a process of this machine changed a job."""
        self._engine, self._pipe = engine, pipe
        self._listener = database.Listener(engine, database.EVENTS)
        self._listens_to: int | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news = asyncio.Event()
        #: job id → the waiting requests, each with the number of the last event that it has seen
        self._waiting: dict[str, set[tuple[int, asyncio.Event]]] = {}
        self._someone = asyncio.Event()
        self._reads: dict[Hashable, asyncio.Task[Any]] = {}
        self.is_stopping = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Watch during the block, which is the life of the service; then wake all requests."""
        self._loop = asyncio.get_running_loop()
        if self._pipe is not None:
            self._loop.add_reader(self._pipe, self._read_pipe, self._pipe)
        tasks = [
            asyncio.create_task(self._watch(), name="watch jobs"),
            asyncio.create_task(self._listen(), name="listen to the database"),
        ]
        try:
            yield
        finally:
            self.stop()
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            if self._pipe is not None:
                self._loop.remove_reader(self._pipe)
            self._hang_up()
            self._listener.close()
            self._loop = None
            if self._reads:  # their connections are closed after this
                await asyncio.wait(self._reads.values(), timeout=END_S)

    def stop(self) -> None:
        """Wake all waiting requests, so that streams end and the server can stop."""
        self.is_stopping.set()
        for waiters in self._waiting.values():
            for _seen, changed in waiters:
                changed.set()

    def look(self) -> None:
        """Query the watched jobs soon. Any thread may call this."""
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(self._news.set)

    async def wait(self, job_id: str, seen: int, timeout_s: float) -> bool:
        """Wait until the job has an event after number `seen`; return whether it got one."""
        if self.is_stopping.is_set():
            return False
        waiter = (seen, asyncio.Event())
        self._waiting.setdefault(job_id, set()).add(waiter)
        self._someone.set()
        self._news.set()  # the job may have changed since the caller read it
        try:
            await asyncio.wait_for(waiter[1].wait(), timeout_s)
        except TimeoutError:
            return False
        finally:
            self._waiting[job_id].discard(waiter)
            if not self._waiting[job_id]:
                del self._waiting[job_id]
        return not self.is_stopping.is_set()

    async def once(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return the result of `read`; calls with the same key while it runs share the result.

        A thousand streams of one run wake together and need the same rows.
        """
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.create_task(run_sync(read))
            task.add_done_callback(partial(self._read_is_over, key))
        found: T = await asyncio.shield(task)  # a cancelled caller must not cancel it for others
        return found

    def _read_is_over(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        del self._reads[key]
        if not task.cancelled():
            task.exception()  # read here, because all callers may have been cancelled

    async def _watch(self) -> None:
        while True:
            if not self._waiting:
                self._someone.clear()
                await self._someone.wait()
            with contextlib.suppress(ServiceError):  # the next query tries again
                self._wake(await self.once("numbers", partial(self._numbers, list(self._waiting))))
            await asyncio.sleep(PAUSE)
            is_woken = self._pipe is not None or self._listens_to is not None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), POLL_WOKEN if is_woken else POLL)
            self._news.clear()

    async def _listen(self) -> None:
        """Listen to the notices of PostgreSQL, and connect again after each loss."""
        while self._engine.dialect.name == "postgresql":
            if self._listens_to is None and await run_sync(self._listener.connect):
                self._listens_to = self._listener.fileno()
                asyncio.get_running_loop().add_reader(self._listens_to, self._drain)
                self._news.set()
            await asyncio.sleep(database.RECONNECT_S)

    def _drain(self) -> None:
        self._news.set()
        descriptor = self._listens_to
        self._hang_up()
        if self._listener.drain() and descriptor is not None and self._loop is not None:
            self._listens_to = descriptor
            self._loop.add_reader(descriptor, self._drain)

    def _hang_up(self) -> None:
        if self._listens_to is not None and self._loop is not None:
            self._loop.remove_reader(self._listens_to)
            self._listens_to = None

    def _read_pipe(self, pipe: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(pipe, 4096)
        self._news.set()

    def _numbers(self, jobs: list[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        with reading(self._engine) as session:
            for table in {queue.table_of(job) for job in jobs}:
                rows = session.execute(select(table.id, table.event_seq).where(table.id.in_(jobs)))
                found |= dict(rows.all())
        return found

    def _wake(self, numbers: dict[str, int]) -> None:
        for job_id, waiters in self._waiting.items():
            for seen, changed in waiters:
                # A deleted job wakes its requests too, so that they answer 404.
                if numbers.get(job_id, seen + 1) > seen:
                    changed.set()
