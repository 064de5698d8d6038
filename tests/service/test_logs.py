"""The log: JSON lines that tell what happened, and never a key or what a client sent."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from descent.strict import Strict
from service import logs
from service.app import create_app
from service.http import router
from service.settings import Settings
from tests.serving import serving

SECRET = "canary-of-the-key-0123"
probes = router("/probe")


class Body(Strict):
    """What the probe takes."""

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
def probe(log: io.StringIO, sqlite_url: str, tmp_path: Path) -> Iterator[httpx.Client]:
    app = create_app(
        Settings(data_dir=tmp_path, database_url=sqlite_url, api_key=SecretStr(SECRET))
    )
    app.include_router(probes)
    headers = {"Authorization": f"Bearer {SECRET}"}
    with serving(app) as url, httpx.Client(base_url=url, headers=headers) as client:
        yield client


def lines(log: io.StringIO, logger: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.getvalue().splitlines()]
    return [line for line in found if line["logger"] == logger]


def test_each_request_has_one_line_with_its_id(probe: httpx.Client, log: io.StringIO) -> None:
    answer = probe.get("/api/v1/models/x")
    (line,) = lines(log, "service.access")
    assert line["request_id"] == answer.headers["X-Request-ID"]
    assert (line["method"], line["route"], line["status"]) == ("GET", "/api/v1/models/{name}", 404)
    assert line["caller"] == "setting"
    assert line["duration_ms"] > 0


def test_a_fault_is_logged_under_the_id_that_the_client_got(
    probe: httpx.Client, log: io.StringIO
) -> None:
    problem = probe.post("/probe/fails", json={"value": "x"}).json()
    line = next(line for line in lines(log, "service.access") if "exception" in line)
    assert line["request_id"] == problem["request_id"]
    assert "RuntimeError: on purpose" in line["exception"]


def test_no_key_and_no_body_ever_reaches_the_log(probe: httpx.Client, log: io.StringIO) -> None:
    made = probe.post("/api/v1/keys", json={"name": "x"}).json()
    probe.get("/api/v1/keys", headers={"Authorization": f"Bearer {made['secret']}"})
    probe.get("/api/v1/keys", headers={"Authorization": "Bearer canary-of-a-wrong-key"})
    probe.post("/probe/fails", json={"value": "canary-of-a-body"})
    assert "canary" not in log.getvalue()
    assert made["secret"] not in log.getvalue()


def test_a_client_cannot_forge_a_line(probe: httpx.Client, log: io.StringIO) -> None:
    probe.get("/x%0a%7b%22event%22:%22forged%22%7d%1b%5b2J")
    (line,) = lines(log, "service.access")
    assert "forged" in line["path"]
    assert "\x1b" not in log.getvalue()
