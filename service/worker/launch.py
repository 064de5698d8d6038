"""Starting the processes that work: the Launcher protocol, and warm processes on this machine.

A warm parent has torch imported (about two seconds) and forks each attempt from itself in
milliseconds. It imports and never computes: torch's threads would not survive the fork. Only our
own constants are handed over at the start; every message is JSON.
"""

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from multiprocessing import forkserver, get_context, reduction
from multiprocessing.context import (
    ForkServerContext,
    ForkServerProcess,
    SpawnContext,
    SpawnProcess,
)
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from service.jobs.messages import Message
from service.jobs.pipe import Pipe

#: imported by pyarrow with its first conversion, where it is installed: a third of a second, which
#: every child would spend anew; where it is not, the warm parent goes on without
LATE = "pandas"
PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


class Child(Protocol):
    """The process of an attempt, seen from its supervisor."""

    def fileno(self) -> int:
        """Return what becomes readable when a message or the end has come."""
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
        """Have the process write where it is into its output, if it still can."""
        ...

    def exit_code(self) -> int | None:
        """Wait for the end and return the exit status, negative for a signal."""
        ...


class Launcher(Protocol):
    """Starts the processes of attempts somewhere."""

    def start(self, module: str, job: BaseModel, scratch: Path, lock: int | None = None) -> Child:
        """Start an attempt in `module`. Its process keeps the descriptor `lock` open to its end."""
        ...

    def is_warm(self) -> bool: ...


class LocalChild(Pipe):
    """A process on this machine, and our end of the pipe to it."""

    def __init__(self, process: ForkServerProcess | SpawnProcess, end: socket.socket) -> None:
        super().__init__(end)
        self._process = process

    def send(self, message: Message) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            super().send(message)

    def kill(self) -> None:
        self._process.kill()

    def show_stack(self) -> None:
        if self._process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGUSR1)

    def exit_code(self) -> int | None:
        self._process.join()
        self.close()
        return self._process.exitcode


class LocalLauncher:
    """Forks attempts from a warm parent (on macOS, where that is not safe, spawns them)."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._context: ForkServerContext | SpawnContext = (
            get_context("spawn") if sys.platform == "darwin" else get_context("forkserver")
        )
        self._warm = threading.Event()
        if sys.platform == "darwin":
            self._warm.set()
            return
        self._context.set_forkserver_preload([*modules, LATE])
        # The warm parent must outlive a SIGTERM that the whole group receives: its children save
        # their state first. An ignored signal stays ignored across exec.
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            forkserver.ensure_running()
        finally:
            signal.signal(signal.SIGTERM, before)
        threading.Thread(target=self._warm_up, name="warm up", daemon=True).start()

    def is_warm(self) -> bool:
        return self._warm.is_set()

    def start(
        self, module: str, job: BaseModel, scratch: Path, lock: int | None = None
    ) -> LocalChild:
        ours, theirs = socket.socketpair()
        inherited = None if lock is None else Inherited(lock)
        process = self._context.Process(
            target=_enter,
            args=(theirs, module, job.model_dump_json(), str(scratch), inherited),
            name="trainer",
            daemon=True,
        )
        process.start()
        theirs.close()
        return LocalChild(process, ours)

    def _warm_up(self) -> None:
        # The first fork waits until the parent has imported everything.
        process = self._context.Process(target=_nothing, daemon=True)
        process.start()
        process.join()
        self._warm.set()


class Inherited:
    """A descriptor that a started process holds too, until it ends."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _inherit, (reduction.DupFd(self.descriptor),)


def _inherit(sent: Any) -> Inherited:  # noqa: ANN401  a class of multiprocessing's own
    return Inherited(sent.detach())


def _nothing() -> None:
    """Do nothing: that this runs shows that the warm parent is warm."""


def _enter(
    end: socket.socket, module: str, job: str, scratch: str, _lock: Inherited | None
) -> None:
    """Run one attempt in this process, which ends with its parent."""
    _die_with_parent()
    gc.freeze()  # what was imported stays: to look through it for garbage would copy its memory
    # Ctrl-C and SIGTERM may reach the whole group; a trainer obeys its pipe alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until there is an output to write the stack to
    words = os.open(Path(scratch) / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(words, 1)
    os.dup2(words, 2)
    faulthandler.enable(words)
    faulthandler.register(signal.SIGUSR1, words)
    importlib.import_module(module).main(end, job)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
