"""Starting the processes of attempts: the Launcher protocol, and the launcher of this machine.

Every message is JSON, and no process of an attempt inherits a credential.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from models import failpoints
from service.jobs.messages import Message
from service.jobs.pipe import Pipe
from service.worker.warm import JOB, READY, Order

PROGRAM = (sys.executable, "-P", "-m", "service.worker.warm")
#: beginnings of the names of variables that may hold credentials
SECRET = ("DESCENT_", "PG", "AWS_")
STATUS_BYTES = 64  # at most, of an exit status as JSON
NOTHING: Mapping[str, str] = {}


class Child(Protocol):
    """The process of an attempt, seen from its supervisor."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when a message or the end has come."""
        ...

    def has_message(self) -> bool:
        """Say whether a whole message, or the end, is there; never waits for the rest of one."""
        ...

    def receive(self) -> bytes | None:
        """Return the next message as JSON, or None at the end, once `has_message`."""
        ...

    def send(self, message: Message) -> None:
        """Send a message; one to a process that has ended is dropped."""
        ...

    def kill(self) -> None: ...

    def show_stack(self) -> None:
        """Have the process write its stack into its output, if it still can."""
        ...

    def exit_code(self) -> int | None:
        """Wait for the end and return the exit status, negative for a signal; None if unknown."""
        ...


class Launcher(Protocol):
    """Starts the processes of attempts somewhere."""

    def start(
        self,
        module: str,
        job: BaseModel,
        scratch: Path,
        lock: int | None = None,
        environment: Mapping[str, str] = NOTHING,
    ) -> Child:
        """Start an attempt in `module`, with some variables of its own.

        Its process keeps the descriptor `lock` open until it ends.
        """
        ...

    def is_warm(self) -> bool: ...


class LocalChild(Pipe):
    """A process on this machine."""

    def send(self, message: Message) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            super().send(message)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it has not ended."""
        raise NotImplementedError

    def exit_code(self) -> int | None:
        raise NotImplementedError

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def show_stack(self) -> None:
        self.send_signal(signal.SIGUSR1)


class ForkedChild(LocalChild):
    """A child of the warm parent, which passes signals on and reports the end; see `warm.Order`."""

    def __init__(self, end: socket.socket, control: socket.socket) -> None:
        super().__init__(end)
        self._control = control

    def send_signal(self, number: signal.Signals) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            self._control.sendall(bytes([number]))

    def close(self) -> None:
        """Close our ends; the warm parent kills the process if it still runs."""
        super().close()
        self._control.close()

    def exit_code(self) -> int | None:
        status = b""
        with suppress(ConnectionResetError):
            status = self._control.recv(STATUS_BYTES)
        self.close()
        return int(json.loads(status)) if status else None  # else the warm parent has died


class SpawnedChild(LocalChild):
    """A child of this process."""

    def __init__(self, end: socket.socket, process: "subprocess.Popen[bytes]") -> None:
        super().__init__(end)
        self._process = process

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def exit_code(self) -> int | None:
        status = self._process.wait()
        self.close()
        return status


class WarmProcess:
    """A warm parent, seen from the process that started it and must `close` it."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.orders, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603  our own constants
                [*PROGRAM, "fork", str(theirs.fileno()), *modules],
                env=_environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self.pid = self._process.pid

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def close(self) -> None:
        """End it, and with it all attempts that it has forked."""
        self.orders.close()
        self._process.kill()
        self._process.wait()


class LocalLauncher:
    """Has a warm parent fork the attempts: one that was handed over, or else one of its own.

    On macOS, where a fork is not safe, it starts a new interpreter for each attempt.
    """

    def __init__(
        self,
        modules: Sequence[str],
        orders: socket.socket | None = None,
        *,
        spawns: bool = sys.platform == "darwin",
    ) -> None:
        self._modules = modules
        self._spawns = self._is_warm = spawns
        #: the socket of the warm parent; None where there is none yet
        self._orders = orders
        self._own: WarmProcess | None = None
        #: brings the answer of a warm parent that was asked whether it is warm
        self._answer: socket.socket | None = None
        self.is_warm()

    def is_warm(self) -> bool:
        if not self._is_warm:
            self._is_warm = self._has_answered()
        return self._is_warm

    def start(
        self,
        module: str,
        job: BaseModel,
        scratch: Path,
        lock: int | None = None,
        environment: Mapping[str, str] = NOTHING,
    ) -> LocalChild:
        (scratch / JOB).write_text(job.model_dump_json())
        ours, theirs = socket.socketpair()
        with theirs:
            kept = [theirs.fileno()] if lock is None else [theirs.fileno(), lock]
            if self._spawns:
                return SpawnedChild(ours, _spawn(module, scratch, kept, environment))
            try:
                control = self._fork(Order(module, str(scratch), environment), kept)
            except ConnectionError:  # the supervisor gives the job back
                ours.close()
                self._forget_parent()
                raise
        return ForkedChild(ours, control)

    def close(self) -> None:
        """End the warm parent, if it is our own."""
        if self._own is not None:
            self._own.close()
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _has_answered(self) -> bool:
        try:
            if self._answer is None:
                self._answer = self._fork(Order())
            answer = self._answer.recv(STATUS_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionError:
            answer = b""
        if self._answer is not None:
            self._answer.close()
            self._answer = None
        if not answer:
            self._forget_parent()
        return answer == READY

    def _fork(self, order: Order, descriptors: Sequence[int] = ()) -> socket.socket:
        """Order a fork and return our end of the control socket. Raises ConnectionError."""
        if self._orders is None:
            self._own = WarmProcess(self._modules)
            self._orders = self._own.orders
        control, theirs = socket.socketpair()
        with theirs:
            text = json.dumps(asdict(order)).encode()
            try:
                socket.send_fds(self._orders, [text], [theirs.fileno(), *descriptors])
            except ConnectionError:
                control.close()
                raise
        return control

    def _forget_parent(self) -> None:
        """Use another warm parent from now on, because this one has died."""
        self.close()
        self._own = self._orders = None
        self._is_warm = False


def _spawn(
    module: str, scratch: Path, descriptors: Sequence[int], environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603  our own constants
        [*PROGRAM, "attempt", str(descriptors[0]), module, str(scratch)],
        env=_environment() | dict(environment),
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
    )


def _environment() -> dict[str, str]:
    """Return our variables without those that may hold a credential."""
    return {
        name: value
        for name, value in os.environ.items()
        if name == failpoints.VARIABLE or not name.startswith(SECRET)
    }
