"""Starting the processes of attempts: the Launcher, the launcher of this machine, the warm parent.

    python -P -m service.worker.launch fork DESCRIPTOR MODULE…
    python -P -m service.worker.launch attempt DESCRIPTOR MODULE SCRATCH

The first command is the warm parent, which has torch imported and forks each attempt from itself:
importing torch takes about two seconds, a fork a few milliseconds. It imports and never computes,
because torch's threads would not survive the fork. It holds no credentials and no connections, so
it may outlive a dead supervisor and fork for the next one. It ends with the last process that holds
the other end of its socket, and its children end with it. The second command is one attempt
without a fork, for systems on which forking is not safe. Every message is JSON, and no process of
an attempt inherits a credential.
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
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol

from pydantic import BaseModel

from models import failpoints
from service.jobs.pipe import Message, Pipe

PROGRAM = (sys.executable, "-P", "-m", "service.worker.launch")
#: beginnings of the names of variables that may hold credentials
SECRET = ("DESCENT_", "PG", "AWS_")
STATUS_BYTES = 64  # the most bytes of an exit status as JSON
NOTHING: Mapping[str, str] = {}
#: pyarrow imports it with its first conversion, if it is installed; the warm parent spends this
#: third of a second instead of each child
LATE = "pandas"
#: the files of an attempt's scratch folder: its input and its output
JOB, OUTPUT = "job.json", "output.log"
LARGEST = 65536  # the most bytes of an order
#: NumPy multiplies small matrices here: several threads would wait for each other ten times as long
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
READY = b"ready"  # the answer to an order without a module
PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


class Child(Protocol):
    """The process of an attempt, seen from its supervisor."""

    def fileno(self) -> int:
        """Return the descriptor, which becomes readable with a message or at the end."""
        ...

    def has_message(self) -> bool:
        """Return whether a complete message, or the end, has arrived. Never waits."""
        ...

    def receive(self) -> bytes | None:
        """Return the next message as JSON, or None at the end, once `has_message`."""
        ...

    def send(self, message: Message) -> None:
        """Send a message; drop it if the process has ended."""
        ...

    def kill(self) -> None: ...

    def show_stack(self) -> None:
        """Order the process to write its stack into its output, if it still can."""
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
        """Start an attempt in `module`; `environment` holds further variables for it.

        Its process keeps the descriptor `lock` open until it ends.
        """
        ...

    def is_warm(self) -> bool: ...


# ---- the launcher of this machine ---------------------------------------------------------------


@dataclass(frozen=True)
class ForkOrder:
    """A request to fork; it travels as JSON, together with descriptors.

    The first descriptor is the control socket: a byte on it is the number of a signal for the
    child, its end kills the child, and the child's exit status returns on it as JSON. The second
    is the child's end of the pipe. The third, if any, only stays open until the child ends.

    The answer to an order without a module is `READY`.
    """

    module: str = ""
    scratch: str = ""
    #: further variables for this child
    environment: Mapping[str, str] = field(default_factory=dict)


class LocalChild(Pipe):
    """A process on this machine."""

    def send(self, message: Message) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            super().send(message)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process; nothing happens if it has ended."""
        raise NotImplementedError

    def exit_code(self) -> int | None:
        raise NotImplementedError

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def show_stack(self) -> None:
        self.send_signal(signal.SIGUSR1)


class ForkedChild(LocalChild):
    """A child of the warm parent, which passes signals on and reports the end; see `ForkOrder`."""

    def __init__(self, end: socket.socket, control: socket.socket) -> None:
        super().__init__(end)
        self._control = control

    def send_signal(self, number: signal.Signals) -> None:
        with suppress(OSError):  # the other end, or ours too, is closed
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
        return int(json.loads(status)) if status else None  # empty if the warm parent has died


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
        """Kill the warm parent and with it all its children."""
        self.orders.close()
        self._process.kill()
        self._process.wait()


class LocalLauncher:
    """Lets a warm parent fork the attempts: the parent behind `orders`, or else its own.

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
        #: the socket of the warm parent; None before it is started
        self._orders = orders
        self._own: WarmProcess | None = None
        #: brings the answer of the warm parent to an order without a module
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
                control = self._fork(ForkOrder(module, str(scratch), environment), kept)
            except ConnectionError:  # the supervisor gives the job back
                ours.close()
                self._forget_parent()
                raise
        return ForkedChild(ours, control)

    def close(self) -> None:
        """Kill the warm parent, if this launcher started it."""
        if self._own is not None:
            self._own.close()
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def _has_answered(self) -> bool:
        try:
            if self._answer is None:
                self._answer = self._fork(ForkOrder())
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

    def _fork(self, order: ForkOrder, descriptors: Sequence[int] = ()) -> socket.socket:
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
        """Use another warm parent from now on, because the present one has died."""
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
    """Return the variables of this process except those that may hold a credential."""
    return ONE_THREAD | {
        name: value
        for name, value in os.environ.items()
        if name == failpoints.VARIABLE or not name.startswith(SECRET)
    }


# ---- inside the processes -----------------------------------------------------------------------


class WarmParent:
    """The loop of the warm parent.

    It keeps one spare child for each module that has a function `rehearse`: forked in advance, the
    child has called it and waits for its order. The order of a job then costs no fork, and no page
    of the process is touched for the first time.
    """

    def __init__(self, orders: socket.socket, modules: Sequence[str]) -> None:
        self._orders = orders
        #: each child and its control socket; None: it is spare, or the supervisor's end is closed
        self._controls: dict[int, socket.socket | None] = {}
        self._rehearsing = [name for name in modules if hasattr(sys.modules.get(name), "rehearse")]
        #: module → its spare child and the socket for the order; the child may have died
        self._spares: dict[str, tuple[int, socket.socket]] = {}
        #: readable when a child has ended
        self._ended, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)

    def serve(self) -> None:
        """Fork until no process can order a fork any more."""
        is_ordered = True
        self._refill()
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
        # The child is not reaped yet, so no other process has its number.
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
        self._refill()

    def _refill(self) -> None:
        """Replace spare children that have got their order. A dead one is replaced only then."""
        for module in self._rehearsing:
            if module not in self._spares:
                ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
                with theirs:
                    pid = self._fork(partial(_wait_for_order, module, theirs), ours)
                self._controls[pid] = None
                self._spares[module] = (pid, ours)

    def _obey(self) -> bool:
        """Carry out one order; return False at the end of the orders."""
        text, descriptors, _, _ = socket.recv_fds(self._orders, LARGEST, 3)
        if not text:
            return False
        order = ForkOrder(**json.loads(text))
        control = socket.socket(fileno=descriptors[0])
        if not order.module:
            with control, suppress(ConnectionError):
                control.sendall(READY)
            return True
        pid = self._hand_over(order.module, text, descriptors[1:])
        if pid is None:
            pid = self._fork(partial(_carry_out, order, descriptors[1]), control)
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        self._controls[pid] = control
        return True

    def _hand_over(self, module: str, text: bytes, descriptors: list[int]) -> int | None:
        """Give the order to the spare child; return its number, or None if there is none."""
        pid, orders = self._spares.pop(module, (None, None))
        if orders is None:
            return None
        with orders:
            try:
                socket.send_fds(orders, [text], descriptors)
            except ConnectionError:  # it has died
                return None
        return pid

    def _fork(self, do: Callable[[], None], ours: socket.socket) -> int:
        """Fork a child that does something and ends; `ours` is our end of a socket to it."""
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(parent, do, ours)
        return pid

    def _become(self, parent: int, do: Callable[[], None], ours: socket.socket) -> NoReturn:
        """Run the child in this process, and end the process with it."""
        status = 1
        try:
            _die_with(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            spares = [orders for _pid, orders in self._spares.values()]
            for opened in (self._orders, ours, *self._controls.values(), *spares):
                if opened:
                    opened.close()
            do()
            status = 0
        except BaseException:  # noqa: BLE001  the child must end here after any error
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def _wait_for_order(module: str, orders: socket.socket) -> None:
    """Rehearse, then carry out one order, unless the warm parent ends before."""
    importlib.import_module(module).rehearse()
    with orders:
        text, descriptors, _, _ = socket.recv_fds(orders, LARGEST, 2)
    if text:
        _carry_out(ForkOrder(**json.loads(text)), descriptors[0])


def _carry_out(order: ForkOrder, end: int) -> None:
    os.environ.update(order.environment)
    attempt(socket.socket(fileno=end), order.module, Path(order.scratch))


def _die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def attempt(end: socket.socket, module: str, scratch: Path) -> None:
    """Run one attempt, whose input is in its scratch folder."""
    # Ctrl-C and SIGTERM may reach the whole group; an attempt obeys only its pipe.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until the output for the stack is open
    words = os.open(scratch / OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(words, 1)
    os.dup2(words, 2)
    faulthandler.enable(words)
    faulthandler.register(signal.SIGUSR1, words)
    importlib.import_module(module).main(end, (scratch / JOB).read_text())


def warm_up(modules: Sequence[str]) -> None:
    """Import the modules of attempts. If an import fails, the child that needs it reports that."""
    for name in (*modules, LATE):
        with suppress(ImportError, OSError):
            importlib.import_module(name)
    gc.freeze()  # the garbage collection of a child would copy this memory


def main(command: str, descriptor: str, *arguments: str) -> None:
    """Run one of the commands of this module."""
    end = socket.socket(fileno=int(descriptor))
    if command == "attempt":
        module, scratch = arguments
        attempt(end, module, Path(scratch))
        return
    # A signal to the whole group must not end the parent, because its children save first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    os.set_inheritable(end.fileno(), False)
    warm_up(arguments)
    WarmParent(end, arguments).serve()
    os._exit(0)  # skips the finalizers of all imported modules


if __name__ == "__main__":
    main(*sys.argv[1:])
