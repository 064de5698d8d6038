"""The strict route, which checks each request in a fixed order, and idempotent requests.

The order is: key, query, content type, size, strict JSON, then the schema. FastAPI would read a
body before it checks the key, so these steps precede the framework.

Of the requests with one `Idempotency-Key` the first is carried out, and its repetitions get the
stored response. The row of the key is committed first, *in flight* with a lease. The transaction of
the request also writes the response, and only if the request still holds the lease, so its changes
and its response exist both or neither. Leases and expiry follow the database's clock.
"""

import json
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import Any, Literal, Protocol, TypeVar

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel
from sqlalchemy import Engine, String, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column
from starlette.types import Message, Receive, Scope, Send

from models.failpoints import reach
from service.errors import Conflict, Invalid, ServiceError, TooLarge, Unauthorized, UnsupportedMedia
from service.http import validation
from service.http.validation import strict_json
from service.settings import Settings
from service.storage.columns import Id, Json, SqlTable
from service.storage.database import row_count, time_of_day, writing

__all__ = [
    "Keys",
    "StrictRoute",
    "any_query",
    "authenticate",
    "bearer",
    "begin_upload",
    "body_chunks",
    "body_limit",
    "has_etag",
    "heeds_match",
    "not_idempotent",
    "open_route",
    "read_body",
    "router",
    "shown_once",
    "streams_body",
    "strict_json",
    "too_large",
]

LEASE = timedelta(seconds=60)  # enough for every request but an upload
KEPT = timedelta(hours=24)  # how long a response is stored
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
#: headers that are part of a stored response
STORED_HEADERS = ("location", "etag", "content-type", "link")

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
Limit = Literal["json", "predict", "bundle"]
#: kind of body → the setting that limits it
LIMITS: dict[Limit, str] = {
    "json": "max_json_bytes",
    "predict": "max_predict_bytes",
    "bundle": "max_bundle_bytes",
}
PARSED_INLINE = 64 * 1024  # bytes; a thread parses a larger document


@dataclass(frozen=True)
class Marks:
    """The properties in which a route differs from others."""

    #: answers without a key
    is_open: bool = False
    #: reads the body of the request itself
    streams_body: bool = False
    #: a POST that makes or changes something, so it heeds Idempotency-Key
    is_idempotent: bool = True
    limit: Limit = "json"
    #: answers with an ETag, and with 304 if If-None-Match names it
    has_etag: bool = False
    #: heeds If-Match, so a client cannot overwrite a change that it has not seen
    heeds_match: bool = False
    #: ignores unknown fields in the query, as every open route does
    takes_any_query: bool = False
    #: fields of the answer that are not stored: a replay has null in their place
    secrets: tuple[str, ...] = ()


_MARKS: dict[Callable[..., Any], Marks] = {}


class Keys(Protocol):
    """Finds the caller that a secret belongs to; None stands for a request without a secret."""

    def known(self, secret: str | None) -> str | None:
        """Return the caller, or None if only the database can tell."""
        ...

    def caller(self, secret: str | None) -> str:
        """Return the caller. Raises Unauthorized."""
        ...


def marks_of(endpoint: Callable[..., Any]) -> Marks:
    return _MARKS.get(endpoint, Marks())


def _mark(endpoint: Endpoint, **changes: bool | Limit | tuple[str, ...]) -> Endpoint:
    """Change fields of the marks of a route."""
    _MARKS[endpoint] = replace(marks_of(endpoint), **changes)  # type: ignore[arg-type]
    return endpoint


def open_route(endpoint: Endpoint) -> Endpoint:
    """Mark a route that needs no key."""
    return _mark(endpoint, is_open=True)


def streams_body(endpoint: Endpoint) -> Endpoint:
    """Mark a route that reads its body itself; with `begin_upload` it may be idempotent too."""
    return _mark(endpoint, streams_body=True)


def not_idempotent(endpoint: Endpoint) -> Endpoint:
    """Mark a POST that changes nothing, so that it ignores Idempotency-Key."""
    return _mark(endpoint, is_idempotent=False)


def body_limit(limit: Limit) -> Callable[[Endpoint], Endpoint]:
    """Choose the setting that limits the JSON body of a route."""
    return lambda endpoint: _mark(endpoint, limit=limit)


def has_etag(endpoint: Endpoint) -> Endpoint:
    """Mark a GET that answers with an ETag, and with 304 to a client that has the ETag."""
    return _mark(endpoint, has_etag=True)


def heeds_match(endpoint: Endpoint) -> Endpoint:
    """Mark a route that checks If-Match."""
    return _mark(endpoint, heeds_match=True)


def any_query(endpoint: Endpoint) -> Endpoint:
    """Mark a route that ignores unknown fields in the query."""
    return _mark(endpoint, takes_any_query=True)


def shown_once(*fields: str) -> Callable[[Endpoint], Endpoint]:
    """Name fields of an answer that must not be stored, so that a replay has null there."""
    return lambda endpoint: _mark(endpoint, secrets=fields)


def router(prefix: str = "", *, tags: list[str | Any] | None = None) -> APIRouter:
    """Return a router whose routes are strict. The marks go below the route's decorator."""
    return APIRouter(prefix=prefix, tags=tags, route_class=StrictRoute)


class StrictRequest(Request):
    """A request whose body is already read and parsed."""

    raw: bytes = b""
    parsed: object = None

    async def body(self) -> bytes:
        return self.raw

    async def json(self) -> object:
        return self.parsed


class StrictRoute(APIRoute):
    """A route that checks a request in the order that api.md gives."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        marks, reads_body = marks_of(self.endpoint), self.body_field is not None
        takes_any_query = marks.is_open or marks.takes_any_query
        known = query_names(self.dependant)

        async def answer(request: Request) -> Response:
            if not marks.is_open:
                await authenticate(request)
            if request.scope["query_string"] and not takes_any_query:
                _check_query(request, known)
            if not marks.streams_body:
                request = await _checked(request, marks, reads_body=reads_body)
            if request.method == "POST" and marks.is_idempotent:
                return await _once(request, handle, marks)
            return await handle(request)

        return answer

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; free its Idempotency-Key before the client learns of a failure."""
        if scope["method"] != "POST":
            await super().handle(scope, receive, send)
            return
        state = scope.setdefault("state", {})

        async def sent(message: Message) -> None:
            # FastAPI has closed the session by now, so a COMMIT that failed is an error here.
            if message["type"] == "http.response.start":
                if message["status"] >= 400:
                    await _release(state)
                state.pop("claim", None)
            await send(message)

        try:
            await super().handle(scope, receive, sent)
        except BaseException:
            await _release(state)
            raise


def query_names(route: Dependant) -> tuple[str, ...]:
    """Return the names that the query of a route may have, those of its dependencies included."""
    names: dict[str, None] = {}
    found = deque([route])
    while found:
        dependant = found.popleft()
        found.extend(dependant.dependencies)
        for field in dependant.query_params:
            model = field.field_info.annotation
            if isinstance(model, type) and issubclass(model, BaseModel):
                names |= {each.alias or name: None for name, each in model.model_fields.items()}
            else:
                names[field.alias] = None
    return tuple(names)


def _check_query(request: Request, known: Sequence[str]) -> None:
    """Raise Invalid if the query has fields that the route does not know."""
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        raise validation.unknown_query(unknown, known)


def bearer(headers: list[str]) -> str | None:
    """Return the secret of the `Authorization` headers of a request; None if there is none."""
    if not headers:
        return None
    scheme, _, secret = headers[0].partition(" ")
    if len(headers) > 1 or scheme.lower() != "bearer" or not secret.strip():
        raise Unauthorized("The Authorization header cannot be read")
    return secret.strip()


async def authenticate(request: Request) -> str:
    """Return the caller; raise Unauthorized. A thread queries the database where that is needed."""
    caller: str | None = getattr(request.state, "caller", None)
    if caller is not None:
        return caller
    ring: Keys = request.app.state.keys
    secret = bearer(request.headers.getlist("authorization"))
    if (found := ring.known(secret)) is None:
        found = await run_sync(ring.caller, secret)
    request.state.caller = found
    return found


async def read_body(request: Request, limit: Limit = "json") -> bytes:
    """Return the body; raise TooLarge, before reading it if its length is announced."""
    body = bytearray()
    async for chunk in body_chunks(request, limit):
        body += chunk
    return bytes(body)


async def body_chunks(request: Request, limit: Limit) -> AsyncIterator[bytes]:
    """Yield the body as it arrives; raise TooLarge as soon as the size is known to be too large."""
    settings: Settings = request.app.state.settings
    most: int = getattr(settings, LIMITS[limit])
    announced = request.headers.get("content-length", "0")
    if len(announced) > 18 or (announced.isdigit() and int(announced) > most):
        raise too_large(limit, most)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise too_large(limit, most)
        yield chunk


def too_large(limit: Limit, most: int) -> TooLarge:
    name = LIMITS[limit].upper()
    return TooLarge(
        f"The body is larger than {most} bytes: send less, or raise DESCENT_{name}.",
        limit=most,
    )


async def _checked(request: Request, marks: Marks, *, reads_body: bool) -> StrictRequest:
    """Return the request with its body parsed. A route without a body field accepts only `{}`."""
    checked = StrictRequest(request.scope, request.receive)
    has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
    if not reads_body and (request.method in {"GET", "HEAD", "DELETE"} or not has_body):
        return checked
    if reads_body or request.headers.get("content-length") != "0":
        _check_content_type(request)
        checked.raw = await read_body(request, marks.limit)
    if reads_body or checked.raw:
        is_large = len(checked.raw) > PARSED_INLINE
        parse = run_sync(strict_json, checked.raw) if is_large else None
        checked.parsed = await parse if parse else strict_json(checked.raw)
    if not reads_body and checked.parsed not in (None, {}):
        raise Invalid("This request takes no body: send none, or {}.", code="unexpected_body")
    return checked


def _check_content_type(request: Request) -> None:
    media_type, _, parameters = request.headers.get("content-type", "").partition(";")
    charset = parameters.strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise UnsupportedMedia(
            "Send the body as `Content-Type: application/json` in UTF-8, got"
            f" {request.headers.get('content-type', '')[:100]!r}."
        )
    if (encoding := request.headers.get("content-encoding", "identity")) != "identity":
        raise UnsupportedMedia(f"A JSON body cannot be compressed, got {encoding[:40]!r}.")


# ---- idempotency --------------------------------------------------------------------------------


class IdempotencyKey(SqlTable):
    """A request with an idempotency key: its fingerprint and, after it has ended, its response."""

    __tablename__ = "idempotency_keys"

    caller: Mapped[str] = mapped_column(Id, primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    #: NULL while the first request is in flight
    status: Mapped[int | None]
    headers: Mapped[Json | None]
    body: Mapped[str | None]
    #: when the first request loses the key, and when the response is deleted
    lease_until: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


@dataclass(frozen=True)
class StoredResponse:
    """The stored response of the first request."""

    status: int
    headers: dict[str, str]
    body: str


@dataclass(frozen=True)
class Claim:
    """The right to carry out the request of a key until the lease ends."""

    engine: Engine
    caller: str
    key: str
    lease_until: datetime

    def store(self, session: Session | None, stored: StoredResponse) -> None:
        """Store the response, in the transaction of the request if there is one.

        A request that continues after its transaction stores its present state, and its end later.
        """
        if session is None:
            with writing(self.engine) as own:
                self._store(own, stored)
        else:
            self._store(session, stored)

    def release(self) -> None:
        """Free the key: the request failed, so it may be tried again."""
        with writing(self.engine) as session:
            session.execute(delete(IdempotencyKey).where(*self._mine()))

    def _store(self, session: Session, stored: StoredResponse) -> None:
        values = {"status": stored.status, "headers": stored.headers, "body": stored.body}
        result = session.execute(update(IdempotencyKey).where(*self._mine()).values(**values))
        if row_count(result) != 1:
            raise Conflict(
                "The request took so long that another request has got its idempotency key.",
                code="idempotency_lease_lost",
            )

    def _mine(self) -> tuple[Any, ...]:
        return (
            IdempotencyKey.caller == self.caller,
            IdempotencyKey.key == self.key,
            IdempotencyKey.lease_until == self.lease_until,
        )


def checked_key(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise Invalid(
            "Idempotency-Key must have 1 to 255 visible ASCII characters,"
            f" got {len(key)} characters: {key[:40]!r}.",
            code="invalid_idempotency_key",
        )
    return key


def canonical(body: object) -> bytes:
    """Return the canonical form of a body: equal documents give equal bytes."""
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()


def begin_claim(
    engine: Engine,
    caller: str,
    key: str,
    fingerprint: str,
    *,
    lease: timedelta = LEASE,
    now: datetime | None = None,
) -> Claim | StoredResponse:
    """Return the stored response, or the right to carry out the request.

    Raises Invalid for another request under the same key, Conflict while the first is in flight.
    """
    try:
        with writing(engine) as session:
            time = now or time_of_day(session)
            return _begin_claim(
                session, Claim(engine, caller, key, time + lease), fingerprint, time
            )
    except IntegrityError:
        # Another request committed this key between our SELECT and our INSERT.
        raise _in_flight(lease) from None


def _begin_claim(
    session: Session, claim: Claim, fingerprint: str, time: datetime
) -> Claim | StoredResponse:
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.expires_at <= time))
    row = session.scalars(
        select(IdempotencyKey)
        .where(IdempotencyKey.caller == claim.caller, IdempotencyKey.key == claim.key)
        .with_for_update()
    ).one_or_none()
    if row is None:
        session.add(
            IdempotencyKey(
                caller=claim.caller,
                key=claim.key,
                fingerprint=fingerprint,
                lease_until=claim.lease_until,
                expires_at=time + KEPT,
            )
        )
        return claim
    if row.status is None and row.lease_until <= time:
        row.fingerprint, row.lease_until = fingerprint, claim.lease_until
        row.expires_at = time + KEPT
        return claim
    if row.fingerprint != fingerprint:
        raise Invalid(
            f"The Idempotency-Key {claim.key!r} was used for another request: use a new one.",
            code="idempotency_key_reused",
        )
    if row.status is None:
        raise _in_flight(row.lease_until - time)
    return StoredResponse(row.status, dict(row.headers or {}), row.body or "")


def _in_flight(left: timedelta) -> Conflict:
    return Conflict(
        "The first request with this Idempotency-Key is still in flight: wait, then send it again.",
        code="in_flight",
        headers={"Retry-After": "1"},
        lease_left_s=round(left.total_seconds(), 3),
    )


async def _once(request: Request, handle: Handler, marks: Marks) -> Response:
    """Answer a POST, at most once for each Idempotency-Key."""
    if "idempotency-key" not in request.headers:
        return await handle(request)
    if marks.streams_body:
        checked_key(request.headers["idempotency-key"])
    elif (replayed := await _begin(request, canonical(await request.json()))) is not None:
        return replayed
    response = await handle(request)
    claim: Claim | None = getattr(request.state, "claim", None)
    if claim is not None and response.status_code < 400:
        session = getattr(request.state, "session", None)
        await run_sync(claim.store, session, _stored(response, marks.secrets))
    return response


async def begin_upload(request: Request, digest: str) -> Response | None:
    """Return the stored response to an upload with this SHA-256, if there is one.

    Routes that stream their body call this before they create anything.
    """
    if "idempotency-key" not in request.headers:
        return None
    return await _begin(request, digest.encode())


def keep_response(request: Request, session: Session, response: Response) -> None:
    """Store the answer to an upload, in case its request never ends.

    Call this in the transaction that accepts the upload: then the same upload is accepted once.
    """
    claim: Claim | None = getattr(request.state, "claim", None)
    if claim is not None:
        claim.store(session, _stored(response))


async def _begin(request: Request, body: bytes) -> Response | None:
    key = checked_key(request.headers["idempotency-key"])
    engine: Engine = request.app.state.engine
    target = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    fingerprint = sha256(target + body).hexdigest()
    settings: Settings = request.app.state.settings
    lease = timedelta(seconds=settings.idempotency_lease_s)
    begin = partial(begin_claim, lease=lease)
    found = await run_sync(begin, engine, await authenticate(request), key, fingerprint)
    if isinstance(found, Claim):
        reach("idempotency.begun")
        request.state.claim = found
        return None
    headers = found.headers | {"Idempotency-Replayed": "true"}
    return Response(found.body, found.status, headers)


def _stored(response: Response, secrets: Sequence[str] = ()) -> StoredResponse:
    headers = {name: value for name, value in response.headers.items() if name in STORED_HEADERS}
    body = bytes(getattr(response, "body", b"")).decode()
    if secrets:
        body = json.dumps(json.loads(body) | dict.fromkeys(secrets))
    return StoredResponse(response.status_code, headers, body)


async def _release(state: dict[str, Any]) -> None:
    """Free the key of a request that failed, if it has claimed one and stored no response."""
    claim: Claim | None = state.pop("claim", None)
    if claim is not None:
        with suppress(ServiceError):  # the lease will free it
            await run_sync(claim.release)
