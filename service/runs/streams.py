"""Waiting for a run and following it: the asynchronous edge of the run routes."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
from anyio.to_thread import run_sync
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from sqlalchemy import Engine

from service.database import reading
from service.runs import events, wire
from service.tables import Run

KEEP_ALIVE = 15.0  # seconds between two comments of an idle stream
BATCH = 200  # events that are read at a time


async def follow(
    engine: Engine, watcher: events.Watcher, run_id: str, seen: int
) -> AsyncIterator[bytes]:
    """Yield every event after number `seen`, as they come, until the run's end."""
    while True:
        found = await run_sync(_read, engine, run_id, seen)
        if found is None:
            yield format_sse_event(event="end", data_str='{"state":"deleted"}')
            return
        for event in found:
            seen = event["seq"]
            data = orjson.dumps(event["data"]).decode()
            yield format_sse_event(id=str(seen), event=event["event"], data_str=data)
            if event["event"] == "end":
                return
        if found:
            continue
        if not await watcher.wait(run_id, seen, KEEP_ALIVE):
            if watcher.is_stopping.is_set():
                return  # the client reconnects with Last-Event-ID and misses nothing
            yield KEEPALIVE_COMMENT


def _read(engine: Engine, run_id: str, seen: int) -> list[dict[str, Any]] | None:
    with reading(engine) as session:
        if session.get(Run, run_id) is None:
            return None
        found = events.after(session, run_id, seen, BATCH)
        return [wire.event_body(session, event) for event in found]
