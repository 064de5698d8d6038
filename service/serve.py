"""`serve`: the API in this process and, unless told otherwise, one supervisor beside it."""

import contextlib
import ctypes
import gc
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import structlog
from sqlalchemy import Engine

from service import logs
from service.access.keys import check_reachable
from service.app import create_app
from service.http.server import Server, listen, url_of
from service.kinds import KINDS
from service.settings import Settings
from service.storage.database import check_schema, create_database, migrate
from service.storage.stores import open_store
from service.worker.launch import WarmProcess

STOP_S = 9.5  # seconds within which everything has ended after SIGTERM
#: seconds after which a thread hands on the interpreter to one that waits for it. Threads wait for
#: it after each answer of the database: with Python's 5 ms a busy API would need half a second to
#: move an alias, and to notice that another process has moved one.
SWITCH_S = 0.001
#: How glibc's malloc is to behave: two heaps for all threads, and pages of their own for what is
#: large. Else the models that come and go through the cache leave a heap for each thread with holes
#: that none of the next ones fits.
M_ARENA_MAX, HEAPS = -8, 2
M_MMAP_THRESHOLD, LARGE = -3, 256 * 1024  # bytes
FIRST_WAIT = 0.5  # seconds before the second start after quick deaths; doubled with each one
LONGEST_WAIT = 30.0
LIVED = 10.0  # seconds; a worker that dies sooner has died quickly
WORKER = (sys.executable, "-P", "-m", "service", "worker", "--stdin-wake", "--warm")

log = structlog.get_logger("serve")


class WorkerProcess:
    """The supervisor's process, started again at once when it dies.

    Its standard input is a pipe: a byte wakes it, and the end of the pipe means that this process
    has ended. The warm parent of its attempts belongs to this process, and so survives it.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._warm: WarmProcess | None = None
        self._is_stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keep worker", daemon=True)

    def start(self) -> None:
        self._keeper.start()

    def wake(self) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        try:
            os.write(process.stdin.fileno(), b"\n")
        except (OSError, ValueError):
            return  # it is full, so it will wake; or gone, so the next one looks by itself

    def ask_to_stop(self) -> None:
        """Have it save its runs and end."""
        self._is_stopping.set()
        self._send(signal.SIGTERM)

    def hurry(self) -> None:
        """Have it end at once, without saving what it trains."""
        self._is_stopping.set()
        self._send(signal.SIGQUIT)

    def _send(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def join(self, timeout_s: float) -> None:
        """Wait for the end; kill what is left after `timeout_s`."""
        if self._keeper.ident is None:
            return  # it was never started
        self._keeper.join(max(0.0, timeout_s))
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()

    def _keep(self) -> None:
        quick = 0  # deaths one after the other
        while not self._is_stopping.is_set():
            began = time.monotonic()
            status = self._run()
            if self._is_stopping.is_set():
                break
            quick = 0 if time.monotonic() - began > LIVED else quick + 1
            wait = wait_before(quick)
            log.error("the worker died and is started again", status=status, wait_s=wait)
            self._is_stopping.wait(wait)
        if self._warm is not None:
            self._warm.close()

    def _run(self) -> int:
        if self._warm is not None and self._warm.has_ended():
            self._warm.close()
            self._warm = None
        if self._warm is None:
            self._warm = WarmProcess([kind.module for kind in KINDS])
        orders = self._warm.orders.fileno()
        command = [*WORKER, str(orders)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[orders]) as process:  # noqa: S603  our own constant
            if process.stdin is not None:
                os.set_blocking(process.stdin.fileno(), False)
            self._process = process
            if self._is_stopping.is_set():  # asked while it was being made
                process.terminate()
            return process.wait()


def wait_before(quick: int) -> float:
    """Return the seconds before a worker's next start, after so many quick deaths in a row."""
    return 0.0 if quick < 2 else min(FIRST_WAIT * math.pow(2.0, quick - 2), LONGEST_WAIT)


def keep_memory_whole() -> None:
    with contextlib.suppress(AttributeError, OSError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(M_ARENA_MAX, HEAPS)
        library.mallopt(M_MMAP_THRESHOLD, LARGE)


def prepare(settings: Settings) -> Engine:
    """Bring the embedded database up to date, or check that another one is; check the keys.

    Returns its engine.
    """
    open_store(settings)  # raises where the URL is none that we can use
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings.scratch_dir.mkdir(exist_ok=True, mode=0o700)
    engine = create_database(settings.resolved_database_url)
    try:
        if settings.is_embedded:
            _log_copy(migrate(engine))
        check_schema(engine)
        check_reachable(engine, settings)
    except BaseException:
        engine.dispose()
        raise
    return engine


def _log_copy(copy: Path | None) -> None:
    if copy is not None:
        log.info("the database was migrated; the old one was kept", copy=str(copy))


def main(settings: Settings, *, with_worker: bool) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    logs.configure(settings.log_level)
    sys.setswitchinterval(SWITCH_S)
    keep_memory_whole()
    engine = prepare(settings)
    worker = WorkerProcess()
    app = create_app(settings, engine, worker.wake)
    # What is loaded by now stays: to look through it for garbage again and again takes a tenth of a
    # second each time, in the middle of a request that makes ten thousand rows.
    gc.freeze()
    listener = listen(settings.host, settings.port)
    url = url_of(listener, settings)

    def up() -> None:
        _announce(url)
        if with_worker:  # only now, because its start would slow down ours
            worker.start()

    server = Server(app, on_up=up, on_stop=worker.ask_to_stop, on_hurry=worker.hurry)

    # While uvicorn serves it has the same handler for them.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    try:
        server.run(sockets=[listener])
    finally:
        worker.ask_to_stop()
        worker.join(STOP_S - server.stopping_for())


def _announce(url: str) -> None:
    sys.stdout.write(json.dumps({"event": "listening", "url": url}) + "\n")
    sys.stdout.flush()
