"""The outermost layer of every request, and the metrics of requests.

The layer gives each request an id and a log line, and checks Host, Origin and size.

Plain ASGI, because Starlette's BaseHTTPMiddleware costs more than the routes that it wraps.
"""

import re
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from itertools import accumulate
from operator import add
from threading import Lock
from typing import Any

import structlog
from fastapi.routing import iter_route_contexts
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs
from service.errors import BadRequest, Forbidden, HeadTooLarge, ServiceError
from service.http import problems
from service.settings import LOOPBACK, Settings
from service.storage.columns import new_id

#: headers of every answer, unless its route sets others
HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
}
ANYWHERE = frozenset({"0.0.0.0", "::", ""})  # noqa: S104  only compared, never bound
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
#: the media type of Prometheus' text format
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
#: seconds; a prediction takes about a millisecond, an upload minutes
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
logger = structlog.get_logger("service.access")

#: called for each answer with method, route, status and seconds
Observe = Callable[[str, str, int, float], None]


class Gate:
    """Gives each request an id and a log line, and checks its origin and size."""

    def __init__(self, app: ASGIApp, settings: Settings, observe: Observe) -> None:
        self._app = app
        self._observe = observe
        self._hosts = allowed_hosts(settings)
        self._max_head_bytes = settings.max_head_bytes
        self._prefix = settings.root_path.rstrip("/")
        #: endpoint → the template of its path; the first request fills it
        self._templates: dict[Callable[..., Any], str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, request_id = time.perf_counter(), new_id("req")
        scope.setdefault("state", {})["request_id"] = request_id
        scope["root_path"] = self._prefix
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        answer = Answer(send, request_id, self._prefix.encode())
        try:
            await self._pass(scope, receive, answer)
        finally:
            route, seconds = self._route_of(scope), time.perf_counter() - began
            report(self._observe, scope, route, answer.status, seconds)

    async def _pass(self, scope: Scope, receive: Receive, answer: "Answer") -> None:
        request = Request(scope)
        try:
            check_size(scope, self._max_head_bytes)
            check_origin(request, self._hosts)
            await self._app(scope, receive, answer)
        except ServiceError as error:
            await problems.respond(request, error)(scope, receive, answer)
        except ClientDisconnect:
            answer.status = answer.status or 499  # nginx's status for a client that has left
        except Exception:
            logger.exception("unexpected")
            if answer.status:
                raise  # the answer has begun, so only a closed connection can show the failure
            response = problems.respond(request, problems.unexpected())
            await response(scope, receive, answer)

    def _route_of(self, scope: Scope) -> str:
        """Return the template of the path, because clients can send endlessly many paths."""
        if not self._templates and "app" in scope:
            for context in iter_route_contexts(scope["app"].routes):
                if context.endpoint is not None:
                    self._templates[context.endpoint] = context.path or ""
        return self._templates.get(scope.get("endpoint"), "unmatched")  # type: ignore[arg-type]


def report(observe: Observe, scope: Scope, route: str, status: int, seconds: float) -> None:
    """Count and log an answer. Every answer passes through this function."""
    observe(scope["method"], route, status, seconds)
    state: MutableMapping[str, Any] = scope["state"]
    logs.access(
        state["request_id"],
        method=scope["method"],
        route=route,
        path=scope["path"][:500],
        status=status,
        caller=state.get("caller"),
        duration_ms=round(seconds * 1000, 2),
    )


class Answer:
    """Sends an answer with the headers that all answers have."""

    def __init__(
        self, send: Callable[[Message], Awaitable[None]], request_id: str, prefix: bytes
    ) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self._prefix = prefix
        #: 0 until the answer begins
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [self._prefixed(pair) for pair in message.get("headers", ())]
            given = {name.lower() for name, _value in headers}
            headers += [pair for pair in HEADERS.items() if pair[0] not in given]
            if b"cache-control" not in given:
                keep = b"private, no-cache" if b"etag" in given else b"no-store"
                headers.append((b"cache-control", keep))
            headers.append((b"x-request-id", self._request_id))
            message = {**message, "headers": headers}
        await self._send(message)

    def _prefixed(self, header: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
        # Routes do not know the prefix under which a proxy publishes them.
        name, value = header
        if name.lower() == b"location" and value.startswith(b"/"):
            return name, self._prefix + value
        return header


def check_size(scope: Scope, most: int) -> None:
    """Raise HeadTooLarge. The server itself notices only with the read after the limit."""
    size = len(scope.get("raw_path", b"")) + len(scope["query_string"])
    size += sum(len(name) + len(value) for name, value in scope["headers"])
    if size > most:
        raise HeadTooLarge(
            f"The URL and the headers have {size} bytes, more than the limit of {most}: send less,"
            " or raise DESCENT_MAX_HEAD_BYTES."
        )


def allowed_hosts(settings: Settings) -> frozenset[str]:
    own = () if settings.host in ANYWHERE else (settings.host,)
    return frozenset(name.lower() for name in (*LOOPBACK, *own, *settings.allowed_hosts))


def check_origin(request: Request, hosts: frozenset[str]) -> None:
    """Raise Forbidden for a Host that is not ours and for a page of another site.

    Without the check of Host a foreign name that resolves to this address (DNS rebinding) would
    make browsers send requests.
    """
    given = request.headers.getlist("host")
    if len(given) != 1:
        raise BadRequest(f"Send one Host header, got {len(given)}.", code="malformed_header")
    check_host(given[0], hosts)
    origin = request.headers.get("origin")
    if origin is not None and not _is_same(origin, given[0]):
        raise Forbidden(
            f"Requests of pages from {origin[:100]!r} are refused.", code="forbidden_origin"
        )
    if request.headers.get("sec-fetch-site") == "cross-site":
        raise Forbidden("Requests of pages of other sites are refused.", code="forbidden_origin")
    if b"%00" in request.scope["query_string"] or b"%00" in request.scope.get("raw_path", b""):
        raise BadRequest("The URL holds the NUL character (%00): remove it.", code="nul")


def check_host(given: str, hosts: frozenset[str]) -> None:
    """Raise BadRequest or Forbidden for a Host header that is not ours."""
    if not _HOST.fullmatch(given):
        raise BadRequest("The Host header is not a host name.", code="malformed_header")
    host = _name_of(given)
    if "*" not in hosts and host not in hosts:
        raise Forbidden(
            f"The host {host[:100]!r} is not served here: add it to DESCENT_ALLOWED_HOSTS.",
            code="forbidden_host",
        )


def _name_of(host: str) -> str:
    name = host.lower()
    return name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]


def _is_same(origin: str, host: str) -> bool:
    scheme, _, place = origin.lower().partition("://")
    port = {"http": ":80", "https": ":443"}.get(scheme)
    # A proxy that terminates TLS forwards the Host without a port, so either side may omit the
    # default port of the scheme.
    return port is not None and place.removesuffix(port) == host.lower().removesuffix(port)


# ---- metrics ------------------------------------------------------------------------------------


class Telemetry:
    """The metrics of one service, with their own registry: a process can hold two services."""

    def __init__(self, *others: Collector) -> None:
        self._registry = CollectorRegistry()
        self._requests = _Requests()
        for each in (self._requests, *others):
            self._registry.register(each)

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        # Clients can invent methods, and the values of a label are never dropped.
        method = method if method in METHODS else "other"
        self._requests.add((method, route, status), seconds)

    def text(self) -> bytes:
        return generate_latest(self._registry)


class _Requests(Collector):
    """Requests by method, route and status; counts three times as fast as the library."""

    def __init__(self) -> None:
        self._lock = Lock()
        #: the sum of the seconds, and the number of requests in each bucket of BUCKETS
        self._tallies: dict[tuple[str, str, int], tuple[list[float], list[int]]] = {}

    def add(self, labels: tuple[str, str, int], seconds: float) -> None:
        with self._lock:
            tally = self._tallies.get(labels)
            if tally is None:
                tally = self._tallies[labels] = [0.0], [0] * (len(BUCKETS) + 1)
            tally[0][0] += seconds
            tally[1][bisect_left(BUCKETS, seconds)] += 1

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            found = {key: (sums[0], list(counts)) for key, (sums, counts) in self._tallies.items()}
        answers = CounterMetricFamily(
            "descent_requests", "Requests answered.", labels=("method", "route", "status")
        )
        times: dict[tuple[str, str], tuple[float, list[int]]] = {}
        for (method, route, status), (seconds, counts) in found.items():
            answers.add_metric([method, route, str(status)], sum(counts))
            so_far = times.get((method, route), (0.0, [0] * len(counts)))
            times[method, route] = so_far[0] + seconds, list(map(add, so_far[1], counts))
        yield answers
        durations = HistogramMetricFamily(
            "descent_request_duration_seconds",
            "Time to answer a request.",
            labels=("method", "route"),
        )
        bounds = [*map(str, map(float, BUCKETS)), "+Inf"]
        for labels, (seconds, counts) in times.items():
            buckets = list(zip(bounds, accumulate(counts), strict=True))
            durations.add_metric(labels, buckets=buckets, sum_value=seconds)
        yield durations
