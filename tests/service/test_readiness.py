"""Readiness reports the true state of each part, in time even if the service is busy."""

import contextlib
import socket
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.resources import LIMIT_S
from service.settings import MIB, Settings
from tests.disk import fill, small_disk
from tests.serving import Serve, connected
from tests.warm import until

UPLOADS = 300  # that wait at the same time
PROMPT_S = 2.0  # seconds: the limit, and as much again for this machine
ENDS_S = 60.0
CSV = {"Content-Type": "text/csv"}
UPLOAD = (
    b"POST /api/v1/datasets HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
    b"Content-Length: 8\r\n\r\na,b\n1,2\n"
)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """Return the URL of a database with one lock for all writers."""
    return sqlite_url


def part(answer: httpx.Response, name: str) -> dict[str, Any]:
    (found,) = (each for each in answer.json()["parts"] if each["name"] == name)
    return dict(found)


@contextlib.contextmanager
def write_lock(database_url: str) -> Iterator[None]:
    """Hold the lock of all writers."""
    connection = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)
    with contextlib.closing(connection):
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_probes_are_answered_in_time_while_uploads_occupy_all_threads(
    client: httpx.Client, database_url: str
) -> None:
    assert client.get("/readyz").status_code == 200
    with contextlib.ExitStack() as stack, write_lock(database_url):
        for _ in range(UPLOADS):
            stack.enter_context(connected(client.base_url)).sendall(UPLOAD)
        busy = stack.enter_context(connected(client.base_url))
        busy.sendall(b"GET /api/v1/runs HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready") * 2:
            began = time.monotonic()
            assert client.get(path).status_code == 200
            assert time.monotonic() - began < PROMPT_S
        busy.settimeout(LIMIT_S)
        with pytest.raises(TimeoutError):  # all threads are busy indeed
            busy.recv(1)


def test_a_blob_store_that_does_not_answer_is_reported_in_time(
    settings: Settings, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "tests")
        client = serve(settings.model_copy(update={"blob_url": "s3://silent"}))
        for _ in range(3):
            began = time.monotonic()
            answer = client.get("/readyz")
            assert time.monotonic() - began < PROMPT_S
            assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
            assert part(answer, "blobs") == {
                "name": "blobs",
                "state": "failed",
                "required": True,
                "detail": "The blob store did not answer within 1 s.",
            }
            assert part(answer, "database")["state"] == "ok"


def test_a_full_disk_is_not_ready_until_there_is_space(
    settings: Settings, serve: Serve, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk:
        limits = {"data_dir": disk / "data", "ready_disk_bytes": 2 * MIB}
        (disk / "data").mkdir()
        client = serve(settings.model_copy(update=limits))
        assert client.get("/readyz").status_code == 200
        ballast = fill(disk)
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["status"]) == (503, "not_ready")
        assert part(answer, "disk")["state"] == "failed"
        assert "0 MiB of free space" in part(answer, "disk")["detail"]
        assert "DESCENT_READY_DISK_BYTES" in part(answer, "disk")["detail"]
        upload = client.post("/api/v1/datasets", content=b"a,b\n1,2\n", headers=CSV)
        assert upload.status_code == 507
        ballast.unlink()
        assert until(lambda: client.get("/readyz").status_code == 200, ENDS_S)
