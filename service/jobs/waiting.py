"""The dependencies with which routes wait for a job."""

from collections.abc import Callable
from time import monotonic
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import Depends, Query, Request

from service.http.resources import etag_of, not_modified
from service.jobs.events import Watcher
from service.jobs.life import TERMINAL

MAX_WAIT = 60.0  # seconds that a request may wait for a change

Wait = Annotated[float, Query(ge=0, le=MAX_WAIT, description="Seconds to wait for a change.")]
#: Returns the body of a job and the number of its last event.
Look = Callable[[str], tuple[dict[str, Any], int]]


def watcher(request: Request) -> Watcher:
    found: Watcher = request.app.state.watcher
    return found


WatcherDep = Annotated[Watcher, Depends(watcher)]


async def when_changed(
    request: Request, watcher: Watcher, job_id: str, look: Look, wait_s: float
) -> dict[str, Any]:
    """Return the body of a job as soon as its state changes, the client lacks it, or time is up."""
    body, seen = await run_sync(look, job_id)
    first, deadline = body["state"], monotonic() + wait_s
    has_this = "if-none-match" not in request.headers or not_modified(request, etag_of(body))
    while has_this and body["state"] == first and first not in TERMINAL:
        if not await watcher.wait(job_id, seen, deadline - monotonic()):
            break
        body, seen = await run_sync(look, job_id)
    return body
