"""What every route shares: the parts of the service, sessions, pages and ETags."""

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models.failpoints import reach
from service.blobs import BlobStore
from service.database import reading, writing
from service.datasets.ingest import Ingester
from service.errors import Invalid, PreconditionFailed, PreconditionRequired
from service.inference.directory import Directory
from service.inference.queue import Queue
from service.runs.events import Watcher
from service.settings import Settings

MAX_PAGE = 200  # rows of one page
AFTER_COMMIT = "after_commit"  # where a session keeps what is to be called then
Row = TypeVar("Row")
Body = TypeVar("Body", bound=BaseModel)


@dataclass(frozen=True)
class Parts:
    """The things that `create_app` put together."""

    settings: Settings
    engine: Engine
    blobs: BlobStore
    watcher: Watcher
    predictors: Any
    directory: Directory
    files: Any
    transfers: Any
    queue: Queue
    ingester: Ingester
    #: tells the supervisor on this machine, if there is one, that the queue has something for it
    wake: Callable[[], None]


def parts(request: Request) -> Parts:
    found: Parts = request.app.state.parts
    return found


PartsDep = Annotated[Parts, Depends(parts)]


def read_session(parts: PartsDep) -> Iterator[Session]:
    with reading(parts.engine) as session:
        yield session


def write_session(parts: PartsDep, request: Request) -> Iterator[Session]:
    with writing(parts.engine) as session:
        # An idempotent request's response is stored in the same transaction.
        request.state.session = session
        yield session
        reach("api.commit")
    reach("api.committed")
    for call in session.info.get(AFTER_COMMIT, ()):
        call()


def after_commit(session: Session, call: Callable[[], None]) -> None:
    """Have something done once a WriteSession is committed and has given its connection back."""
    session.info.setdefault(AFTER_COMMIT, []).append(call)


# scope="function": closed, and so committed, before the response is sent. A COMMIT that fails is
# an error that the client sees, not a 202 that was never true.
ReadSession = Annotated[Session, Depends(read_session, scope="function")]
WriteSession = Annotated[Session, Depends(write_session, scope="function")]


# ---- pages ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """Which part of a list is asked for."""

    limit: int
    after: str | None


def page(
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Rows of a page.")] = 50,
    after: Annotated[
        str | None, Query(max_length=1024, description="`next_cursor` of the page before.")
    ] = None,
) -> Page:
    return Page(limit, after)


PageParams = Annotated[Page, Depends(page)]


def encode_cursor(kind: str, values: Sequence[str | float | datetime]) -> str:
    """Return an opaque cursor that only the list `kind` reads. `kind` may name a filter too."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    document = json.dumps(plain, separators=(",", ":"))
    text = _seal(kind, document) + document
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(kind: str, text: str, *types: type) -> list[Any]:
    """Return the values of a cursor, as the types they had; raise Invalid for a foreign one."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        decoded = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        seal, document = decoded[:8], decoded[8:]
        if seal != _seal(kind, document):
            raise _foreign(text)
        values = json.loads(document)
        pairs = zip(values, types, strict=True) if types else ()
        return [_typed(value, type_) for value, type_ in pairs] if types else list(values)
    except (ValueError, TypeError, binascii.Error) as error:
        raise _foreign(text) from error


def _typed(value: Any, kind: type) -> Any:  # noqa: ANN401  a value of a cursor
    if kind is datetime:
        return datetime.fromisoformat(value)
    if not isinstance(value, kind):
        raise TypeError(f"not a {kind.__name__}")
    return value


def _seal(kind: str, document: str) -> str:
    return hashlib.sha256(f"{kind}\n{document}".encode()).hexdigest()[:8]


def _foreign(text: str) -> Invalid:
    detail = f"after={text[:60]!r} is no cursor of this list: leave it out to start again."
    error = {"pointer": "/query/after", "code": "invalid_cursor", "detail": detail}
    return Invalid(detail, code="invalid_cursor", errors=[error])


def page_of(rows: Sequence[Row], limit: int, cursor_of: Callable[[Row], str]) -> dict[str, Any]:
    """Return the envelope of a list from up to `limit` + 1 rows."""
    shown = list(rows[:limit])
    has_more = len(rows) > limit
    cursor = cursor_of(shown[-1]) if has_more else None
    return {"data": shown, "has_more": has_more, "next_cursor": cursor}


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Set `Link: rel="next"` where there is a next page."""
    if cursor is not None:
        query = request.url.include_query_params(after=cursor).query
        prefix, path = request.scope.get("root_path", ""), request.url.path
        path = path if path.startswith(prefix) else prefix + path
        response.headers["Link"] = f'<{path}?{query}>; rel="next"'


# ---- ETags ----------------------------------------------------------------------------------


def etag_of(*parts: object) -> str:
    """Return a strong ETag of the values that a representation is made from."""
    text = json.dumps(parts, default=str, sort_keys=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'


def not_modified(request: Request, etag: str) -> bool:
    """Return whether the client has this representation; then answer `Response(304)`."""
    return _names(request.headers.getlist("if-none-match"), etag)


def cached(
    request: Request, response: Response, body: Body, etag: str | None = None
) -> Body | Response:
    """Return what to answer: 304 where the client has this body already, else the body."""
    etag = etag or etag_of(body.model_dump(mode="json"))
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return body


def check_match(request: Request, etag: str, *, is_required: bool = False) -> None:
    """Raise unless the client's If-Match names this representation (428 where it must say)."""
    headers = request.headers.getlist("if-match")
    if not headers:
        if is_required:
            raise PreconditionRequired
        return
    if not _names(headers, etag):
        raise PreconditionFailed


def _names(headers: list[str], etag: str) -> bool:
    given = [tag.strip().removeprefix("W/") for header in headers for tag in header.split(",")]
    return "*" in given or etag in given
