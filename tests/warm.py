"""A process that has the program imported and forks commands, so that they start fast.

The forks run the same code as `descent serve --no-worker`, `descent worker` and the command line;
they share only the warm parents of trainers and of parsers. The process and its trainers use the
failpoints of its environment. It reads orders from its standard input, a socket, and ends with it.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from tempfile import TemporaryFile
from typing import IO, Any, NoReturn

from descent.__main__ import main as descent
from service.__main__ import main as server
from tests.chaos import lane
from tests.chaos.lane import Order
from tests.chaos.processes import Warm, attempts, until
from tests.serving import environment_of, stop, url_of

PATIENCE_S = 60.0  # seconds that a process may take to end
LANE_S = 600.0  # seconds that a lane of the chaos may take
TICK = 0.02  # seconds between two looks at a process
LARGEST = 1 << 17  # bytes of an order: most of it is an environment
PROGRAMS = {"descent": descent, "server": server}
#: not by `-m`, since then every trainer would import this module
COMMAND = (sys.executable, "-P", "-c", "from tests.warm import main; main()")


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


# ---- in the process -----------------------------------------------------------------------------


def main() -> None:
    """Execute orders until the socket is closed."""
    orders = socket.socket(fileno=os.dup(0))
    with Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    import_module("descent.cli")  # otherwise each command line would load it again
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
            lane.play(order["arguments"][0], warm)
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
