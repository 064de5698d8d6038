"""The warm parent: a process that has torch imported, and forks each attempt from itself.

    python -P -m service.worker.warm fork DESCRIPTOR MODULE…
    python -P -m service.worker.warm attempt DESCRIPTOR MODULE SCRATCH

Importing torch takes about two seconds, a fork a few milliseconds. The warm parent imports and
never computes, because torch's threads would not survive the fork. It holds no credentials and
opens nothing, so it may outlive a supervisor that died and fork for the next one. It ends with the
last process that holds the other end of its socket, and its children end with it.

The second command is one attempt without a fork, for systems on which forking is not safe.
"""

import ctypes
import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

#: pyarrow imports it with its first conversion, where it is installed: a third of a second, which
#: each child would spend anew
LATE = "pandas"
#: the files of an attempt's scratch folder: what it is given, and what it prints
JOB, OUTPUT = "job.json", "output.log"
LARGEST = 65536  # bytes of an order
READY = b"ready"
PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


@dataclass(frozen=True)
class Order:
    """A request to fork; it travels as JSON, together with descriptors.

    The first descriptor is the control socket: a byte on it is the number of a signal for the
    child, its end kills the child, and the child's exit status comes back on it as JSON. The second
    is the child's end of the pipe. A third one is only kept open until the child ends.

    An order without a module is answered with `READY`.
    """

    module: str = ""
    scratch: str = ""
    #: variables that only this child gets
    environment: Mapping[str, str] = field(default_factory=dict)


class WarmParent:
    """The loop of the warm parent."""

    def __init__(self, orders: socket.socket) -> None:
        self._orders = orders
        #: each child and its control socket; None once the supervisor's end is closed
        self._controls: dict[int, socket.socket | None] = {}
        #: readable when a child has ended
        self._ended, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def serve(self) -> None:
        """Fork until no process can order a fork any more."""
        is_ordered = True
        while is_ordered:
            controls = {control: pid for pid, control in self._controls.items() if control}
            readers: list[socket.socket | int] = [self._orders, self._ended, *controls]
            ready, _, _ = select.select(readers, [], [])
            for control in controls.keys() & set(ready):
                self._signal(controls[control], control)
            if self._ended in ready:
                os.read(self._ended, LARGEST)
                self._reap()
            if self._orders in ready:
                is_ordered = self._obey()

    def _signal(self, pid: int, control: socket.socket) -> None:
        """Pass on the signals that came for a child; kill it if its supervisor has died."""
        # The child is not reaped yet, so its number is no other process's.
        try:
            numbers = control.recv(LARGEST)
        except ConnectionError:
            numbers = b""
        for number in numbers or [signal.SIGKILL]:
            os.kill(pid, number)
        if not numbers:
            control.close()
            self._controls[pid] = None

    def _reap(self) -> None:
        for pid in list(self._controls):
            ended, status = os.waitpid(pid, os.WNOHANG)
            control = self._controls.pop(pid) if ended else None
            if control:
                with control, suppress(ConnectionError):
                    control.sendall(json.dumps(os.waitstatus_to_exitcode(status)).encode())

    def _obey(self) -> bool:
        """Carry out one order; return whether there was one."""
        text, descriptors, _, _ = socket.recv_fds(self._orders, LARGEST, 3)
        if not text:
            return False
        order = Order(**json.loads(text))
        control = socket.socket(fileno=descriptors[0])
        if not order.module:
            with control, suppress(ConnectionError):
                control.sendall(READY)
            return True
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(parent, order, socket.socket(fileno=descriptors[1]), control)
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        self._controls[pid] = control
        return True

    def _become(
        self, parent: int, order: Order, end: socket.socket, control: socket.socket
    ) -> NoReturn:
        """Be the child: run the attempt in this process, which ends with it."""
        status = 1
        try:
            _die_with(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for opened in (self._orders, control, *self._controls.values()):
                if opened:
                    opened.close()
            os.environ.update(order.environment)
            attempt(end, order.module, Path(order.scratch))
            status = 0
        except BaseException:  # noqa: BLE001  the child must end here, whatever it was
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def attempt(end: socket.socket, module: str, scratch: Path) -> None:
    """Run one attempt, whose input is in its scratch folder."""
    # Ctrl-C and SIGTERM may reach the whole group; an attempt obeys its pipe alone.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until there is an output to write the stack to
    words = os.open(scratch / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(words, 1)
    os.dup2(words, 2)
    faulthandler.enable(words)
    faulthandler.register(signal.SIGUSR1, words)
    importlib.import_module(module).main(end, (scratch / JOB).read_text())


def warm_up(modules: Sequence[str]) -> None:
    """Import what attempts need. A child that needs a module that fails to import says so."""
    for name in (*modules, LATE):
        with suppress(ImportError, OSError):
            importlib.import_module(name)
    gc.freeze()  # children that look through it for garbage would copy its memory


def main(command: str, descriptor: str, *arguments: str) -> None:
    """Run one of the commands of this module."""
    end = socket.socket(fileno=int(descriptor))
    if command == "attempt":
        module, scratch = arguments
        attempt(end, module, Path(scratch))
        return
    # A signal to the whole group must not end it, because its children save their state first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(end.fileno(), False)
    warm_up(arguments)
    WarmParent(end).serve()
    os._exit(0)  # without the finalizers of all that was imported


if __name__ == "__main__":
    main(*sys.argv[1:])
