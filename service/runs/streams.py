"""The events of a run as a stream of server-sent events."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

import orjson
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy import Engine

from service.jobs import events
from service.runs import representation
from service.runs.tables import Event, Run
from service.storage.database import reading

KEEP_ALIVE = 15.0  # seconds between two comments of an idle stream
BATCH = 200  # events that are read at a time


async def follow(
    engine: Engine, watcher: events.Watcher, run_id: str, seen: int
) -> AsyncIterator[bytes]:
    """Yield every event after number `seen`, as they come, until the run's end."""
    while True:
        found = await watcher.once((run_id, seen), partial(_read, engine, run_id, seen))
        if found.text:
            yield found.text
        if found.is_end:
            return
        if found.last > seen:
            seen = found.last
            continue
        if not await watcher.wait(run_id, seen, KEEP_ALIVE):
            if watcher.is_stopping.is_set():
                return  # the client reconnects with Last-Event-ID and misses nothing
            yield KEEPALIVE_COMMENT


@dataclass(frozen=True)
class Found:
    """What followed an event, as it is sent."""

    text: bytes
    #: the number of the newest event that there is
    last: int
    is_end: bool


def _read(engine: Engine, run_id: str, seen: int) -> Found:
    with reading(engine) as session:
        if session.get(Run, run_id) is None:
            text = format_sse_event(event="end", data_str='{"state":"deleted"}')
            return Found(text, seen, is_end=True)
        found = events.after(session, Event, run_id, seen, BATCH)
        bodies = representation.event_bodies(session, run_id, found)
    text = b"".join(
        format_sse_event(
            id=str(body["seq"]), event=body["event"], data_str=orjson.dumps(body["data"]).decode()
        )
        for body in bodies
    )
    last = bodies[-1]["seq"] if bodies else seen
    return Found(text, last, is_end=any(body["event"] == "end" for body in bodies))
