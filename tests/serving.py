"""Runs the service for tests: in a thread, or as the process that `descent serve` becomes."""

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM
from typing import IO, Protocol

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import Engine

from service.app import create_app
from service.datasets.kind import PARSES, SMALL_PARSES
from service.datasets.versions import Parse
from service.http.server import Server, listen
from service.jobs import queue
from service.jobs.kind import Site
from service.settings import Settings
from service.storage.database import create_database, reading
from service.storage.s3 import open_store
from service.worker.launch import LocalLauncher
from service.worker.supervisor import Supervisor
from tests.warm import PATIENCE_S, Forked, Parent, environment_of, until, warm_parsers

ROOT = Path(__file__).resolve().parent.parent
STOP_S = 10.0  # seconds that the service may take to end
START_S = 60.0  # seconds; a start that takes longer has failed
#: created once, since reading the certificates takes a client longer than its requests
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


class Parser:
    """A worker in a thread that only parses uploads, from the first upload on."""

    def __init__(self, settings: Settings, engine: Engine) -> None:
        self._settings, self._engine = settings, engine
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = -1
        self._is_closed = False

    def wake(self) -> None:
        with self._lock:
            # A request may still commit after the end. A worker that began then would stay, and
            # claim the jobs of a later test, whose database gets the same engine.
            if self._is_closed or (self._thread is None and not self._has_work()):
                return
            if self._thread is None:
                reader, self._wake = os.pipe()
                self._thread = threading.Thread(target=self._run, args=(reader,), daemon=True)
                self._thread.start()
            os.write(self._wake, b"\n")

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._thread is not None:
                os.close(self._wake)  # the supervisor stops
                self._thread.join(START_S)
                assert not self._thread.is_alive(), "the parser did not stop"
                # A closed descriptor may belong to another file by then, such as a database.
                self._thread, self._wake = None, -1

    def _has_work(self) -> bool:
        with reading(self._engine) as session:
            return bool(queue.waiting(session, [Parse]))

    def _run(self, wake: int) -> None:
        kinds = (SMALL_PARSES, PARSES)
        launcher = LocalLauncher([PARSES.module], warm_parsers().orders)
        site = Site(self._settings, self._engine, open_store(self._settings))
        Supervisor(site, kinds, launcher).run(wake)
        os.close(wake)


def app_of(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """Return the API with its own parser, and its own engine unless one is given."""
    engine = engine or create_database(settings.resolved_database_url)
    parser = Parser(settings, engine)
    app = create_app(settings, engine, parser.wake)
    app.state.parser = parser
    return app


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
        if hasattr(app.state, "parser"):  # an app without uploads has none
            app.state.parser.close()
        server.stop()
        thread.join(START_S)
        listener.close()


def connected(url: httpx.URL) -> socket.socket:
    """Connect to a service, to send bytes that no HTTP client sends."""
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


@contextlib.contextmanager
def forked_service(
    parent: Parent, data_dir: Path, *arguments: str, **variables: str
) -> Iterator[str]:
    """Run the API on a free port and, but for `--no-worker`, a worker; give the URL."""
    with contextlib.ExitStack() as stack:

        def start(command: str, *options: str) -> Forked:
            process = parent.start(data_dir, command, *options, **variables)
            stack.callback(_stop, process)
            return process

        url = url_of(start("serve", "--no-worker"), data_dir)
        if "--no-worker" not in arguments:
            start("worker")
        yield url


def _stop(process: Forked) -> None:
    # A worker that has just started may not handle the signal yet.
    until(lambda: process.poll() is not None or _obeys(process.pid), PATIENCE_S)
    assert stop(process) == 0, "the service did not end well"


def _obeys(pid: int) -> bool:
    """Whether a process has a handler for SIGTERM; without one the signal would kill it."""
    status = (Path("/proc") / str(pid) / "status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (SIGTERM - 1) & 1)
