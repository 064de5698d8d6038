"""`serve`: the API in this process and, unless `--no-worker` is given, one worker beside it."""

import contextlib
import ctypes
import fcntl
import gc
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import structlog
from sqlalchemy import Engine

from service import logs
from service.access.keys import check_reachable
from service.app import create_app
from service.http.server import Server, listen, url_of
from service.settings import Settings
from service.storage.database import check_schema, create_database, migrate
from service.storage.s3 import open_store
from service.work import KINDS
from service.worker.launch import WarmProcess

STOP_S = 9.5  # seconds within which everything has ended after SIGTERM
#: Seconds after which a thread gives the interpreter to a waiting thread. Threads wait for it after
#: each answer of the database: with Python's 5 ms a busy API would take half a second to move an
#: alias, and to notice a move by another process.
SWITCH_S = 0.001
#: Settings of glibc's malloc: two heaps for all threads, and separate pages for large blocks.
#: Without them, models that enter and leave the cache fragment one heap per thread.
M_ARENA_MAX, HEAPS = -8, 2
M_MMAP_THRESHOLD, LARGE = -3, 256 * 1024  # bytes
LOCK = "service.lock"  # in the data folder; holds the number of the process
FIRST_WAIT = 0.5  # seconds before the start after the second quick death; doubled with each one
LONGEST_WAIT = 30.0  # seconds
LIVED = 10.0  # seconds; a worker that dies sooner died quickly
WORKER = (sys.executable, "-P", "-m", "service", "worker", "--stdin-wake", "--warm")

log = structlog.get_logger("serve")


class WorkerProcess:
    """The supervisor's process, started again at once when it dies.

    Its standard input is a pipe: a byte wakes it, and the end of the pipe means that this process
    has ended. Its standard output is a pipe too: each byte means that a job has changed. The warm
    parent of its attempts belongs to this process, and so survives a death of the supervisor.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._warm: WarmProcess | None = None
        #: the ends of a pipe: this process reads from `news`, each worker writes to `_output`
        self.news, self._output = os.pipe()
        os.set_blocking(self.news, False)
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
            return  # the pipe is full, so it will wake; or it has died, and the next one polls

    def ask_to_stop(self) -> None:
        """Order it to save the progress of its jobs and to end."""
        self._is_stopping.set()
        self._send(signal.SIGTERM)

    def hurry(self) -> None:
        """Order it to end at once, without saving."""
        self._is_stopping.set()
        self._send(signal.SIGQUIT)

    def _send(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(number)

    def join(self, timeout_s: float) -> None:
        """Wait for its end; kill it after `timeout_s`."""
        if self._keeper.ident is None:
            return  # it was never started
        self._keeper.join(max(0.0, timeout_s))
        process = self._process
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()

    def _keep(self) -> None:
        quick = 0  # quick deaths in a row
        while not self._is_stopping.is_set():
            began = time.monotonic()
            status = self._run()
            if self._is_stopping.is_set():
                break
            quick = 0 if time.monotonic() - began > LIVED else quick + 1
            wait = wait_before(quick)
            log.error("worker died, starting it again", status=status, wait_s=wait)
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
        with subprocess.Popen(  # noqa: S603  our own constant
            command, stdin=subprocess.PIPE, stdout=self._output, pass_fds=[orders]
        ) as process:
            if process.stdin is not None:
                os.set_blocking(process.stdin.fileno(), False)
            self._process = process
            if self._is_stopping.is_set():  # the stop was ordered during the start
                process.terminate()
            return process.wait()


def wait_before(quick: int) -> float:
    """Return the seconds before a worker's next start, after `quick` quick deaths in a row."""
    return 0.0 if quick < 2 else min(FIRST_WAIT * math.pow(2.0, quick - 2), LONGEST_WAIT)


def keep_memory_whole() -> None:
    """Reduce the fragmentation of memory, if the C library is glibc."""
    with contextlib.suppress(AttributeError, OSError):  # another C library
        library = ctypes.CDLL(None)
        library.mallopt(M_ARENA_MAX, HEAPS)
        library.mallopt(M_MMAP_THRESHOLD, LARGE)


@contextlib.contextmanager
def only_service(settings: Settings) -> Iterator[None]:
    """Hold the lock of an embedded database's data folder; the kernel frees it at our death.

    Raises ValueError if another service holds it.
    """
    if not settings.is_embedded:  # several services may share a folder of scratch files
        yield
        return
    settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (settings.data_dir / LOCK).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ValueError(
                f"process {file.read()} already serves the data folder"
                f" {settings.data_dir.absolute()}: stop it, or set DESCENT_DATA_DIR to another one"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def prepare(settings: Settings) -> Engine:
    """Check the settings, the schema and the keys, and migrate an embedded database.

    Returns the engine of the database.
    """
    open_store(settings)  # raises ValueError if the URL is not valid
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
        log.info("database migrated, the old one is kept", copy=str(copy))


def main(settings: Settings, *, with_worker: bool) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    logs.configure(settings.log_level)
    with only_service(settings):
        _serve(settings, with_worker=with_worker)


def _serve(settings: Settings, *, with_worker: bool) -> None:
    sys.setswitchinterval(SWITCH_S)
    keep_memory_whole()
    engine = prepare(settings)
    worker = WorkerProcess()
    app = create_app(settings, engine, worker.wake, worker.news if with_worker else None)
    # The objects of the imports stay. Garbage collection would spend a tenth of a second on them,
    # in the middle of a request that makes ten thousand rows.
    gc.freeze()
    listener = listen(settings.host, settings.port)
    url = url_of(listener, settings)

    def up() -> None:
        _announce(url)
        if with_worker:  # after our own start, which it would delay
            worker.start()

    server = Server(app, on_up=up, on_stop=worker.ask_to_stop, on_hurry=worker.hurry)

    # uvicorn installs the same handler while it serves.
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
