"""The predict routes of models as plain ASGI, ahead of all middleware and of the framework.

It answers the requests that ask for nothing unusual. What is unusual about the head of a request
leaves it, untouched, to the routes that `predictions` declares, so there is one place for each rule
and each error; what is unusual about the rows is computed and told by the same functions.
"""

import re
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from models.predict import Prediction, Predictor
from service import http, problems
from service.dependencies import Parts
from service.errors import ServiceError
from service.ids import new_id
from service.inference import mlflow
from service.inference.answers import answers, to_json
from service.inference.batches import Batches
from service.inference.cache import Predictors
from service.inference.formats import wanted
from service.inference.predictions import READ, Asked, answer, computed_again
from service.inference.queue import Queue
from service.inference.registry import Target
from service.inference.texts import JSON
from service.keys import KeyRing, bearer
from service.middleware import (
    HEADERS,
    MAX_HEAD,
    WHOLE,
    Answer,
    Observe,
    allowed_hosts,
    check_host,
    report,
)

START = "/api/v1/models/"
ROUTE = START + "{name}"
_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_PLACE = re.compile(
    rf"{START}({_NAME})(?:/(versions)/([1-9][0-9]{{0,8}})|/(aliases)/({_NAME}))?/predict"
)
#: headers that the framework's way looks at, or that change what the body is
UNUSUAL = frozenset((b"origin", b"sec-fetch-site", b"content-encoding"))
ON_PROBLEM: dict[bytes, Literal["warn", "error"]] = {
    b"": "warn",
    b"on_problem=warn": "warn",
    b"on_problem=error": "error",
}
KNOWN_HOSTS = 1000  # spellings of our own address that are remembered; beyond it none are
# What is computed at once: it takes less than to ask a thread, or little more.
SMALL = 16 * 1024  # bytes of JSON
FEW = 64  # rows
FEW_NUMBERS = 256  # that rows become, where they are not plain
LIGHT = 256 * 1024  # parameters of a net, times rows
#: what every answer carries
SAME: list[tuple[bytes, bytes]] = [
    (b"content-type", JSON.encode()),
    *HEADERS.items(),
    (b"cache-control", b"no-store"),
]

#: the same, written out; what differs is to be put in
HEAD = b"".join(
    [
        b"HTTP/1.1 200 OK\r\n",
        *(b"%s: %s\r\n" % pair for pair in SAME),
        b"content-length: %b\r\nx-request-id: %b\r\n",
    ]
)

logger = structlog.get_logger("service.access")

Row = dict[str, Any]


class Place(NamedTuple):
    """What a path asks to predict with: a model, one of its versions, or an alias."""

    name: str
    version: int | None
    alias: str | None

    @property
    def route(self) -> str:
        if self.version is not None:
            return f"{ROUTE}/versions/{{version}}/predict"
        return f"{ROUTE}/predict" if self.alias is None else f"{ROUTE}/aliases/{{alias}}/predict"


@dataclass(slots=True)
class Call:
    """The head of a request that asks for nothing unusual."""

    place: Place
    caller: str
    media_type: str
    on_problem: Literal["warn", "error"]
    wants: str

    def asked(self, content: bytes) -> Asked:
        return Asked(self.media_type, content, self.on_problem, self.wants)


class HotRoutes:
    """Answers plain calls. One per process."""

    def __init__(self, parts: Parts, keys: KeyRing, observe: Observe) -> None:
        settings = parts.settings
        self._parts = parts
        self._queue: Queue = parts.queue
        self._predictors: Predictors = parts.predictors
        self._keys = keys
        self._observe = observe
        self._batches = Batches(parts.queue, settings.predict_queue)
        self._most = settings.max_predict_bytes
        self._few = min(FEW, settings.max_predict_rows)
        self._prefix = settings.root_path.rstrip("/")
        self._prefix_bytes = self._prefix.encode()
        self._hosts = allowed_hosts(settings)
        self._own: set[bytes] = set()

    # ---- the head ----

    def call_of(self, scope: Scope) -> Call | None:
        """Return what a request asks for, or None where another must look at it."""
        path: str = scope["path"]
        if self._prefix:
            path = path.removeprefix(self._prefix)
        if scope["method"] != "POST" or not path.startswith(START):
            return None
        place, headers = _PLACE.fullmatch(path), dict(scope["headers"])
        on_problem = ON_PROBLEM.get(scope["query_string"])
        if place is None or on_problem is None or not self._is_usual(scope, headers):
            return None
        media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode()
        if media_type not in READ:
            return None
        try:
            given = headers.get(b"authorization")
            caller = self._keys.known(given and bearer([given.decode("latin-1")]))
        except ServiceError:
            return None
        if caller is None:
            return None
        name, _, version, _, alias = place.groups()
        return Call(
            place=Place(name, int(version) if version else None, alias),
            caller=caller,
            media_type=media_type,
            on_problem=on_problem,
            wants=wanted(headers.get(b"accept", b"").decode("latin-1")),
        )

    def _is_usual(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        length = headers.get(b"content-length", b"0")
        return (
            len(headers) == len(scope["headers"])  # none was sent twice
            and UNUSUAL.isdisjoint(headers)
            and len(scope["raw_path"]) + sum(map(len, headers)) + sum(map(len, headers.values()))
            <= MAX_HEAD - len(scope["query_string"])
            and length.isdigit()
            and len(length) <= 18
            and int(length) <= self._most
            and self._is_own(headers.get(b"host", b""))
        )

    def _is_own(self, host: bytes) -> bool:
        if host in self._own:
            return True
        try:
            check_host(host.decode("latin-1"), self._hosts)
        except ServiceError:
            return False
        if len(self._own) < KNOWN_HOSTS:
            self._own.add(host)
        return True

    # ---- the answer ----

    async def respond(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a plain call, whatever becomes of it."""
        began, request_id = time.perf_counter(), new_id("req")
        state = scope["state"]
        state["request_id"], state["caller"] = request_id, call.caller
        out = Answer(send, request_id, self._prefix_bytes)
        try:
            found = await self._answer(call, await self._content(receive))
            if isinstance(found, bytes):
                out.status = 200
                await _send(scope, send, found, request_id)
            else:
                await found(scope, receive, out)
        except ClientDisconnect:
            out.status = out.status or 499  # nobody is there to read an answer
        except Exception as error:
            if out.status:
                raise  # half an answer is out: only closing the connection tells the client
            structlog.contextvars.bind_contextvars(request_id=request_id)
            problem = problems.of_fault(error)
            if problem is None:
                logger.exception("unexpected")
                problem = problems.unexpected()
            await problems.respond(Request(scope), problem)(scope, receive, out)
        finally:
            seconds = time.perf_counter() - began
            report(self._observe, scope, call.place.route, out.status, seconds)

    async def _content(self, receive: Receive) -> bytes:
        message = await receive()
        content: bytes = message.get("body", b"")
        while message["type"] != "http.disconnect" and message.get("more_body", False):
            if len(content) > self._most:
                break
            message = await receive()
            content += message.get("body", b"")
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if len(content) > self._most:
            raise http.too_large("predict", self._most)
        return content

    async def _answer(self, call: Call, content: bytes) -> bytes | Response:
        began = time.perf_counter()
        target = self._target(call.place)
        predictor = None if target is None else self._predictors.known(target.sha256)
        if target is None or predictor is None:
            return await self._queue.run(partial(self._long_way, call, content))
        is_few = False
        if len(content) <= SMALL and call.media_type == JSON and content:
            rows = _rows_of(mlflow.parse(content))
            if 0 < len(rows) <= self._few:
                is_few = len(rows) * predictor.features.width <= FEW_NUMBERS
                if call.wants == JSON:
                    predictions = await self._predicted(predictor, rows)
                    if predictions is not None:
                        found = answers(predictions, {})
                        seconds = time.perf_counter() - began
                        self._count(call, content, target, found, seconds)
                        return to_json(target.named, found)
        work = partial(answer, self._parts, target, call.asked(content))
        return work() if is_few and _is_light(predictor, 1) else await self._queue.run(work)

    async def _predicted(self, predictor: Predictor, rows: list[Any]) -> list[Prediction] | None:
        """Return the answers to plain rows; None where one row is not."""
        encoded = predictor.plain.encode(rows)
        if encoded is None:
            return None
        if _is_light(predictor, len(rows)):
            outputs = predictor.outputs(encoded)
        else:
            outputs = await self._batches.outputs(predictor, encoded)
        return predictor.plain_predictions(outputs)

    def _count(
        self, call: Call, content: bytes, target: Target, found: list[Row], seconds: float
    ) -> None:
        def again(other: Target) -> list[Row] | None:
            return computed_again(self._parts, other, call.asked(content), None)

        self._parts.traffic.answered(target, found, seconds, len(content), again)

    def _target(self, place: Place) -> Target | None:
        """Return who answers a call, if that is known without asking the database."""
        directory = self._parts.directory
        if place.version is not None:
            return directory.known_version(place.name, place.version)
        if place.alias is not None:
            return directory.known_alias(place.name, place.alias)
        return directory.known_model(place.name)

    def _long_way(self, call: Call, content: bytes) -> Response:
        """Answer a call that needs the database or a model that is not loaded: in a thread."""
        directory, place = self._parts.directory, call.place
        if place.version is not None:
            target = directory.of_version(place.name, place.version)
        elif place.alias is not None:
            target = directory.of_alias(place.name, place.alias)
        else:
            target = directory.of_model(place.name)
        return answer(self._parts, target, call.asked(content))


def _rows_of(document: Any) -> list[Any]:  # noqa: ANN401  what a client sent
    """Return the rows of a body as it usually is; none where it is another."""
    rows = document.get("rows") if type(document) is dict and len(document) == 1 else None
    return rows if type(rows) is list else []


def _is_light(predictor: Predictor, rows: int) -> bool:
    return rows * predictor.stack.parameters <= LIGHT


async def _send(scope: Scope, send: Send, content: bytes, request_id: str) -> None:
    whole = scope.get("extensions", {}).get(WHOLE)
    length, name = b"%d" % len(content), request_id.encode()
    if whole is not None and whole["answer"](HEAD % (length, name), content):
        return
    headers = [*SAME, (b"content-length", length), (b"x-request-id", name)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
