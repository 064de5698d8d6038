"""A process that has the worker imported, and forks workers from itself: in no time, not seconds.

What runs in them is what `descent worker` runs; only the warm parent of the trainers is shared. It
reads orders from its standard input, a line of JSON each, and ends with it. It starts with the
failpoints of its environment, and so do its trainers.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals
from typing import Any, cast

from service.__main__ import main as service
from tests.chaos.processes import Warm, children, fork

TICK = 0.02  # seconds between two looks at a process
#: not by `-m`, since then every trainer would import this module
COMMAND = (sys.executable, "-P", "-c", "from tests.service.jobs.warm import main; main()")


class Parent:
    """The process, seen from the tests."""

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        with log.open("ab") as words:
            self._process = subprocess.Popen(
                COMMAND,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
            )
        self._trainers_parent = cast(int, self._hear())

    def fork(self, environment: Mapping[str, str], log: Path) -> "Forked":
        """Start a worker that writes to `log`."""
        return Forked(self, cast(int, self.ask(environment=dict(environment), log=str(log))))

    def trainers(self) -> list[int]:
        """Return the processes that train now, for whichever worker."""
        return children(self._trainers_parent)

    def end(self) -> None:
        """End it, and whatever it has forked."""
        self._process.communicate()

    def ask(self, **order: Any) -> int | None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> int | None:
        assert self._process.stdout is not None
        return cast("int | None", json.loads(self._process.stdout.readline()))


class Forked:
    """A forked worker, with as much of `subprocess.Popen` as tests use."""

    def __init__(self, parent: Parent, pid: int) -> None:
        self._parent, self.pid = parent, pid
        self._status: int | None = None

    def poll(self) -> int | None:
        if self._status is None:
            self._status = self._parent.ask(poll=self.pid)
        return self._status

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"worker {self.pid}", timeout)
            time.sleep(TICK)
        return status

    def send_signal(self, number: Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(SIGTERM)

    def kill(self) -> None:
        self.send_signal(SIGKILL)


def main() -> None:
    warm = Warm()
    _say(warm.pid)
    alive: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if "poll" in order:
            status = _status(order["poll"])
            if status is not None:
                alive.discard(order["poll"])
            _say(status)
        else:
            pid = fork(partial(_work, warm, order["environment"]), Path(order["log"]))
            alive.add(pid)
            _say(pid)
    for pid in alive:
        os.kill(pid, SIGKILL)


def _work(warm: Warm, environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)
    warm.share()
    service(["worker"])


def _status(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _say(answer: int | None) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
