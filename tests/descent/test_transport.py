"""The client repeats requests safely, raises problems as exceptions, and parses streams."""

import io
import json

import pytest

from descent.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    Refused,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from descent.transport import ApiCall, Transport
from tests.descent.scripted import Answer, scripted

POST = ApiCall("POST", "/api/v1/runs", json={"a": 1})


def problem(status: int, code: str, **members: object) -> Answer:
    body = {"type": f"urn:{code}", "title": code, "status": status, "code": code, "detail": "why"}
    return Answer(status, json.dumps(body | members).encode())


def test_a_post_that_got_no_answer_is_sent_again_with_the_same_key() -> None:
    with scripted(Answer(0), Answer(200, b'{"ok": 1}')) as (url, asked):
        transport = Transport(url, "", 10)
        assert transport.send(POST).json() == {"ok": 1}
        transport.close()
    keys = [request.headers["Idempotency-Key"] for request in asked]
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert asked[0].body == asked[1].body


def test_a_busy_service_is_asked_again() -> None:
    busy = problem(503, "busy")
    with scripted(busy, problem(429, "too_many"), Answer()) as (url, asked):
        transport = Transport(url, "", 10)
        assert transport.send(ApiCall("GET", "/x")).is_success
        transport.close()
    assert len(asked) == 3


def test_a_service_that_stays_busy_is_given_up() -> None:
    with scripted(problem(503, "busy")) as (url, asked):
        transport = Transport(url, "", 0)
        with pytest.raises(Unavailable, match="busy"):
            transport.send(ApiCall("GET", "/x"))
        transport.close()
    assert len(asked) == 1


def test_a_request_in_flight_is_awaited() -> None:
    with scripted(problem(409, "in_flight"), Answer(202)) as (url, asked):
        transport = Transport(url, "", 10)
        assert transport.send(POST).status_code == 202
        transport.close()
    assert len(asked) == 2


def test_a_patch_that_may_have_arrived_is_not_repeated() -> None:
    with scripted(Answer(0)) as (url, asked):
        transport = Transport(url, "", 10)
        with pytest.raises(Unreachable):
            transport.send(ApiCall("PATCH", "/x", json={}))
        transport.close()
    assert len(asked) == 1


def test_a_stream_is_sent_from_its_beginning_again() -> None:
    with scripted(problem(503, "busy"), Answer()) as (url, asked):
        transport = Transport(url, "", 10)
        transport.send(ApiCall("POST", "/x", content=lambda: io.BytesIO(b"a,b\n1,2\n")))
        transport.close()
    assert [request.body for request in asked] == [b"a,b\n1,2\n"] * 2


def test_the_key_goes_into_its_header_and_nowhere_else() -> None:
    with scripted(Answer()) as (url, asked):
        transport = Transport(url, "a secret of mine", 0)
        transport.send(ApiCall("GET", "/x", params={"limit": 1, "after": None}))
        transport.close()
    assert asked[0].headers["Authorization"] == "Bearer a secret of mine"
    assert asked[0].path == "/x?limit=1"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, Unauthorized),
        (404, NotFound),
        (409, Conflict),
        (422, InvalidRequest),
        (418, Refused),
        (500, Unavailable),
    ],
)
def test_each_status_has_its_exception(status: int, kind: type[Exception]) -> None:
    with scripted(problem(status, "some_code", request_id="req_1")) as (url, _asked):
        transport = Transport(url, "", 0)
        with pytest.raises(kind) as caught:
            transport.send(POST)
        transport.close()
    error = caught.value
    assert isinstance(error, Refused | Unavailable)
    found = (error.code, error.detail, error.status, error.request_id)
    assert found == ("some_code", "why", status, "req_1")


def test_the_message_lists_what_is_wrong_with_the_input() -> None:
    errors = [{"pointer": "/epochs", "code": "too_many", "detail": "at most 1000000"}]
    with scripted(problem(422, "invalid", errors=errors)) as (url, _asked):
        transport = Transport(url, "", 0)
        with pytest.raises(InvalidRequest, match="/epochs: at most 1000000"):
            transport.send(POST)
        transport.close()


def test_an_answer_of_somebody_else_is_named() -> None:
    with scripted(Answer(404, b"<html>")) as (url, _asked):
        transport = Transport(url, "", 0)
        with pytest.raises(NotFound, match="http_404"):
            transport.send(ApiCall("GET", "/x"))
        transport.close()


def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="localhost:8000"):
        Transport("localhost:8000", "", 0)


def test_events_are_parsed_and_comments_left_out() -> None:
    body = b": ping\n\nid: 4\nevent: state\ndata: {\ndata: }\n\nid: 5\nevent: end\ndata: {}\n\n"
    with scripted(Answer(200, body)) as (url, asked):
        transport = Transport(url, "", 0)
        found = [(m.id, m.event, m.data) for m in transport.stream("/events", 3)]
        transport.close()
    assert found == [("4", "state", "{\n}"), ("5", "end", "{}")]
    assert asked[0].headers["Last-Event-ID"] == "3"
