"""The server: its answers to bytes that are no valid HTTP."""

import json

import httpx
import pytest
from sqlalchemy import Engine

from service.settings import Settings
from service.storage.database import writing
from tests.service.rows import add_run
from tests.serving import app_of, connected, serving

HEAD = b"POST /api/v1/keys HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def sent(client: httpx.Client, data: bytes) -> tuple[bytes, dict[str, str], bytes]:
    """Send bytes on a new connection; return status line, headers and body."""
    with connected(client.base_url) as connection:
        connection.sendall(data)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    return status, dict(line.decode().lower().split(": ", 1) for line in lines), body


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET /\xc3\xbc HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n",
        HEAD + b"Content-Length: abc\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    ],
)
def test_what_is_no_http_gets_a_problem_and_the_end_of_its_connection(
    client: httpx.Client, data: bytes
) -> None:
    status, headers, body = sent(client, data)
    assert status == b"HTTP/1.1 400 Bad Request"
    assert headers["content-type"] == "application/problem+json"
    assert headers["content-length"] == str(len(body))
    assert (headers["connection"], headers["cache-control"]) == ("close", "no-store")
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (400, "malformed_request")
    assert headers["x-request-id"] == problem["request_id"]


def test_what_is_no_http_is_not_answered_in_the_middle_of_another_answer(
    client: httpx.Client, engine: Engine
) -> None:
    with writing(engine) as session:
        run = add_run(session)
    with connected(client.base_url) as connection:
        connection.sendall(
            f"GET /api/v1/runs/{run.id}/events HTTP/1.1\r\n"
            "Host: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"nonsense\r\n\r\n")
        rest = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"HTTP/1.1" not in rest


def test_who_came_before_the_stop_is_answered(settings: Settings) -> None:
    with serving(app_of(settings)) as url:
        connection = connected(httpx.URL(url))
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    with connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
