"""The log: JSON lines of events, without keys and without the data of clients."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from descent.fields import Strict
from service import logs
from service.http.strict_route import router
from service.settings import Settings
from tests.serving import app_of, serving

SECRET = "canary-of-the-key-0123"
probes = router("/probe")


class Body(Strict):
    """The body of the probe."""

    value: str


@probes.post("/fails")
def fail(body: Body) -> None:
    raise RuntimeError("on purpose")


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logs.configure("info", stream)
    yield stream
    logs.configure("warning")


@pytest.fixture
def probe(
    log: io.StringIO,
    sqlite_url: str,
    tmp_path: Path,
) -> AbstractContextManager[httpx.Client]:
    """Return a service whose log is complete at its end."""
    app = app_of(Settings(data_dir=tmp_path, database_url=sqlite_url, api_key=SecretStr(SECRET)))
    app.include_router(probes)

    @contextmanager
    def served() -> Iterator[httpx.Client]:
        headers = {"Authorization": f"Bearer {SECRET}"}
        with serving(app) as url, httpx.Client(base_url=url, headers=headers) as client:
            yield client

    return served()


def lines(log: io.StringIO, logger: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in found if line["logger"] == logger]


def test_each_request_has_one_line_with_its_id(
    probe: AbstractContextManager[httpx.Client], log: io.StringIO
) -> None:
    with probe as client:
        answer = client.get("/api/v1/models/x")
    (line,) = lines(log, "service.access")
    assert line["request_id"] == answer.headers["X-Request-ID"]
    assert (line["method"], line["route"], line["status"]) == ("GET", "/api/v1/models/{name}", 404)
    assert line["caller"] == "setting"
    assert line["duration_ms"] > 0


def test_a_fault_is_logged_under_the_id_that_the_client_got(
    probe: AbstractContextManager[httpx.Client], log: io.StringIO
) -> None:
    with probe as client:
        problem = client.post("/probe/fails", json={"value": "x"}).json()
    line = next(line for line in lines(log, "service.access") if "exception" in line)
    assert line["request_id"] == problem["request_id"]
    assert "RuntimeError: on purpose" in line["exception"]


def test_no_key_and_no_body_ever_reaches_the_log(
    probe: AbstractContextManager[httpx.Client], log: io.StringIO
) -> None:
    with probe as client:
        made = client.post("/api/v1/keys", json={"name": "x"}).json()
        client.get("/api/v1/keys", headers={"Authorization": f"Bearer {made['secret']}"})
        client.get("/api/v1/keys", headers={"Authorization": "Bearer canary-of-a-wrong-key"})
        client.post("/probe/fails", json={"value": "canary-of-a-body"})
    assert "canary" not in log.getvalue()
    assert made["secret"] not in log.getvalue()


def test_a_client_cannot_forge_a_line(
    probe: AbstractContextManager[httpx.Client], log: io.StringIO
) -> None:
    with probe as client:
        client.get("/x%0a%7b%22event%22:%22forged%22%7d%1b%5b2J")
    (line,) = lines(log, "service.access")
    assert "forged" in line["path"]
    assert "\x1b" not in log.getvalue()


def test_lines_of_a_moment_are_written_together_and_in_their_order(log: io.StringIO) -> None:
    async def serve() -> list[str]:
        logs.access("req_1")
        logs.access("req_2")
        before = log.getvalue()
        await asyncio.sleep(0)
        together = log.getvalue()
        logs.access("req_3")
        logging.getLogger("other").warning("fault")
        return [before, together, log.getvalue()]

    before, together, mixed = asyncio.run(serve())
    ids = [
        [json.loads(line).get("request_id") for line in each.splitlines()]
        for each in (before, together, mixed)
    ]
    assert ids == [[], ["req_1", "req_2"], ["req_1", "req_2", "req_3", None]]


def test_no_line_is_lost_where_the_log_ends(log: io.StringIO) -> None:
    async def serve() -> str:
        logs.access("req_1")
        logs.configure("warning")  # closes the previous handler
        return log.getvalue()

    assert "req_1" in asyncio.run(serve())


def test_a_log_that_is_gone_stops_nobody() -> None:
    stream = io.StringIO()
    logs.configure("info", stream)
    stream.close()
    logs.access("req_1")
    logs.configure("warning")
