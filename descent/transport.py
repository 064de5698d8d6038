"""HTTP for the client: requests that are safe to repeat, lists, downloads and event streams.

Knows retries, keys and problems, and nothing of datasets, runs or models.
"""

import itertools
import json
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

import httpx

from descent.errors import DescentError, Unreachable, error_of
from descent.progress import Screen, screen, transfer

Item = TypeVar("Item")

API = "/api/v1"
PAGE = 200  # items of a list in one request, the most that the service allows
#: longer than `?wait=60`, the longest time that the service holds back an answer
TIMEOUT = httpx.Timeout(90, connect=5)
CHUNK = 256 * 1024  # bytes between two reports of progress
FIRST_PAUSE = 0.2  # seconds before the second attempt; doubles with every further one
LONGEST_PAUSE = 5.0  # seconds
#: methods of requests that the service may refuse if they arrive twice
UNSAFE = frozenset({"PATCH", "PUT"})
#: error statuses after which another attempt may succeed
TEMPORARY = frozenset({429, 502, 503, 504})
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


#: takes the bytes so far, and the total if it is known
ReportProgress = Callable[[int, int | None], None]


class Watched:
    """A file that reports how much of it was read."""

    def __init__(self, file: BinaryIO, report: ReportProgress) -> None:
        self._file = file
        self._report = report
        self._size = os.fstat(file.fileno()).st_size

    def fileno(self) -> int:
        return self._file.fileno()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._report(self._file.tell(), self._size)
        return data

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(CHUNK), b"")

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class ApiCall:
    """One request. `content` is called for every attempt, so that a stream can be sent again."""

    method: str
    path: str
    params: Mapping[str, str | int | None] = field(default_factory=dict)
    json: object = None
    content: Callable[[], bytes | BinaryIO | Watched] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamMessage:
    """One server-sent event."""

    id: str
    event: str
    data: str


class NothingLeft(Exception):
    """The stream has ended, and no unread event is left."""


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
            # A proxy cannot reach the loopback address of this machine.
            trust_env=parsed.host not in LOOPBACK,
        )

    def close(self) -> None:
        self._http.close()

    def send(self, call: ApiCall) -> httpx.Response:
        """Send the request, repeat it if needed, and return the response. Raises DescentError.

        A POST carries an Idempotency-Key: the service does the work once, however often the
        request arrives. A PATCH or PUT has no such key and is repeated only if it cannot have
        arrived.
        """
        headers = dict(call.headers)
        if call.method == "POST":
            headers.setdefault("Idempotency-Key", uuid.uuid4().hex)
        return self._repeat(call.method, lambda: self._once(call, headers))

    def look(self, path: str) -> httpx.Response:
        """Return the response to a GET, also an error, without repeats. Raises Unreachable."""
        try:
            return self._http.get(path)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def download(self, call: ApiCall, target: Path, report: ReportProgress) -> None:
        """Stream the response to a GET into a file, which is replaced only when it is complete.

        Raises DescentError.
        """
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            self._repeat(call.method, lambda: self._receive(call, part, report))
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

    def stream(self, path: str, last_id: int) -> Iterator[StreamMessage]:
        """Yield the events after `last_id` until the stream ends. Does not reconnect.

        Raises NothingLeft if `last_id` is the last event of the stream.
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

    def _receive(self, call: ApiCall, part: Path, report: ReportProgress) -> httpx.Response:
        with self._http.stream("GET", call.path, params=_given(call.params)) as response:
            if not response.is_success:
                response.read()
                return response
            size = response.headers.get("Content-Length", "")
            with part.open("wb") as file:
                for chunk in response.iter_bytes(CHUNK):
                    file.write(chunk)
                    report(file.tell(), int(size) if size.isdecimal() else None)
            return response

    def _once(self, call: ApiCall, headers: dict[str, str]) -> httpx.Response:
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


@dataclass(frozen=True)
class Connection:
    """A service, and whether to show progress bars."""

    transport: Transport
    shows_progress: bool = True

    @property
    def screen(self) -> Screen:
        return screen(wanted=self.shows_progress)

    def get(self, path: str, params: Mapping[str, str | int | None] | None = None) -> bytes:
        """Return the body of the response to a GET."""
        return self.transport.send(ApiCall("GET", path, params=params or {})).content

    def pages(
        self, path: str, params: Mapping[str, str | int | None], read: Callable[[Any], Item]
    ) -> Iterator[Item]:
        """Fetch a list page by page and yield every item, converted by `read`."""
        after: str | None = None
        while True:
            page = json.loads(self.get(path, {**params, "limit": PAGE, "after": after}))
            yield from map(read, page["data"])
            if not page["has_more"]:
                return
            after = page["next_cursor"]

    def download(self, call: ApiCall, path: str | Path | None, name: str) -> Path:
        """Download into the file `path`, or as `name` into the folder `path`; return the path."""
        target = Path(path or ".")
        target = target / name if target.is_dir() else target
        with transfer(f"Downloading {target.name}", self.screen) as report:
            self.transport.download(call, target, report)
        return target


class Pauses:
    """Growing pauses between attempts, until the time is used up."""

    def __init__(self, patience_s: float) -> None:
        self._deadline = time.monotonic() + patience_s
        self._tries = itertools.count()

    def sleep(self, wait_s: float | None = None) -> bool:
        """Sleep for at least `wait_s` and return True; return False if too little time is left."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** next(self._tries))
        # Clients that failed at the same time should not return at the same time.
        pause = max(wait_s or 0.0, pause * random.uniform(0.5, 1))  # noqa: S311  no secret
        if time.monotonic() + pause > self._deadline:
            return False
        time.sleep(pause)
        return True


def unwatched(_done: int, _total: int | None) -> None:
    """Ignore the progress."""


def _given(params: Mapping[str, str | int | None]) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}


def part(text: str) -> str:
    """Quote a name as one segment of a path."""
    return quote(text, safe="")


def _never_arrived(error: httpx.TransportError) -> bool:
    return isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else None


def _messages(lines: Iterator[str]) -> Iterator[StreamMessage]:
    """Parse an event stream as the HTML standard describes it; comments are skipped."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if line == "":
            if "data" in fields:
                yield StreamMessage(
                    fields.get("id", ""), fields.get("event", "message"), fields["data"]
                )
            fields = {}
        elif name:
            value = value.removeprefix(" ")
            fields[name] = f"{fields[name]}\n{value}" if name in fields else value
