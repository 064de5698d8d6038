"""The parts that the routes of every room share.

These are the typed dependencies (settings, engine, blobs, scratch, sessions), lists in pages
(order, cursor, envelope, `Link` header), ETags with `If-None-Match` and `If-Match`, JSON answers,
whose times are in UTC and end in `Z`, and the probes of readiness.
"""

import asyncio
import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from threading import Thread
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar

import orjson
from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel
from sqlalchemy import ColumnElement, Engine, Select, select, tuple_, union_all
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from descent.schemas import Part
from models.failpoints import reach
from service.errors import (
    Invalid,
    PreconditionFailed,
    PreconditionRequired,
    ServiceError,
    invalid_at,
)
from service.settings import Settings
from service.storage.blobs import BlobStore, Scratch
from service.storage.database import reading, writing

AFTER_COMMIT = "after_commit"  # the key of a session's callbacks in its `info`
MAX_PAGE = 200  # rows of one page
OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_SERIALIZE_NUMPY
LIMIT_S = 1.0  # seconds within which a part must answer its probe

Row = TypeVar("Row")
Body = TypeVar("Body", bound=BaseModel)
#: The state of a part, and a detail.
Found = tuple[Literal["ok", "warming", "absent", "failed"], str | None]

# ---- dependencies -------------------------------------------------------------------------------


def settings(request: Request) -> Settings:
    found: Settings = request.app.state.settings
    return found


def engine(request: Request) -> Engine:
    found: Engine = request.app.state.engine
    return found


def blobs(request: Request) -> BlobStore:
    found: BlobStore = request.app.state.blobs
    return found


def scratch(request: Request) -> Scratch:
    found: Scratch = request.app.state.scratch
    return found


SettingsDep = Annotated[Settings, Depends(settings)]
EngineDep = Annotated[Engine, Depends(engine)]
BlobsDep = Annotated[BlobStore, Depends(blobs)]
ScratchDep = Annotated[Scratch, Depends(scratch)]


def read_session(engine: EngineDep) -> Iterator[Session]:
    with reading(engine) as session:
        yield session


def write_session(engine: EngineDep, request: Request) -> Iterator[Session]:
    with writing(engine) as session:
        # An idempotent request's response is stored in the same transaction.
        request.state.session = session
        yield session
        reach("api.commit")
    reach("api.committed")
    for call in session.info.get(AFTER_COMMIT, ()):
        call()


def after_commit(session: Session, call: Callable[[], None]) -> None:
    """Call `call` after the WriteSession has committed and returned its connection."""
    session.info.setdefault(AFTER_COMMIT, []).append(call)


# scope="function": the session commits before the response is sent, so that the client sees a
# failed COMMIT as an error, not as a success.
ReadSession = Annotated[Session, Depends(read_session, scope="function")]
WriteSession = Annotated[Session, Depends(write_session, scope="function")]


# ---- lists in pages -----------------------------------------------------------------------------


@dataclass(frozen=True)
class PageRequest:
    """The requested part of a list."""

    limit: int
    after: str | None


def page(
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Rows of a page.")] = 50,
    after: Annotated[
        str | None, Query(max_length=1024, description="`next_cursor` of the page before.")
    ] = None,
) -> PageRequest:
    return PageRequest(limit, after)


PageParams = Annotated[PageRequest, Depends(page)]


@dataclass(frozen=True)
class OneOf:
    """The filter "this column has one of these values"."""

    column: InstrumentedAttribute[Any]
    values: Sequence[Any]


class NewestFirst(Generic[Row]):
    """A list of rows, newest first.

    Its columns are unique together. An index must end with them and begin with the columns of the
    list's conditions: then a page costs the same however long the list is.
    """

    def __init__(self, kind: str, table: type[Row], *columns: InstrumentedAttribute[Any]) -> None:
        #: the name of the list in its cursors
        self.kind = kind
        self._table = table
        self._names = [column.key for column in columns]
        self._types = [column.type for column in columns]

    def page(
        self,
        request: Request,
        session: Session,
        page: PageRequest,
        bodies: Callable[[Sequence[Row]], Sequence[object]],
        *conditions: ColumnElement[bool],
        one_of: OneOf | None = None,
    ) -> Response:
        """Answer with the requested page of the rows that meet the conditions.

        `bodies` makes the bodies of all rows of the page at once, so that no row needs a query of
        its own.
        """
        query = select(self._table).where(*conditions)
        if page.after is not None:
            place = decode_cursor(
                self.kind, page.after, *(type_.python_type for type_ in self._types)
            )
            query = query.where(tuple_(*self._of(self._table)) < tuple_(*place, types=self._types))
        values = list(dict.fromkeys(one_of.values)) if one_of else []
        if one_of and len(values) == 1:
            query = query.where(one_of.column == values[0])
        query = self._first(query, self._table, page.limit + 1)
        if one_of and len(values) > 1:
            query = self._merged(query, one_of.column, values, page.limit + 1)
        return page_response(request, session.scalars(query).all(), page, self._cursor, bodies)

    def _of(self, table: object) -> list[Any]:
        """Return the columns of a table or of an alias, or their values in a row."""
        return [getattr(table, name) for name in self._names]

    def _first(self, query: Select[Any], table: type[Row], most: int) -> Select[Any]:
        return query.order_by(*(column.desc() for column in self._of(table))).limit(most)

    def _merged(
        self, query: Select[Any], column: InstrumentedAttribute[Any], values: list[Any], most: int
    ) -> Select[Any]:
        """Return the first rows of several lists, one for each value, each read from an index.

        With `column IN (…)` the database would sort all rows that have one of the values, or walk
        through all rows that have none.
        """
        lists = [query.where(column == value).subquery() for value in values]
        merged = aliased(self._table, union_all(*(select(each) for each in lists)).subquery())
        return self._first(select(merged), merged, most)

    def _cursor(self, row: Row) -> str:
        return encode_cursor(self.kind, self._of(row))


def page_response(
    request: Request,
    rows: Sequence[Row],
    page: PageRequest,
    cursor_of: Callable[[Row], str],
    bodies: Callable[[Sequence[Row]], Sequence[object]],
) -> Response:
    """Return the envelope of a list from up to `page.limit` + 1 rows, with `Link: rel="next"`."""
    shown, has_more = rows[: page.limit], len(rows) > page.limit
    cursor = cursor_of(shown[-1]) if has_more else None
    body = {"data": bodies(shown), "has_more": has_more, "next_cursor": cursor}
    return json_response(body, headers=_link(request, cursor) if cursor else None)


def _link(request: Request, cursor: str) -> dict[str, str]:
    query = request.url.include_query_params(after=cursor).query
    prefix, path = request.scope.get("root_path", ""), request.url.path
    path = path if path.startswith(prefix) else prefix + path
    return {"Link": f'<{path}?{query}>; rel="next"'}


# ---- cursors ------------------------------------------------------------------------------------


def encode_cursor(kind: str, values: Sequence[str | float | datetime]) -> str:
    """Return an opaque cursor that only the list `kind` accepts; `kind` may name a filter too."""
    plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    document = json.dumps(plain, separators=(",", ":"))
    text = _seal(kind, document) + document
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(kind: str, text: str, *types: type) -> list[Any]:
    """Return the values of a cursor with these types; raise Invalid if it is of another list."""
    try:
        padded = text.encode("ascii") + b"=" * (-len(text) % 4)
        decoded = base64.b64decode(padded, altchars=b"-_", validate=True).decode()
        seal, document = decoded[:8], decoded[8:]
        if seal != _seal(kind, document):
            raise _foreign(text)
        values = json.loads(document)
        if not types:
            return list(values)
        return [_typed(value, type_) for value, type_ in zip(values, types, strict=True)]
    except (ValueError, TypeError, binascii.Error) as error:
        raise _foreign(text) from error


def _typed(value: object, kind: type) -> object:
    if kind is datetime:
        return datetime.fromisoformat(str(value))
    if not isinstance(value, kind):
        raise TypeError(f"not a {kind.__name__}")
    return value


def _seal(kind: str, document: str) -> str:
    return hashlib.sha256(f"{kind}\n{document}".encode()).hexdigest()[:8]


def _foreign(text: str) -> Invalid:
    detail = f"after={text[:60]!r} is not a cursor of this list: leave it out to start again."
    return invalid_at("/query/after", "invalid_cursor", detail)


# ---- ETags --------------------------------------------------------------------------------------


def etag_of(*parts: object) -> str:
    """Return a strong ETag made from the values of a representation."""
    text = json.dumps(parts, default=str, sort_keys=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'


def not_modified(request: Request, etag: str) -> bool:
    """Return whether the client has this representation, so that the response is 304."""
    return _names(request.headers.getlist("if-none-match"), etag)


def cached(
    request: Request, response: Response, body: Body, etag: str | None = None
) -> Body | Response:
    """Return the body, or 304 if the client has it."""
    etag = etag or etag_of(body.model_dump(mode="json"))
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    response.headers["ETag"] = etag
    return body


def json_unless_known(request: Request, body: object, etag: str | None = None) -> Response:
    """Return a body as JSON with its ETag, or 304 if the client has it."""
    etag = etag or etag_of(body)
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    return json_response(body, headers={"ETag": etag})


def check_match(request: Request, etag: str, *, is_required: bool = False) -> None:
    """Raise PreconditionFailed unless If-Match names this representation.

    Raises PreconditionRequired if the header is required and missing.
    """
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


# ---- JSON answers -------------------------------------------------------------------------------


def json_response(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response with a body of plain values, NumPy values and Pydantic models."""
    content = orjson.dumps(body, default=_plain, option=OPTIONS)
    return Response(content, status, headers, media_type="application/json")


def _plain(value: object) -> dict[str, Any]:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")


# ---- readiness ----------------------------------------------------------------------------------


class Probe(NamedTuple):
    """A part of the service: its name in the API and in a sentence, and its check."""

    name: str
    noun: str
    #: whether the service is not ready without this part
    required: bool
    #: checks the part; a ServiceError means that the part has failed
    look: Callable[[], Found]


class Probes:
    """Checks the parts, each in its own thread and within a time limit.

    The threads of the requests can all be busy for seconds, and a part can hang.
    """

    def __init__(self, *probes: Probe) -> None:
        self._probes = {probe.name: probe for probe in probes}
        #: part → its newest check, which simultaneous requests share
        self._looks: dict[str, Future[Part]] = {}

    async def parts(self) -> list[Part]:
        return await asyncio.gather(*map(self.part, self._probes))

    async def part(self, name: str) -> Part:
        probe, look = self._probes[name], self._looks.get(name)
        if look is None or look.done():
            look = self._looks[name] = Future()
            Thread(target=_look, args=(probe, look), name=f"probe {name}", daemon=True).start()
        done, _ = await asyncio.wait([asyncio.wrap_future(look)], timeout=LIMIT_S)
        if done:
            return done.pop().result()
        detail = f"{probe.noun} did not answer within {LIMIT_S:g} s."
        return Part(name=name, state="failed", required=probe.required, detail=detail)


def _look(probe: Probe, result: Future[Part]) -> None:
    try:
        state, detail = probe.look()
    except ServiceError as error:
        state, detail = "failed", error.detail
    except Exception as error:  # noqa: BLE001  the request raises it
        result.set_exception(error)
        return
    part = Part(name=probe.name, state=state, required=probe.required, detail=detail)
    result.set_result(part)


async def probes(request: Request) -> Probes:
    # FastAPI would call a plain function in a thread, and wait for a free one.
    found: Probes = request.app.state.probes
    return found


ProbesDep = Annotated[Probes, Depends(probes)]
