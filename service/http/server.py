"""The HTTP server: uvicorn with limits on connections, sizes and times, and with callbacks."""

import asyncio
import contextlib
import resource
import socket
import sys
import time
import weakref
from collections import Counter
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from types import FrameType
from typing import NamedTuple

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import (
    BadRequest,
    HeadTooLarge,
    RequestTimeout,
    ServiceError,
    TooManyConnections,
)
from service.http import problems
from service.http.middleware import HEADERS
from service.settings import Settings
from service.storage.columns import new_id

#: Computes the head and the body of an answer from the body of a request; None if that would take
#: too long.
Compute = Callable[[bytes], tuple[bytes, bytes] | None]
TICK_S = 1.0  # seconds between two searches for slow connections and updates of `Date`
TURNS = 5  # turns of the event loop; an accepted socket becomes a connection within three
STOP_S = 3  # seconds for the requests that are in progress when the server stops
IDLE_S = 30  # seconds after which a connection without a request is closed
BACKLOG = 2048  # connections that wait to be accepted

access_log = structlog.get_logger("service.access")
logger = structlog.get_logger(__name__)


def _nothing() -> None:
    return


class Server(uvicorn.Server):
    """Serves the app.

    Calls `on_up` when it listens, `on_stop` when it begins to stop, and `on_hurry` at a second
    signal.
    """

    config: "Config"

    def __init__(
        self,
        app: FastAPI,
        *,
        on_up: Callable[[], None] = _nothing,
        on_stop: Callable[[], None] = _nothing,
        on_hurry: Callable[[], None] = _nothing,
    ) -> None:
        super().__init__(Config(app, app.state.settings))
        self._end_streams: Callable[[], None] = app.state.end_streams
        self._on_up = on_up
        self._on_stop = on_stop
        self._on_hurry = on_hurry
        self._stopped_at: float | None = None
        self._is_ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  uvicorn's names
        """Stop gracefully at the first signal, and at once at the second.

        uvicorn's own handler raises the signal again when the server has ended, which would kill
        this process before it has stopped its worker.
        """
        if self.should_exit:
            self.force_exit = True
            self._on_hurry()
        self.stop()

    def stop(self) -> None:
        """Stop the server. Any thread may call this."""
        self.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._is_ending.set)

    async def main_loop(self) -> None:
        """Set the date and close slow connections each second, until the server must stop.

        uvicorn's own loop wakes up ten times a second to see whether it must stop.
        """
        while not await self.on_tick(0):
            self._close_slow_connections()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_ending.wait(), TICK_S)

    def _close_slow_connections(self) -> None:
        now = time.monotonic()
        for connection in list(self.server_state.connections):
            connection.close_if_slow(now)  # type: ignore[union-attr]
        refused = self.config.refused
        for code, count in refused.items():
            logger.warning("connections refused", code=code, connections=count)
        refused.clear()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._on_up()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopped_at = time.monotonic()
        self._on_stop()
        # Otherwise an open stream would delay the end until its client disconnects.
        self._end_streams()
        for server in self.servers:
            server.close()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
        elif not self.force_exit:  # uvicorn would first wait for a tenth of a second
            await self.lifespan.shutdown()

    def stopping_for(self) -> float:
        """Return the seconds since the server began to stop; 0 before that."""
        return 0.0 if self._stopped_at is None else time.monotonic() - self._stopped_at


class Config(uvicorn.Config):
    """uvicorn's configuration with our limits, which all connections of a server share."""

    def __init__(self, app: FastAPI, settings: Settings) -> None:
        super().__init__(
            app,
            http=Protocol,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="on",
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_graceful_shutdown=STOP_S,
            timeout_keep_alive=IDLE_S,
            backlog=BACKLOG,
        )
        self.max_connections = max_connections(settings)
        self.max_head_bytes = settings.max_head_bytes
        self.timeouts = {
            RequestPart.HEAD: settings.head_timeout_s,
            RequestPart.TRAILERS: settings.head_timeout_s,
            RequestPart.BODY: settings.body_timeout_s,
        }
        #: code of the error → connections that were closed with it since the last log line
        self.refused: Counter[str] = Counter()


def max_connections(settings: Settings) -> int:
    """Return the limit of open connections.

    The default is half of the limit of open files: an upload needs a file beside its connection,
    and the database and the blob store need files too.
    """
    if settings.max_connections is not None:
        return settings.max_connections
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if files == resource.RLIM_INFINITY else max(1, files // 2)


class RequestPart(Enum):
    """The part of a request that the client has to send next."""

    HEAD = auto()
    BODY = auto()
    #: a chunk without data, such as the last chunk, which precedes the trailers
    TRAILERS = auto()


class Held(NamedTuple):
    """A request that gets its answer at once when its body is complete."""

    cycle: RequestResponseCycle
    app: ASGI3Application
    compute: Compute


class Protocol(HttpToolsProtocol):
    """One connection: answers small predictions at once and refuses requests that break a limit.

    Every other request becomes a task that writes its answer in one piece.
    """

    config: Config
    _held: Held | None = None
    #: the end of the head of an answer, which holds the date, and the headers it was made from
    _end_of_head = b""
    _headers_written: list[tuple[bytes, bytes]] | None = None
    #: the last request that arrived completely
    _complete: RequestResponseCycle | None = None
    #: whether a chunk has begun and none of its bytes has arrived; the last chunk has no bytes
    _in_empty_chunk = False
    #: the part that the client has to send next, and its owner, as `_awaited` gives them
    _part: RequestPart | None = RequestPart.HEAD
    _owner: object = None
    #: bytes of this part that have arrived; the parser collects them in memory. This counts whole
    #: reads of up to 256 KiB, without the read in which the part began.
    _unfinished = 0
    #: when the wait for this part began; None until the next call of `close_if_slow`
    _since: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.config.max_connections:
            self._refuse(TooManyConnections())

    def data_received(self, data: bytes) -> None:
        HttpToolsProtocol.data_received(self, data)
        cycle = self.cycle
        # For a request that arrived in one read, the limits cost this comparison only.
        if cycle is None or cycle is not self._complete or cycle.scope is not self.scope:
            self._count(len(data))

    def _count(self, received: int) -> None:
        """Count the bytes of a part of a request that is not complete."""
        part, owner = self._awaited()
        if part is self._part and owner is self._owner:
            self._unfinished += received
        else:
            self._begin(part, owner)
        if self._unfinished > self.config.max_head_bytes:
            self._refuse(_too_large(self.config.max_head_bytes))

    def _begin(self, part: RequestPart | None, owner: object) -> None:
        self._part, self._owner, self._unfinished, self._since = part, owner, 0, None

    def _awaited(self) -> tuple[RequestPart | None, object]:
        """Return the part of a request that the client has to send next, and the part's owner.

        The pair is different for each part of a connection. Both are None after a complete
        request: then the server has to act.
        """
        cycle = self.cycle
        if cycle is None or cycle.scope is not self.scope:
            return RequestPart.HEAD, self.scope
        if cycle is not self._complete:
            return (RequestPart.TRAILERS if self._in_empty_chunk else RequestPart.BODY), cycle
        if cycle.response_complete and self.timeout_keep_alive_task is None:
            # The timer of the idle connection was cancelled: by line breaks, which may precede a
            # request, or by the end of a body after its answer.
            return RequestPart.HEAD, cycle
        return None, None

    def on_chunk_header(self) -> None:
        self.headers = []  # collects the trailers, which are not headers; no code reads them
        self._in_empty_chunk = True
        self._begin(RequestPart.TRAILERS, self.cycle)

    def on_body(self, body: bytes) -> None:
        self._owner, self._in_empty_chunk = None, False  # so the next count begins anew
        HttpToolsProtocol.on_body(self, body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        compute = None
        if cycle.more_body and cycle.keep_alive and not cycle.waiting_for_100_continue:
            compute = self.config.app.at_once(cycle.scope)  # type: ignore[union-attr]
        if compute is None:
            self._start(cycle, app)
        else:
            self._held = Held(cycle, app, compute)

    def _start(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # If two requests arrived in one read, the answer to the first has started the timer.
        self._unset_keepalive_if_required()
        if cycle.scope["method"] != "HEAD":
            cycle.transport = Whole(self.transport, cycle)  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        self._complete, self._in_empty_chunk = self.cycle, False
        HttpToolsProtocol.on_message_complete(self)
        if self._held is not None:
            held, self._held = self._held, None
            self._answer(held)

    def _answer(self, held: Held) -> None:
        """Answer a request without a task."""
        cycle = held.cycle
        found = None
        if cycle.keep_alive and not self.flow.write_paused:
            found = held.compute(bytes(cycle.body))
        if found is None:
            self._start(cycle, held.app)
            return
        head, body = found
        if cycle.default_headers is not self._headers_written:  # once a second
            self._headers_written = cycle.default_headers
            self._end_of_head = b"".join(b"%s: %s\r\n" % pair for pair in cycle.default_headers)
            self._end_of_head += b"\r\n"
        cycle.response_started = cycle.response_complete = True
        self.transport.write(head + self._end_of_head + body)
        self.on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._held is not None:  # the app cannot answer, but it logs the request
            self._start(self._held.cycle, self._held.app)
            self._held = None

    def close_if_slow(self, now: float) -> None:
        """Close the connection if its client is too slow. The server calls this each second."""
        part, owner = self._awaited()
        if part is None:
            return
        if part is not self._part or owner is not self._owner:
            self._begin(part, owner)
        if self._since is None or self._waits_for_us(part):
            self._since = now
        elif now - self._since >= self.config.timeouts[part]:
            self._refuse(_too_slow(part, self.config.timeouts[part]))

    def _waits_for_us(self, part: RequestPart) -> bool:
        """Return whether the client cannot send more, or need not send more yet."""
        if self.flow.read_paused:
            return True
        if self.cycle is None or self.cycle.response_complete:
            return False
        # The client may send its next request after this answer, and its body after `100 Continue`.
        return part is RequestPart.HEAD or self.cycle.waiting_for_100_continue

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's sentence
        detail = "The request is not HTTP: its first line, a header or a chunk is malformed."
        self._refuse(BadRequest(detail))

    def _refuse(self, error: ServiceError) -> None:
        """Answer with an error, unless another answer has begun, and close the connection.

        After a refused request the parser cannot find the start of the next one.
        """
        if self.transport.is_closing():
            return
        cycle, is_between = self.cycle, self._awaited()[0] in {None, RequestPart.HEAD}
        is_free = cycle is None or not cycle.response_started
        if is_free or (is_between and cycle.response_complete):
            self.transport.write(_refusal(error))
        self.config.refused[error.code] += 1
        self.transport.close()


class Whole:
    """A transport that sends the head of an answer together with the first part of its body.

    Each write is a system call and wakes the client, and uvicorn makes two writes of the shortest
    answer. A head without a length, such as that of a stream, is sent at once.
    """

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = weakref.ref(cycle)  # otherwise each answer would be a reference cycle
        #: the head; None until it is written, empty once it is sent
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        cycle = self._cycle()
        if self._head is None and cycle is not None and cycle.chunked_encoding is False:
            self._head = data  # the first write of an answer with a length is its head
            return
        if self._head:
            data, self._head = self._head + data, b""
        self._transport.write(data)

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


def _too_large(most: int) -> HeadTooLarge:
    return HeadTooLarge(
        f"The URL and the headers, or the trailers, have more than {most} bytes: send less, or"
        " raise DESCENT_MAX_HEAD_BYTES."
    )


def _too_slow(part: RequestPart, seconds: float) -> RequestTimeout:
    if part is RequestPart.BODY:
        detail = f"No byte of the body arrived for {seconds:g} s: send the request again."
    else:
        name = "head" if part is RequestPart.HEAD else "trailers"
        detail = f"The {name} of the request did not end within {seconds:g} s: send it again."
    return RequestTimeout(detail)


def _refusal(error: ServiceError) -> bytes:
    """Return the bytes of an answer to a request that never reaches the app."""
    request_id = new_id("req")
    access_log.debug("refused", status=error.status, code=error.code, request_id=request_id)
    answer = problems.render(error, instance=None, request_id=request_id)
    headers = {
        **dict(answer.raw_headers),
        **HEADERS,
        b"cache-control": b"no-store",
        b"x-request-id": request_id.encode(),
        b"connection": b"close",
    }
    status = HTTPStatus(error.status)
    first = f"HTTP/1.1 {status.value} {status.phrase}".encode()
    lines = [first, *(b"%s: %s" % pair for pair in headers.items())]
    return b"\r\n".join([*lines, b"", bytes(answer.body)])


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises an OSError that names the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise OSError(
            f"cannot listen on {host} port {port} ({error.strerror}):"
            " choose others with DESCENT_HOST and DESCENT_PORT"
        ) from error


def url_of(listener: socket.socket, settings: Settings) -> str:
    """Return the address at which a client on this machine reaches the server."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  never bound here
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{name}:{listener.getsockname()[1]}"
