"""HTTP for the client: requests that are safe to repeat, and event streams.

Knows retries, keys and problems, and nothing of datasets, runs or models.
"""

import itertools
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

import httpx

from descent.errors import DescentError, Unreachable, error_of

API = "/api/v1"
#: Longer than `?wait=60`, the longest time for which the service holds an answer back.
TIMEOUT = httpx.Timeout(90, connect=5)
CHUNK = 256 * 1024  # bytes that are sent or received between two looks at the progress
FIRST_PAUSE = 0.2  # seconds before the second try; doubles with every further one
LONGEST_PAUSE = 5.0  # seconds
#: Methods of calls that may be refused where they arrive a second time.
UNSAFE = frozenset({"PATCH", "PUT"})
#: Answers that another try may turn into a success.
TEMPORARY = frozenset({429, 502, 503, 504})
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


#: Is told the bytes so far, and in all where that is known.
Tell = Callable[[int, int | None], None]


class Watched:
    """A file that tells how far it was read."""

    def __init__(self, file: BinaryIO, tell: Tell) -> None:
        self._file = file
        self._tell = tell
        self._size = os.fstat(file.fileno()).st_size

    def fileno(self) -> int:
        return self._file.fileno()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._tell(self._file.tell(), self._size)
        return data

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(CHUNK), b"")

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Call:
    """One request. `content` is made anew for every try, so that a stream can be sent again."""

    method: str
    path: str
    params: Mapping[str, str | int | None] = field(default_factory=dict)
    json: object = None
    content: Callable[[], bytes | BinaryIO | Watched] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """One server-sent event."""

    id: str
    event: str
    data: str


class NothingLeft(Exception):
    """The stream is over, and all of it was read before."""


class Transport:
    """A connection to one service."""

    def __init__(self, url: str, key: str, patience_s: float) -> None:
        parsed = httpx.URL(url)
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            msg = f"url must look like http://127.0.0.1:8000, got {url!r}"
            raise ValueError(msg)
        self.url = url.rstrip("/")
        self._patience_s = patience_s
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=TIMEOUT,
            # A proxy from the environment cannot reach this very machine.
            trust_env=parsed.host not in LOOPBACK,
        )

    def close(self) -> None:
        self._http.close()

    def send(self, call: Call) -> httpx.Response:
        """Send the request, again if need be, and return its success. Raises DescentError.

        A POST carries an Idempotency-Key, so the service does its work once however often it
        arrives. A PATCH or PUT has no such key and is repeated only if it cannot have arrived.
        """
        headers = dict(call.headers)
        if call.method == "POST":
            headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        return self._repeat(call.method, lambda: self._once(call, headers))

    def look(self, path: str) -> httpx.Response:
        """Return what a GET answers, whatever that is, at the first try. Raises Unreachable."""
        try:
            return self._http.get(path)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def download(self, call: Call, target: Path, tell: Tell) -> None:
        """Write the answer to a GET into a file, which is whole afterwards or as it was before.

        Nothing of it is kept in memory. Raises DescentError.
        """
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            self._repeat(call.method, lambda: self._receive(call, part, tell))
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def _repeat(self, method: str, once: Callable[[], httpx.Response]) -> httpx.Response:
        pauses = Pauses(self._patience_s)
        while True:
            try:
                response = once()
            except httpx.TransportError as error:
                failure: DescentError = self._unreachable(error)
                wait_s, again = None, method not in UNSAFE or _never_arrived(error)
                cause: Exception | None = error
            else:
                if response.is_success or response.status_code == httpx.codes.NOT_MODIFIED:
                    return response
                failure, cause = error_of(response), None
                wait_s = _retry_after(response)
                again = response.status_code in TEMPORARY or failure.code == "in_flight"
            if not again or not pauses.sleep(wait_s):
                raise failure from cause

    def stream(self, path: str, last_id: int) -> Iterator[Message]:
        """Yield the events after `last_id` until the service ends the stream. Never repeats.

        Raises NothingLeft where `last_id` is the last event that there will ever be.
        """
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(last_id)}
        try:
            with self._http.stream("GET", path, headers=headers) as response:
                if not response.is_success:
                    response.read()
                    raise error_of(response)
                if response.status_code == httpx.codes.NO_CONTENT:
                    raise NothingLeft
                yield from _messages(response.iter_lines())
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _receive(self, call: Call, part: Path, tell: Tell) -> httpx.Response:
        with self._http.stream("GET", call.path, params=_given(call.params)) as response:
            if not response.is_success:
                response.read()
                return response
            size = response.headers.get("Content-Length", "")
            with part.open("wb") as file:
                for chunk in response.iter_bytes(CHUNK):
                    file.write(chunk)
                    tell(file.tell(), int(size) if size.isdecimal() else None)
            return response

    def _once(self, call: Call, headers: dict[str, str]) -> httpx.Response:
        params = _given(call.params)
        if call.content is None:
            return self._http.request(
                call.method, call.path, params=params, json=call.json, headers=headers
            )
        content = call.content()
        try:
            return self._http.request(
                call.method, call.path, params=params, content=content, headers=headers
            )
        finally:
            if not isinstance(content, bytes):
                content.close()

    def _unreachable(self, error: httpx.TransportError) -> Unreachable:
        detail = (
            f"no answer from {self.url} ({error or type(error).__name__}): is the service running"
            " (`descent serve`), and is DESCENT_URL right?"
        )
        return Unreachable("unreachable", detail)


class Pauses:
    """Growing pauses between tries, until the patience is used up."""

    def __init__(self, patience_s: float) -> None:
        self._deadline = time.monotonic() + patience_s
        self._tries = itertools.count()

    def sleep(self, wait_s: float | None = None) -> bool:
        """Sleep, at least `wait_s`, and return True; or return False: there is no time left."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** next(self._tries))
        # Clients that failed together should not come back together.
        pause = max(wait_s or 0.0, pause * random.uniform(0.5, 1))  # noqa: S311  no secret
        if time.monotonic() + pause > self._deadline:
            return False
        time.sleep(pause)
        return True


def unwatched(_done: int, _total: int | None) -> None:
    """Tell nobody how far it is."""


def _given(params: Mapping[str, str | int | None]) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}


def part(text: str) -> str:
    """Quote a name so that it stays one part of a path."""
    return quote(text, safe="")


def _never_arrived(error: httpx.TransportError) -> bool:
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None


def _messages(lines: Iterator[str]) -> Iterator[Message]:
    """Parse an event stream as the HTML standard describes it; comments are skipped."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if line == "":
            if "data" in fields:
                yield Message(fields.get("id", ""), fields.get("event", "message"), fields["data"])
            fields = {}
        elif name:
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
