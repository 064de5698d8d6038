"""Many followers of one run share one read, and none of them can cancel it for the others."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from service.jobs import events
from service.jobs.events import Watcher
from service.runs import lifecycle
from service.storage.database import create_database, writing
from tests.service.rows import add_run

pytestmark = pytest.mark.both_databases

FOLLOWERS = 200
PATIENCE = 20.0  # seconds


@pytest.fixture
def engine(sqlite_url: str) -> Iterator[Engine]:
    engine = create_database(sqlite_url)
    yield engine
    engine.dispose()


class Held:
    """A read that blocks until it is released, and counts its starts."""

    def __init__(self, outcome: Exception | None = None) -> None:
        self.count = 0
        self.has_begun = threading.Event()
        self.may_end = threading.Event()
        self.outcome = outcome

    def __call__(self) -> int:
        self.count += 1
        self.has_begun.set()
        assert self.may_end.wait(PATIENCE)
        if self.outcome:
            raise self.outcome
        return self.count


async def begun(watcher: Watcher, read: Held, count: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(watcher.once("run_1", read)) for _ in range(count)]
    assert await asyncio.to_thread(read.has_begun.wait, PATIENCE)
    return tasks


def test_those_who_ask_together_share_a_read_and_the_next_one_is_a_new_one(engine: Engine) -> None:
    async def ask() -> None:
        watcher, read = Watcher(engine), Held()
        tasks = await begun(watcher, read, FOLLOWERS)
        read.may_end.set()
        assert await asyncio.gather(*tasks) == [1] * FOLLOWERS
        assert await watcher.once("run_1", read) == 2

    asyncio.run(ask())


def test_who_leaves_takes_the_read_from_nobody(engine: Engine) -> None:
    async def ask() -> None:
        watcher, read = Watcher(engine), Held()
        first, *others = await begun(watcher, read, 3)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        read.may_end.set()
        assert await asyncio.gather(*others) == [1, 1]

    asyncio.run(ask())


def test_a_read_that_fails_fails_for_all_and_is_tried_again(engine: Engine) -> None:
    async def ask() -> None:
        watcher, read = Watcher(engine), Held(ValueError("no database"))
        tasks = await begun(watcher, read, 3)
        read.may_end.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(error) for error in found] == ["no database"] * 3
        read.outcome = None
        assert await watcher.once("run_1", read) == 2

    asyncio.run(ask())


@pytest.mark.parametrize("is_told", ["by the pipe", "by this process"])
def test_news_wake_those_who_wait_before_the_next_look(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, is_told: str
) -> None:
    """The polls are further apart than the limit of the test."""
    monkeypatch.setattr(events, "POLL", 2 * PATIENCE)
    monkeypatch.setattr(events, "POLL_WOKEN", 2 * PATIENCE)
    with writing(engine) as session:
        run = add_run(session)
        run_id, seen = run.id, run.event_seq
    reader, writer = os.pipe()
    os.set_blocking(reader, False)

    def change() -> None:
        with writing(engine) as session:
            run = lifecycle.get(session, run_id)
            events.append(session, run, "log", {"line": "news"})

    async def ask() -> bool:
        watcher = Watcher(engine, reader)
        async with watcher.running():
            waiting = asyncio.create_task(watcher.wait(run_id, seen, PATIENCE))
            await asyncio.sleep(0)  # it now waits
            await asyncio.to_thread(change)
            if is_told == "by the pipe":
                os.write(writer, b"\n")
            else:
                watcher.look()
            return await waiting

    assert asyncio.run(ask())
    os.close(reader)
    os.close(writer)
