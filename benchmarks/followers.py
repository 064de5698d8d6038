"""Checks that 1 000 followers of one run get every event, and measures the delay after its commit.

They read server-sent events from one API process. A separate process commits the rows, as a worker
does. Everything stays on this machine and ends by itself.
"""

import asyncio
import itertools
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from urllib.parse import urlsplit

from service.runs import lifecycle, metrics
from service.storage.database import create_database, migrate, writing
from tests.service.rows import add_run, metric_rows
from tests.serving import running_service

FOLLOWERS = 1_000
EVENTS = 60
PAUSE = 0.5  # seconds between two events
SLACK = 60.0  # seconds that the last follower may be late
TARGET = 0.25  # seconds, the median


@dataclass
class Heard:
    """The events that one follower received: the number of each, and its time of arrival."""

    ids: list[int] = field(default_factory=list)
    at: list[float] = field(default_factory=list)


def make_run(database: str) -> str:
    engine = create_database(database)
    migrate(engine)
    with writing(engine) as session:
        run_id = add_run(session).id
        lifecycle.claim(session, "worker", lease_s=3600.0)
        lifecycle.started(session, run_id, 1, {"device": "cpu"})
    engine.dispose()
    return run_id


def commit(database: str, run_id: str, told: Connection) -> None:
    """Commit one event at a time, the last one being the run's end; report the time of each."""
    engine = create_database(database)
    times = []
    for seq in range(1, EVENTS + 1):
        with writing(engine) as session:
            metrics.append(session, run_id, 1, metric_rows(seq, seq), {})
        times.append(time.time())
        time.sleep(PAUSE)
    with writing(engine) as session:
        lifecycle.succeed(session, run_id, 1, {})
    engine.dispose()
    told.send(times)


async def follow(url: str, run_id: str, heard: Heard, is_up: asyncio.Event) -> None:
    """Read the stream to its end, with as little work for each event as possible."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    lines = [
        f"GET /api/v1/runs/{run_id}/events HTTP/1.1",
        f"Host: {parts.netloc}",
        "Accept: text/event-stream",
    ]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    kind = ""
    while line := await reader.readline():
        name, _, value = line.rstrip().partition(b": ")
        if name == b"event":
            kind = value.decode()
        elif name == b"id":
            heard.ids.append(int(value))
            heard.at.append(time.time())
            is_up.set()
        elif not line.strip() and kind == "end":
            break
    writer.close()


async def followed(url: str, database: str, run_id: str) -> tuple[list[Heard], list[float]]:
    """Start the followers, then the commits; return the received events and the commit times."""
    all_heard = [Heard() for _ in range(FOLLOWERS)]
    ups = [asyncio.Event() for _ in range(FOLLOWERS)]
    tasks = [
        asyncio.create_task(follow(url, run_id, heard, up))
        for heard, up in zip(all_heard, ups, strict=True)
    ]
    for up in ups:
        await asyncio.wait_for(up.wait(), SLACK)  # each has received the earlier events
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=commit, args=(database, run_id, sender))
    process.start()
    await asyncio.wait(tasks, timeout=EVENTS * PAUSE + SLACK)
    times = receiver.recv()
    process.join()
    return all_heard, times


def delays(heard: Heard, times: Sequence[float]) -> list[float]:
    """Return the delays of the events in `times`: all but the two of the end."""
    first = len(heard.at) - len(times) - TAIL
    return [at - done for at, done in zip(heard.at[first:], times, strict=False)]


TAIL = 2  # events of the end: the state, and the end of the stream


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        database = f"sqlite:///{Path(name) / 'descent.sqlite3'}"
        run_id = make_run(database)
        with running_service(Path(name), "--no-worker") as url:
            all_heard, times = asyncio.run(followed(url, database, run_id))
    last = max(max(heard.ids, default=0) for heard in all_heard)
    lost = sum(heard.ids != list(range(1, last + 1)) for heard in all_heard)
    found = sorted(itertools.chain.from_iterable(delays(heard, times) for heard in all_heard))
    median, p95 = statistics.median(found), found[int(len(found) * 0.95)]
    print(f"{FOLLOWERS} followers, {last} events each, {lost} followers lost or doubled one")
    print(f"delay    median {median:.3f} s, p95 {p95:.3f} s, most {found[-1]:.3f} s")
    sys.exit(lost > 0 or median > TARGET)


if __name__ == "__main__":
    main()
