"""Runs the service for tests: in a thread, or as the process that `descent serve` becomes."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Protocol

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.http.server import Server, listen
from service.settings import Settings
from service.storage.database import create_database

ROOT = Path(__file__).resolve().parent.parent
STOP_S = 10.0  # seconds that the service may take to end
START_S = 60.0  # seconds; a start that takes longer has failed
#: made once, since to read the certificates takes a client longer than its requests
TLS = ssl.create_default_context()


class Process(Protocol):
    """A process of the program: `subprocess.Popen`, or one that was forked."""

    pid: int

    @property
    def stdout(self) -> IO[str] | None: ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...

    def wait(self, timeout: float | None = None) -> int: ...


class Start(Protocol):
    """Starts a command of the program in a data folder, with these settings."""

    def __call__(self, data_dir: Path, *arguments: str, **variables: str) -> Process: ...


class Serve(Protocol):
    """Starts the API with these settings, without a worker, and returns a client of it."""

    def __call__(self, settings: Settings) -> httpx.Client: ...


class RunService(Protocol):
    """Runs the service in a data folder and gives its URL."""

    def __call__(
        self, data_dir: Path, *arguments: str, **variables: str
    ) -> contextlib.AbstractContextManager[str]: ...


def app_of(settings: Settings) -> FastAPI:
    """Return the API, with an engine of its own."""
    return create_app(settings, create_database(settings.resolved_database_url))


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Serve an app in a thread on a free port."""
    listener = listen("127.0.0.1", 0)
    is_up = threading.Event()
    server = Server(app, on_up=is_up.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        assert is_up.wait(START_S), "the server did not start"
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.stop()
        thread.join(START_S)
        listener.close()


def connected(url: httpx.URL) -> socket.socket:
    """Connect to a service, to send what no client would."""
    return socket.create_connection((url.host, url.port or 80), timeout=30)


@contextlib.contextmanager
def running_service(data_dir: Path, *arguments: str, **variables: str) -> Iterator[str]:
    """Run `serve` as a process on a free port; its log is `service.log` in the data folder."""
    process = start_service(data_dir, "serve", *arguments, **variables)
    try:
        yield url_of(process, data_dir)
    finally:
        status = stop(process)
    assert status == 0, "the service did not end well"


def stop(process: Process) -> int:
    """Tell a process to end and return its status; kill one that takes too long, and raise."""
    process.terminate()
    try:
        return process.wait(STOP_S)
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


def environment_of(data_dir: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a service on a free port, with these variables."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DESCENT_")}
    own = {"DESCENT_PORT": "0", "DESCENT_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT)}
    return inherited | own | dict(variables)


def start_service(data_dir: Path, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    with (data_dir / "service.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "service", *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment_of(data_dir, variables),
            cwd=data_dir,
            text=True,
        )


def url_of(process: Process, data_dir: Path) -> str:
    """Wait until a started service listens; return its URL."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        log = (data_dir / "service.log").read_text()[-4000:]
        pytest.fail(f"the service did not start:\n{log}")
    url: str = json.loads(line)["url"]
    return url
