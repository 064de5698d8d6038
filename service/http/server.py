"""The HTTP server: uvicorn with our limits, which tells when it is up and when it must stop."""

import asyncio
import contextlib
import socket
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import NamedTuple

import structlog
import uvicorn
from fastapi import FastAPI
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.errors import BadRequest
from service.http import problems
from service.http.middleware import HEADERS
from service.ids import new_id
from service.settings import Settings

#: Computes the head and the body of an answer from a body; None where that takes too long.
Compute = Callable[[bytes], tuple[bytes, bytes] | None]
TICK_S = 1.0  # the header `Date` says the second
TURNS = 5  # of the event loop; what was accepted is a connection after three of them
STOP_S = 3  # seconds that requests get to end once the server stops
IDLE_S = 30  # seconds after which an idle connection is closed
BACKLOG = 2048  # connections that wait to be accepted

logger = structlog.get_logger("service.access")


def _nothing() -> None:
    return


class Server(uvicorn.Server):
    """Serves the app.

    `on_up` is called when it listens, `on_stop` when it begins to stop, `on_hurry` when it is told
    so a second time.
    """

    def __init__(
        self,
        app: FastAPI,
        *,
        on_up: Callable[[], None] = _nothing,
        on_stop: Callable[[], None] = _nothing,
        on_hurry: Callable[[], None] = _nothing,
    ) -> None:
        super().__init__(_config(app, app.state.settings))
        self._end_streams: Callable[[], None] = app.state.end_streams
        self._on_up = on_up
        self._on_stop = on_stop
        self._on_hurry = on_hurry
        self._stopped_at: float | None = None
        self._is_ending = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  uvicorn's names
        """Stop at a signal, and at a second one do it at once.

        Unlike uvicorn's own it does not have the signal raised again at the end of the server:
        what is ours ends after that.
        """
        if self.should_exit:
            self.force_exit = True
            self._on_hurry()
        self.stop()

    def stop(self) -> None:
        """Have the server stop; may be called from any thread."""
        self.should_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._is_ending.set)

    async def main_loop(self) -> None:
        """Set the date each second; uvicorn's own looks ten times a second for the end."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_ending.wait(), TICK_S)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._on_up()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopped_at = time.monotonic()
        self._on_stop()
        # Open streams would hold the server up for as long as their clients like.
        self._end_streams()
        for server in self.servers:
            server.close()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if self.server_state.connections or self.server_state.tasks:
            await super().shutdown(sockets)
        elif not self.force_exit:  # uvicorn would wait for a tenth of a second before
            await self.lifespan.shutdown()

    def stopping_for(self) -> float:
        """Return the seconds since the server began to stop."""
        return 0.0 if self._stopped_at is None else time.monotonic() - self._stopped_at


class Held(NamedTuple):
    """A request that is answered at once when its body is there."""

    cycle: RequestResponseCycle
    app: ASGI3Application
    compute: Compute


class Protocol(HttpToolsProtocol):
    """Answers small predictions at once, and tells who sends what is no HTTP so with a problem.

    All else becomes a task that writes its answer in one piece.
    """

    _held: Held | None = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        compute = None
        if cycle.more_body and cycle.keep_alive and not cycle.waiting_for_100_continue:
            compute = self.config.app.at_once(cycle.scope)  # type: ignore[union-attr]
        if compute is None:
            self._start(cycle, app)
        else:
            self._held = Held(cycle, app, compute)

    def _start(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # The answer before it may have come with the same piece of data, and begun the wait for it.
        self._unset_keepalive_if_required()
        if cycle.scope["method"] != "HEAD":
            cycle.transport = Whole(self.transport, cycle)  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if self._held is not None:
            held, self._held = self._held, None
            self._answer(held)

    def _answer(self, held: Held) -> None:
        """Do what the task of a request does, without a task."""
        cycle = held.cycle
        found = None
        if cycle.keep_alive and not self.flow.write_paused:
            found = held.compute(bytes(cycle.body))
        if found is None:
            self._start(cycle, held.app)
            return
        head, body = found
        dates = b"".join([b"%s: %s\r\n" % pair for pair in cycle.default_headers])
        cycle.response_started = cycle.response_complete = True
        self.transport.write(b"".join((head, dates, b"\r\n", body)))
        self.on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._held is not None:  # nobody reads the answer, but the log tells of the request
            self._start(self._held.cycle, self._held.app)
            self._held = None

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  uvicorn's sentence
        cycle = self.cycle
        if cycle is None or cycle.response_complete or not cycle.response_started:
            self.transport.write(_malformed())
        self.transport.close()  # what follows cannot be told from the rest of this request


class Whole:
    """What an answer is written to: its head leaves together with the first part of its body.

    Each write is a call of the system and wakes the client; uvicorn makes two of the shortest
    answer. A head that tells no length, such as that of a stream, leaves at once.
    """

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = weakref.ref(cycle)  # else each answer would be garbage that refers to itself
        #: None until it is written, empty once it has left
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        cycle = self._cycle()
        if self._head is None and cycle is not None and cycle.chunked_encoding is False:
            self._head = data  # its length is known and nothing was written: so this is the head
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


def _malformed() -> bytes:
    """Return the answer to a request that never reaches the app, to be written as it is."""
    request_id = new_id("req")
    logger.info("malformed", status=400, request_id=request_id)
    error = BadRequest("The request is not HTTP: its first line, a header or a chunk is malformed.")
    answer = problems.render(error, instance=None, request_id=request_id)
    headers = {
        **dict(answer.raw_headers),
        **HEADERS,
        b"cache-control": b"no-store",
        b"x-request-id": request_id.encode(),
        b"connection": b"close",
    }
    lines = [b"HTTP/1.1 400 Bad Request", *(b"%s: %s" % pair for pair in headers.items())]
    return b"\r\n".join([*lines, b"", bytes(answer.body)])


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError that names the address."""
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
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  not bound to
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return f"http://{name}:{listener.getsockname()[1]}"


def _config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
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
