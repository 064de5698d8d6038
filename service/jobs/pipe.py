"""The pipe between a supervisor and the process of an attempt.

Holds the messages that all kinds of jobs share, both ends of the pipe, and `last_message`, which
reports the end of a process. Each kind of job adds its own messages. A message is one line of JSON,
which its receiver validates.
"""

import os
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from descent.codes import ErrorCode
from models.errors import LearningError
from models.training.interface import StopReason

READ_BYTES = 65536  # bytes of one read
POLL_S = 0.02  # seconds between two looks at the pipe
#: The variable that names the only GPU that this process sees, as the worker's machine counts it.
OWN_DEVICE = "DESCENT_OWN_DEVICE"

# ---- messages -----------------------------------------------------------------------------------


class Message(BaseModel):
    """A message; `type` identifies its class within a union."""

    # A loss may be NaN or infinite. JSON has no such numbers, so Python's spelling is used.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    #: whether the process sends no further message about the job
    is_last: ClassVar[bool] = False

    type: str
    #: the job that it is about; None in a process with one job
    job_id: str | None = None


class StopOrder(Message):
    """The only order of a supervisor: stop, and save the progress unless the reason is a cancel.

    In a process with several jobs it concerns one of them.
    """

    type: Literal["stop"] = "stop"
    reason: StopReason


class Began(Message):
    """The process has loaded its input and begins to compute."""

    type: Literal["started"] = "started"


class Heartbeat(Message):
    """The process makes progress but has nothing else to report."""

    type: Literal["alive"] = "alive"


class Obeyed(Message):
    """The process has obeyed the order to stop, and has saved its progress if it had to."""

    type: Literal["stopped"] = "stopped"
    is_last: ClassVar[bool] = True


class Failure(Message):
    """The job cannot be done, for this reason."""

    type: Literal["failed"] = "failed"
    is_last: ClassVar[bool] = True

    code: ErrorCode
    detail: str
    #: the memory that ran out: host or device
    where: str | None = None


class FileMessage(Message):
    """A message about a file in the scratch folder, which the supervisor stores."""

    path: Path
    #: digest of the file; None if the process did not compute it
    sha256: str | None


# ---- ends of the pipe ---------------------------------------------------------------------------


class Pipe:
    """One end of the pipe.

    It never waits for the rest of a message, because a process may die or stall in the middle of
    one. A message counts once its line is complete.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._read = bytearray()
        self._is_read_out = False
        self._has_line = False

    def fileno(self) -> int:
        """Return the descriptor, which becomes readable with a message or at the end."""
        return self._socket.fileno()

    def has_message(self) -> bool:
        """Return whether a complete message, or the end, has arrived."""
        while not self._is_read_out and not self._has_line:
            try:
                more = self._socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                more = b""
            self._read += more
            self._is_read_out = not more
            self._has_line = b"\n" in more
        return True

    def receive(self) -> bytes | None:
        """Return the next message as JSON, or None at the end, once `has_message`."""
        line, end, rest = self._read.partition(b"\n")
        if not end:
            return None
        self._read = rest
        self._has_line = b"\n" in rest
        return bytes(line)

    def send(self, message: Message) -> None:
        """Send a message. Raises ConnectionError if the other end is closed."""
        self._socket.sendall(message.model_dump_json().encode() + b"\n")

    def close(self) -> None:
        self._socket.close()


class Channel:
    """The end of the process: sends its messages, and looks for the orders to stop.

    Threads may share it.
    """

    def __init__(self, end: socket.socket) -> None:
        self._pipe = Pipe(end)
        self._sending, self._polling = threading.Lock(), threading.Lock()
        self._polled_at = 0.0
        #: job → the reason of its first order; the only job of a process is None
        self._stops: dict[str | None, StopReason] = {}
        #: when the last message was sent
        self.sent_at = 0.0

    def should_stop(self, job_id: str | None = None) -> StopReason | None:
        """Return the reason if the supervisor has ordered to stop this job.

        Without a supervisor no result can be stored, so the process ends.
        """
        now = time.monotonic()
        if now - self._polled_at >= POLL_S and job_id not in self._stops:
            self._polled_at = now
            with self._polling:
                self._poll()
        return self._stops.get(job_id)

    def _poll(self) -> None:
        while self._pipe.has_message():
            line = self._pipe.receive()
            if line is None:
                os._exit(1)
            order = StopOrder.model_validate_json(line)
            self._stops.setdefault(order.job_id, order.reason)

    def send(self, message: Message) -> None:
        with self._sending:
            self._pipe.send(message)
        self.sent_at = time.monotonic()

    def close(self) -> None:
        self._pipe.close()


class Sender(Protocol):
    """Sends the messages about one job."""

    def send(self, message: Message) -> None: ...

    def close(self) -> None:
        """Note that no message follows."""
        ...


class StopOrdered(Exception):
    """The supervisor has ordered the attempt to end."""


@contextmanager
def last_message(channel: Sender, work: str) -> Iterator[None]:
    """Send the last message if the block raises; `work` names the job in a sentence."""
    try:
        yield
    except StopOrdered:
        channel.send(Obeyed())
    except LearningError as error:
        channel.send(Failure(code=error.code, detail=error.detail, where=error.where))
    except Exception:  # noqa: BLE001  after any error the job must end with a sentence
        traceback.print_exc()
        last = traceback.format_exc().splitlines()[-1]
        channel.send(
            Failure(code="internal_error", detail=f"The {work} stopped unexpectedly: {last}")
        )
    channel.close()
