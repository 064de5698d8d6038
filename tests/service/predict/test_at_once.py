"""The server answers small predictions without a task, in any division of their bytes."""

import io
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from service import logs
from service.settings import Settings
from tests.service.trained import Trained
from tests.serving import app_of, connected, serving

SCORES = "/api/v1/models/scores/predict"
QUIZ = b'{"rows": [{"Quiz": 10}]}'


def request(body: bytes, *more: str) -> bytes:
    head = [f"POST {SCORES} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *more]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body


def answers(connection: socket.socket, count: int) -> list[bytes]:
    """Read this number of answers; return their bodies."""
    bodies = []
    with connection.makefile("rb") as stream:
        for _ in range(count):
            status, *lines = iter(stream.readline, b"\r\n")
            assert status.startswith(b"HTTP/1.1 200")
            headers = dict(line.strip().decode().lower().split(": ", 1) for line in lines)
            bodies.append(stream.read(int(headers["content-length"])))
    return bodies


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return one database's URL: answers at once need no query."""
    return sqlite_url


@pytest.fixture
def connection(client: httpx.Client, scores: Trained) -> Iterator[socket.socket]:
    """Connect to a service that has loaded the model."""
    assert client.post(SCORES, json={"rows": [{"Quiz": 10}]}).status_code == 200
    with connected(client.base_url) as opened:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield opened


@pytest.mark.parametrize("size", [1, 7, len(QUIZ)])
def test_a_body_may_come_in_pieces(connection: socket.socket, size: int) -> None:
    whole = request(QUIZ)
    pieces = [whole[: -len(QUIZ)], *(QUIZ[at : at + size] for at in range(0, len(QUIZ), size))]
    for piece in pieces:
        connection.sendall(piece)
    (body,) = answers(connection, 1)
    assert json.loads(body)["predictions"] == [{"value": 13.0}]


def test_requests_that_come_together_are_answered_in_their_order(
    connection: socket.socket,
) -> None:
    quizzes = range(12)
    # The framework's route answers every third.
    connection.sendall(
        b"".join(
            request(
                b'{"rows": [{"Quiz": %d}]}' % quiz,
                *(["Content-Encoding: identity"] if quiz % 3 == 2 else []),
            )
            for quiz in quizzes
        )
    )
    found = [json.loads(body)["predictions"][0]["value"] for body in answers(connection, 12)]
    assert found == pytest.approx([found[0] + quiz * (found[1] - found[0]) for quiz in quizzes])
    assert found[10] == 13.0


def test_who_expects_to_be_told_to_go_on_is_told_so(connection: socket.socket) -> None:
    whole = request(QUIZ, "Expect: 100-continue")
    connection.sendall(whole[: -len(QUIZ)])
    assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.sendall(QUIZ)
    assert len(answers(connection, 1)) == 1


def test_who_leaves_before_the_end_of_the_request_is_in_the_log(
    settings: Settings, scores: Trained
) -> None:
    log = io.StringIO()
    logs.configure("info", log)
    try:
        with serving(app_of(settings)) as url, httpx.Client(base_url=url) as client:
            client.post(SCORES, content=QUIZ, headers={"Content-Type": "application/json"})
            with connected(client.base_url) as connection:
                connection.sendall(request(QUIZ)[:-1])
    finally:
        logs.configure("warning")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    told = [(line["path"], line["status"]) for line in lines if line["event"] == "request"]
    assert told == [(SCORES, 200), (SCORES, 499)]
