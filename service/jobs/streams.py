"""The events of a job over HTTP: a page of them, or a stream of Server-Sent Events."""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import orjson
from anyio.to_thread import run_sync
from fastapi import Depends, Header, Query, Request, Response
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from service.errors import Invalid
from service.http.resources import EngineDep, PageRequest, page_response
from service.jobs import events, life
from service.jobs.kind import Job, JobEvent
from service.jobs.waiting import WatcherDep
from service.storage.database import reading

KEEP_ALIVE_S = 15.0  # seconds between two comments of an idle stream
EVENTS_READ = 200  # events that are read at a time

Bodies = Callable[[Session, str, Sequence[Any]], list[dict[str, Any]]]


def prefers(request: Request, media_type: str) -> bool:
    """Return whether the request names a media type in its header Accept."""
    accepted = request.headers.get("accept", "")
    return any(part.strip().split(";")[0] == media_type for part in accepted.split(","))


@dataclass(frozen=True)
class EventRequest:
    """A request for the events of a job."""

    request: Request
    engine: EngineDep
    watcher: WatcherDep
    after: Annotated[int, Query(ge=0, lt=2**63, description="Events after this number.")] = 0
    limit: Annotated[int, Query(ge=1, le=200)] = 50
    last_event_id: Annotated[str | None, Header(max_length=20)] = None

    async def answer(self, table: type[Job], bodies: Bodies, job_id: str) -> Response:
        """Return a page of events or, with `Accept: text/event-stream`, stream them as they come.

        `bodies` makes the bodies of events: `seq`, `event` and `data`, and others for pages.
        """
        source = Source(self.engine, table, bodies, job_id)
        if not prefers(self.request, "text/event-stream"):
            return await run_sync(source.page, self.request, self.after, self.limit)
        seen = self._seen()
        job = await run_sync(source.job)
        if job.state in life.TERMINAL and seen >= job.event_seq:
            return Response(status_code=204)  # an EventSource then does not reconnect
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return EventSourceResponse(follow(self.watcher, source, seen), headers=headers)

    def _seen(self) -> int:
        given = self.last_event_id
        if given is None:
            return self.after
        if not (given.isascii() and given.isdigit()):
            raise Invalid(
                f"Last-Event-ID must be the id of an event of this stream, got {given!r}.",
                code="invalid_event_id",
            )
        return int(given)


EventsDep = Annotated[EventRequest, Depends()]


@dataclass(frozen=True)
class Found:
    """The events after a number, in the format of the stream."""

    text: bytes
    #: the number of the last event in `text`, or the number before it if there is none
    last: int
    is_end: bool


@dataclass(frozen=True)
class Source:
    """The stored events of a job."""

    engine: Engine
    table: type[Job]
    bodies: Bodies
    job_id: str

    def job(self) -> Job:
        with reading(self.engine) as session:
            return life.get(session, self.table, self.job_id)

    def page(self, request: Request, after: int, limit: int) -> Response:
        with reading(self.engine) as session:
            life.get(session, self.table, self.job_id)
            found = self._after(session, after, limit + 1)
            bodies = partial(self.bodies, session, self.job_id)
            return page_response(
                request, found, PageRequest(limit, None), lambda event: str(event.seq), bodies
            )

    def read(self, seen: int) -> Found:
        """Return the events after number `seen`."""
        with reading(self.engine) as session:
            if session.get(self.table, self.job_id) is None:
                text = format_sse_event(event="end", data_str='{"state":"deleted"}')
                return Found(text, seen, is_end=True)
            bodies = self.bodies(session, self.job_id, self._after(session, seen, EVENTS_READ))
        text = b"".join(
            format_sse_event(
                id=str(body["seq"]),
                event=body["event"],
                data_str=orjson.dumps(body["data"]).decode(),
            )
            for body in bodies
        )
        last = bodies[-1]["seq"] if bodies else seen
        return Found(text, last, is_end=any(body["event"] == "end" for body in bodies))

    def _after(self, session: Session, seen: int, limit: int) -> Sequence[JobEvent]:
        table = self.table.event_table
        return [] if table is None else events.after(session, table, self.job_id, seen, limit)


async def follow(watcher: events.Watcher, source: Source, seen: int) -> AsyncIterator[bytes]:
    """Yield every event after number `seen`, as it is committed, until the job ends."""
    while True:
        found = await watcher.once((source.job_id, seen), partial(source.read, seen))
        if found.text:
            yield found.text
        if found.is_end:
            return
        if found.last > seen:
            seen = found.last
            continue
        if not await watcher.wait(source.job_id, seen, KEEP_ALIVE_S):
            if watcher.is_stopping.is_set():
                return  # the client reconnects with Last-Event-ID and misses nothing
            yield KEEPALIVE_COMMENT
