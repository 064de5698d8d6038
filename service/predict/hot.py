"""The hot path: the predict routes of models as plain ASGI, ahead of middleware and framework.

It answers requests with a usual head. It passes any other request on, untouched, to the routes in
`predict.routes`, so each rule and each error has one place. Rows with problems are answered by the
functions that those routes call.
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

from models.predict.predictor import Prediction, Predictor
from service.datasets.charsets import charset_of
from service.errors import ServiceError
from service.http import problems, strict_route
from service.http.middleware import (
    HEADERS,
    Answer,
    Observe,
    allowed_hosts,
    check_host,
    report,
)
from service.http.server import Compute
from service.http.strict_route import Keys, bearer
from service.predict.answers import answers_of, to_json, wanted
from service.predict.bodies import JSON
from service.predict.directory import Predictors
from service.predict.executor import Batches, PredictionExecutor
from service.predict.routes import READ, Inference, PredictionBody, answer, computed_again
from service.registry.versions import Target
from service.storage.columns import new_id

START = "/api/v1/models/"
ROUTE = START + "{name}"
_NAME = "[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
_PLACE = re.compile(
    rf"{START}({_NAME})(?:/(versions)/([1-9][0-9]{{0,8}})|/(aliases)/({_NAME}))?/predict"
)
#: headers that the middleware checks, or that change the meaning of the body
UNUSUAL = frozenset((b"origin", b"sec-fetch-site", b"content-encoding"))
ON_PROBLEM: dict[bytes, Literal["warn", "error"]] = {
    b"": "warn",
    b"on_problem=warn": "warn",
    b"on_problem=error": "error",
}
UTF_8 = frozenset(("", "utf-8", "utf8"))  # charsets that JSON has anyway
KNOWN_HEADS = 200  # parsed heads that are cached; each has at most `max_head_bytes`
# Limits of requests that the event loop computes itself: a thread would take as long, or nearly.
SMALL = 16 * 1024  # bytes of JSON
FEW = 64  # rows
FEW_NUMBERS = 256  # encoded numbers of rows that are not plain
LIGHT = 256 * 1024  # parameters of the net times rows
#: the head of an answer, with placeholders for its length and id; the server adds the date
HEAD = b"".join(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"content-type: %b\r\n" % JSON.encode(),
        *(b"%b: %b\r\n" % pair for pair in HEADERS.items()),
        b"cache-control: no-store\r\ncontent-length: %d\r\nx-request-id: %b\r\n",
    ]
)

logger = structlog.get_logger("service.access")

Row = dict[str, Any]


class ModelPlace(NamedTuple):
    """The model, version or alias that a path names."""

    name: str
    version: int | None
    alias: str | None

    @property
    def route(self) -> str:
        if self.version is not None:
            return f"{ROUTE}/versions/{{version}}/predict"
        return f"{ROUTE}/predict" if self.alias is None else f"{ROUTE}/aliases/{{alias}}/predict"


@dataclass(frozen=True, slots=True)
class Head:
    """The parsed head of a usual request."""

    place: ModelPlace
    secret: str | None
    media_type: str
    on_problem: Literal["warn", "error"]
    wants: str
    #: bytes of the body; None without Content-Length
    length: int | None
    charset: str

    def asked(self, content: bytes) -> PredictionBody:
        return PredictionBody(
            self.media_type, content, self.on_problem, self.wants, charset=self.charset
        )


class Call(NamedTuple):
    """The head of a request and its caller."""

    head: Head
    caller: str


class HotRoutes:
    """Answers usual predict requests. One per process."""

    def __init__(self, inference: Inference, keys: Keys, observe: Observe) -> None:
        settings = inference.settings
        self._inference = inference
        self._executor: PredictionExecutor = inference.executor
        self._predictors: Predictors = inference.predictors
        self._keys = keys
        self._observe = observe
        self._batches = Batches(inference.executor, settings.predict_queue)
        self._most = settings.max_predict_bytes
        self._max_head_bytes = settings.max_head_bytes
        self._few = min(FEW, settings.max_predict_rows)
        self._prefix = settings.root_path.rstrip("/")
        self._prefix_bytes = self._prefix.encode()
        self._hosts = allowed_hosts(settings)
        self._heads: dict[tuple[Any, ...], Head] = {}

    # ---- the head ----

    def call_of(self, scope: Scope) -> Call | None:
        """Return the call of a usual request, or None if the framework has to answer it."""
        if scope["method"] != "POST":
            return None
        key = (scope["raw_path"], scope["query_string"], *scope["headers"])
        head = self._heads.get(key) or self._head_of(scope)
        caller = None if head is None else self._keys.known(head.secret)
        if head is None or caller is None:
            return None
        # Clients repeat the same head. Heads without a known key are not cached.
        if len(self._heads) >= KNOWN_HEADS:
            self._heads.clear()
        self._heads[key] = head
        return Call(head, caller)

    def _head_of(self, scope: Scope) -> Head | None:
        path: str = scope["path"]
        if self._prefix:
            path = path.removeprefix(self._prefix)
        if not path.startswith(START):
            return None
        place, headers = _PLACE.fullmatch(path), dict(scope["headers"])
        on_problem = ON_PROBLEM.get(scope["query_string"])
        if place is None or on_problem is None or not self._is_usual(scope, headers):
            return None
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        media_type = content_type.partition(";")[0].strip().lower()
        charset = charset_of(content_type)
        if media_type not in READ or (media_type == JSON and charset.lower() not in UTF_8):
            return None
        try:
            given = headers.get(b"authorization")
            secret = None if given is None else bearer([given.decode("latin-1")])
            check_host(headers.get(b"host", b"").decode("latin-1"), self._hosts)
        except ServiceError:
            return None
        name, _, version, _, alias = place.groups()
        return Head(
            place=ModelPlace(name, int(version) if version else None, alias),
            secret=secret,
            media_type=media_type,
            on_problem=on_problem,
            wants=wanted(headers.get(b"accept", b"").decode("latin-1")),
            length=int(headers[b"content-length"]) if b"content-length" in headers else None,
            charset=charset if media_type != JSON else "",
        )

    def _is_usual(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        length = headers.get(b"content-length", b"0")
        return (
            len(headers) == len(scope["headers"])  # no header was sent twice
            and UNUSUAL.isdisjoint(headers)
            and len(scope["raw_path"]) + sum(map(len, headers)) + sum(map(len, headers.values()))
            <= self._max_head_bytes - len(scope["query_string"])
            and length.isdigit()
            and len(length) <= 18
            and int(length) <= self._most
        )

    # ---- answers in the same turn of the event loop ----

    def at_once(self, scope: Scope) -> Compute | None:
        """Return a function that answers a small request, given its body; None leaves it to others.

        The function returns the head of the answer, without its end, and the body. This needs no
        task, no messages and no further turn of the event loop. The function returns None if
        `respond` has to answer.
        """
        try:
            call = self.call_of(scope)
        except Exception:  # noqa: BLE001  the framework raises it again and answers it
            return None
        if call is None or call.head.length is None or call.head.length > SMALL:
            return None
        if not call.head.media_type == call.head.wants == JSON:
            return None
        return partial(self._at_once, call, scope, time.perf_counter())

    def _at_once(
        self, call: Call, scope: Scope, began: float, content: bytes
    ) -> tuple[bytes, bytes] | None:
        try:
            served = self._served(call.head.place)
            found = None if served is None else self._light(call, content, *served)
        except Exception:  # noqa: BLE001  `respond` raises it again and answers it
            return None
        if found is None:
            return None
        request_id, state = new_id("req"), scope["state"]
        state["request_id"], state["caller"] = request_id, call.caller
        report(self._observe, scope, call.head.place.route, 200, time.perf_counter() - began)
        return HEAD % (len(found), request_id.encode()), found

    def _served(self, place: ModelPlace) -> tuple[Target, Predictor] | None:
        """Return the version that answers a call and its predictor, if known and loaded."""
        target = self._target(place)
        predictor = None if target is None else self._predictors.known(target.sha256)
        return None if target is None or predictor is None else (target, predictor)

    def _light(
        self, call: Call, content: bytes, target: Target, predictor: Predictor
    ) -> bytes | None:
        """Return the answer in JSON, or None if computing it needs a thread."""
        began = time.perf_counter()
        rows = self._few_rows(content)
        if not rows or not _is_light(predictor, len(rows)):
            return None
        encoded, predictions = predictor.plain.encode(rows), None
        if encoded is not None:
            predictions = predictor.plain_predictions(predictor.outputs(encoded))
        elif len(rows) * predictor.features.width > FEW_NUMBERS:
            return None
        elif call.head.on_problem == "warn":
            predictions = predictor.flawed_predictions(rows)
        if predictions is not None:
            return self._counted(call, content, target, predictions, began)
        return bytes(answer(self._inference, target, call.head.asked(content)).body)

    def _few_rows(self, content: bytes) -> list[Any]:
        """Return the rows of a small JSON body `{"rows": […]}`; an empty list for any other."""
        if not 0 < len(content) <= SMALL:
            return []
        document = self._inference.foreign.parse(content)
        rows = document.get("rows") if type(document) is dict and len(document) == 1 else None
        return rows if type(rows) is list and len(rows) <= self._few else []

    # ---- the answer ----

    async def respond(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a usual request, also after errors."""
        began, request_id = time.perf_counter(), new_id("req")
        state = scope["state"]
        state["request_id"], state["caller"] = request_id, call.caller
        out = Answer(send, request_id, self._prefix_bytes)
        try:
            found = await self._answer(call, await self._content(receive))
            if isinstance(found, bytes):
                found = Response(found, media_type=JSON)
            await found(scope, receive, out)
        except ClientDisconnect:
            out.status = out.status or 499  # the client has gone; the status is for the log
        except Exception as error:
            if out.status:
                raise  # part of the answer is sent: the connection must be closed
            structlog.contextvars.bind_contextvars(request_id=request_id)
            problem = problems.of_fault(error)
            if problem is None:
                logger.exception("unexpected")
                problem = problems.unexpected()
            await problems.respond(Request(scope), problem)(scope, receive, out)
        finally:
            seconds = time.perf_counter() - began
            report(self._observe, scope, call.head.place.route, out.status, seconds)

    async def _content(self, receive: Receive) -> bytes:
        message = await receive()
        content: bytes | bytearray = message.get("body", b"")
        if message.get("more_body", False):
            content = bytearray(content)  # so that adding a chunk does not copy the others
        while message["type"] != "http.disconnect" and message.get("more_body", False):
            if len(content) > self._most:
                break
            message = await receive()
            content += message.get("body", b"")
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if len(content) > self._most:
            raise strict_route.too_large("predict", self._most)
        return bytes(content)

    async def _answer(self, call: Call, content: bytes) -> bytes | Response:
        served = self._served(call.head.place)
        if served is None:
            return await self._executor.run(partial(self._resolve, call, content))
        if call.head.media_type == call.head.wants == JSON:
            found = self._light(call, content, *served)
            if found is None:
                found = await self._batched(call, content, *served)
            if found is not None:
                return found
        return await self._executor.run(
            partial(answer, self._inference, served[0], call.head.asked(content))
        )

    async def _batched(
        self, call: Call, content: bytes, target: Target, predictor: Predictor
    ) -> bytes | None:
        """Answer a few plain rows in a batch with others; None if a row is not plain."""
        began = time.perf_counter()
        rows = self._few_rows(content)
        encoded = predictor.plain.encode(rows) if rows else None
        if encoded is None:
            return None
        predictions = predictor.plain_predictions(await self._batches.outputs(predictor, encoded))
        if predictions is None:
            return None
        return self._counted(call, content, target, predictions, began)

    def _counted(
        self,
        call: Call,
        content: bytes,
        target: Target,
        predictions: list[Prediction],
        began: float,
    ) -> bytes:
        """Count the answers to a few rows and return them as JSON."""
        found = answers_of(predictions, {})
        self._count(call, content, target, found, time.perf_counter() - began)
        return to_json(target.named, found)

    def _count(
        self, call: Call, content: bytes, target: Target, found: list[Row], seconds: float
    ) -> None:
        def again(other: Target) -> list[Row] | None:
            return computed_again(self._inference, other, call.head.asked(content), None)

        self._inference.traffic.answered(target, found, seconds, len(content), again)

    def _target(self, place: ModelPlace) -> Target | None:
        """Return the version that answers a call, if it is known without the database."""
        directory = self._inference.directory
        if place.version is not None:
            return directory.known_version(place.name, place.version)
        if place.alias is not None:
            return directory.known_alias(place.name, place.alias)
        return directory.known_model(place.name)

    def _resolve(self, call: Call, content: bytes) -> Response:
        """Answer a call that needs the database or has to load a model; runs in a thread."""
        directory, place = self._inference.directory, call.head.place
        if place.version is not None:
            target = directory.of_version(place.name, place.version)
        elif place.alias is not None:
            target = directory.of_alias(place.name, place.alias)
        else:
            target = directory.of_model(place.name)
        return answer(self._inference, target, call.head.asked(content))


def _is_light(predictor: Predictor, rows: int) -> bool:
    return rows * predictor.model.work <= LIGHT
