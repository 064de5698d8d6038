"""The service's processes for a history, forked from this one, which has everything imported.

They run the same code as `descent worker` and `descent serve`. Only the warm parents of trainers
and of parsers are shared: importing torch again for each killed worker would take most of the time.
This process stays single-threaded and opens nothing before a fork that a child might use.
"""

import gc
import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, NoReturn

from fastapi.routing import iter_route_contexts
from sqlalchemy.orm import configure_mappers

from service import logs, serve, work
from service.app import common_routes
from service.datasets import sandbox
from service.settings import Settings
from service.work import KINDS
from service.worker.launch import OUTPUT, LocalLauncher, WarmProcess

TICK = 0.02  # seconds between two looks
WARM_S = 60.0  # seconds; torch takes two of them on an idle machine


class Warm:
    """The warm parents that all workers and APIs of this process fork from."""

    def __init__(self) -> None:
        modules = [kind.module for kind in KINDS]
        self._attempts = WarmProcess(modules)
        until(LocalLauncher(modules, self._attempts.orders).is_warm, WARM_S)
        self.pid = self._attempts.pid
        #: the descriptor through which a worker orders its attempts
        self.orders = self._attempts.orders.fileno()
        self._parsers: Any = forkserver.ForkServer()
        self._parsers.set_forkserver_preload(sandbox.WARM)
        self._parsers.ensure_running()
        # Each child would repeat work that a process does once.
        configure_mappers()
        list(iter_route_contexts(common_routes()))
        gc.freeze()  # the imported objects: a collection in a child would copy their memory

    def trainers(self) -> list[int]:
        """Return the training processes."""
        return attempts(self.pid)

    def become_api(self) -> None:
        """Let a forked child start parsers from this process."""
        module: Any = forkserver
        # The check of the parent would fail, since this parent belongs to another process.
        self._parsers.ensure_running = module.ensure_running = _nothing
        module.connect_to_new_process = self._parsers.connect_to_new_process


def children(pid: int) -> list[int]:
    """Return the child processes of `pid`; one may be missing while others end."""
    tasks = (Path("/proc") / str(pid) / "task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def attempts(pid: int) -> list[int]:
    """Return the children of a warm parent that do a job: no spare child writes an output file."""
    return [child for child in children(pid) if OUTPUT in _standard_output(child)]


def _standard_output(pid: int) -> str:
    with suppress(OSError):  # it has ended meanwhile
        return str(Path(f"/proc/{pid}/fd/1").readlink())
    return ""


def _nothing() -> None:
    return


def start_worker(warm: Warm, settings: Settings, log: Path) -> int:
    """Fork a worker; return its process."""

    def run() -> None:
        work.main(settings, stdin_wake=False, warm=warm.orders)

    return fork(run, log)


def start_api(warm: Warm, settings: Settings, log: Path) -> int:
    """Fork the API without a worker; return its process."""

    def run() -> None:
        warm.become_api()
        serve.main(settings, with_worker=False)

    return fork(run, log)


def fork(run: Callable[[], None], log: Path) -> int:
    """Call `run` in a child that writes to `log`; return its process."""
    child = os.fork()
    return child or _run(run, log)


def ask(question: Callable[[], Any], log: Path) -> Any:
    """Call `question` in a child, so that it may open stores and databases; return its result."""
    reader, writer = os.pipe()

    def answer() -> None:
        with os.fdopen(writer, "w") as pipe:
            json.dump(question(), pipe)

    child = fork(answer, log)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    assert text, f"a check failed:\n{log.read_text()[-4000:]}"
    return json.loads(text)


def _run(run: Callable[[], None], log: Path) -> NoReturn:
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        logs.configure("warning", os.fdopen(descriptor, "a", buffering=1))
        run()
        status = 0
    except BaseException:  # noqa: BLE001  the child must end here, whatever it was
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def has_ended(pid: int) -> bool:
    """Whether a child has ended; this reaps it, so call it only until then."""
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def end(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to a child and wait until it has ended."""
    os.kill(pid, number)
    os.waitpid(pid, 0)


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped a process."""
    stat = (Path("/proc") / str(pid) / "stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"


def until(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until the condition holds; return whether it did in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(TICK)
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
