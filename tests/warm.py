"""The warm processes of the tests: each has the program imported, and forks from itself.

- `Parent` is a process that forks commands of the program, and lanes of the chaos. It takes orders
  over its standard input, a socket, and ends with it.
- `Warm` are the warm parents of attempts and of parsers that these commands share: importing torch
  again for each worker would take most of the time.
- `warm_parsers` is the warm parent of the parsers that a test process starts itself.

The commands run the same code as `descent serve --no-worker`, `descent worker` and the command
line. A process that forks stays single-threaded, and opens nothing before a fork that a child might
use.
"""

import atexit
import contextlib
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from tempfile import TemporaryFile
from typing import IO, Any, NoReturn

from fastapi.routing import iter_route_contexts
from sqlalchemy.orm import configure_mappers

from descent.__main__ import main as descent
from service import logs, serve, work
from service.__main__ import main as server
from service.app import common_routes
from service.datasets import sandbox
from service.datasets.kind import PARSES
from service.settings import Settings
from service.work import KINDS
from service.worker.launch import OUTPUT, LocalLauncher, WarmProcess

PATIENCE_S = 60.0  # seconds that a process may take to end
ROOT = Path(__file__).resolve().parent.parent
LANE = "tests.chaos.lane"  # loaded by name, because it imports this module
LANE_S = 600.0  # seconds that a lane of the chaos may take
TICK = 0.02  # seconds between two looks at a process
LARGEST = 1 << 17  # bytes of an order: most of it is an environment
PROGRAMS = {"descent": descent, "server": server}
#: not by `-m`, since then every trainer would import this module
COMMAND = (sys.executable, "-P", "-c", "from tests.warm import main; main()")
WARM_S = 60.0  # seconds; torch takes two of them on an idle machine


@dataclass(frozen=True)
class Order:
    """The order of a lane."""

    database: str
    store: str
    folder: str
    #: of a PostgreSQL server, on which the lane creates its own database
    server: str
    #: of an S3 server's bucket, in which the lane uses its own prefix
    bucket: str
    seed: int
    #: the least number of kills, and the greatest number of histories
    kills: int
    histories: int
    #: only histories whose description contains this text
    only: str = ""


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


@cache
def warm_parsers() -> WarmProcess:
    """Start the process from which all parsers of the tests in this process fork."""
    process = WarmProcess([PARSES.module])
    atexit.register(process.close)
    return process


def environment_of(data_dir: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a service on a free port, with these variables."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("DESCENT_")}
    own = {"DESCENT_PORT": "0", "DESCENT_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT)}
    return inherited | own | dict(variables)


class Parent:
    """The handle of the process in the tests."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        self._orders, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs, log.open("ab") as words:
            self._process = subprocess.Popen(
                COMMAND, env=environment, stdin=theirs.fileno(), stdout=words, stderr=words
            )
        self._trainers_parent = self._pid()

    def fork(self, *arguments: str, environment: Mapping[str, str], log: Path) -> "Forked":
        """Start a command of the server that writes to `log`, in the folder of `log`."""
        reader, writer = os.pipe()
        with log.open("ab") as words, os.fdopen(writer, "wb") as output:
            pid = self._fork("server", arguments, environment, log.parent, [output, words])
        return Forked(self, pid, os.fdopen(reader))

    def run(
        self, *arguments: str, environment: Mapping[str, str], folder: Path
    ) -> subprocess.CompletedProcess[str]:
        """Run the program `descent` to its end, as `subprocess.run` does."""
        with TemporaryFile("w+b") as output, TemporaryFile("w+b") as words:
            pid = self._fork("descent", arguments, environment, folder, [output, words])
            process = Forked(self, pid)
            try:
                status = process.wait()
            finally:
                process.kill()
            texts = [os.pread(f.fileno(), 1 << 24, 0).decode() for f in (output, words)]
        return subprocess.CompletedProcess(arguments, status, *texts)

    def start(self, data_dir: Path, *arguments: str, **variables: str) -> "Forked":
        """Start a service or a worker in a folder, with these settings."""
        environment = environment_of(data_dir, variables)
        return self.fork(*arguments, environment=environment, log=data_dir / "service.log")

    def play(self, order: Order) -> None:
        """Play a lane of the chaos; the process must have its failpoints switched on."""
        folder = Path(order.folder)
        arguments = [json.dumps(asdict(order))]
        with (folder / "lane.log").open("ab") as log:
            pid = self._fork("lane", arguments, os.environ, folder, [log, log])
        try:
            Forked(self, pid).wait(LANE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, SIGKILL)  # and all its forks

    def trainers(self) -> list[int]:
        """Return the training processes of all workers."""
        return attempts(self._trainers_parent)

    def status_of(self, pid: int) -> int | None:
        """Return the exit status of a forked process, or None while it runs; call it until then."""
        self._orders.send(json.dumps({"ended": pid}).encode())
        return self._answer()

    def end(self) -> None:
        """End it and all its forks."""
        self._orders.close()
        self._process.wait()

    def _fork(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        files: Sequence[IO[bytes]],
    ) -> int:
        order: dict[str, Any] = {"program": name, "arguments": arguments}
        order |= {"environment": dict(environment), "folder": str(folder)}
        descriptors = [file.fileno() for file in files]
        socket.send_fds(self._orders, [json.dumps(order).encode()], descriptors)
        return self._pid()

    def _pid(self) -> int:
        pid = self._answer()
        assert pid is not None
        return pid

    def _answer(self) -> int | None:
        text = self._orders.recv(LARGEST)
        assert text, f"the warm process has ended: {self._log.read_text()[-4000:]}"
        answer: int | None = json.loads(text)
        return answer


class Forked:
    """A forked process, with the part of `subprocess.Popen` that tests use."""

    def __init__(self, parent: Parent, pid: int, output: IO[str] | None = None) -> None:
        self._parent, self.pid, self.stdout = parent, pid, output
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            self._status = self._parent.status_of(self.pid)
            if self._status is not None and self.stdout is not None:
                self.stdout.close()
        return self._status

    def wait(self, timeout: float | None = None) -> int:
        limit = PATIENCE_S if timeout is None else timeout
        deadline = time.monotonic() + limit
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", limit)
            time.sleep(TICK)
        return status

    def send_signal(self, number: Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(SIGTERM)

    def kill(self) -> None:
        self.send_signal(SIGKILL)


# ---- in the process -----------------------------------------------------------------------------


def main() -> None:
    """Execute orders until the socket is closed."""
    orders = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    for name in ("descent.cli", LANE):
        import_module(name)  # otherwise each command line would load it again
    warm = Warm()
    _say(orders, warm.pid)
    alive: set[int] = set()
    try:
        _obey(orders, warm, alive)
    finally:
        for pid in alive:
            os.kill(pid, SIGKILL)


def _obey(orders: socket.socket, warm: Warm, alive: set[int]) -> None:
    while True:
        text, files, _, _ = socket.recv_fds(orders, LARGEST, 2)
        if not text:
            return
        order = json.loads(text)
        if "ended" in order:
            status = _status(order["ended"])
            if status is not None:
                alive.discard(order["ended"])
            _say(orders, status)
            continue
        pid = os.fork()
        if pid == 0:
            orders.close()
            _become(warm, order, files)
        for descriptor in files:
            os.close(descriptor)
        alive.add(pid)
        _say(orders, pid)


def _become(warm: Warm, order: Mapping[str, Any], files: list[int]) -> NoReturn:
    """Run the command of an order in this process, which then ends."""
    status: object = 1
    try:
        for stream, descriptor in enumerate(files, start=1):
            os.dup2(descriptor, stream)
            os.close(descriptor)
        os.chdir(order["folder"])
        os.environ.clear()
        os.environ.update(order["environment"])
        if order["program"] == "lane":
            os.setsid()
            import_module(LANE).play(order["arguments"][0], warm)
        else:
            warm.become_api()
            sys.argv = [order["program"], *order["arguments"]]
            if "worker" in order["arguments"]:
                sys.argv += ["--warm", str(warm.orders)]
            PROGRAMS[order["program"]]()
        status = 0
    except SystemExit as end:
        status = end.code
        if isinstance(status, str):
            sys.stderr.write(f"{status}\n")
    except BaseException:  # noqa: BLE001  the child must end here, whatever it was
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status if isinstance(status, int) else 1)


def _status(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _say(orders: socket.socket, answer: int | None) -> None:
    orders.send(json.dumps(answer).encode())
