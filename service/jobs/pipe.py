"""The pipe between a supervisor and its process: lines of JSON through a socket."""

import os
import socket
import time

from models.training.interface import StopReason
from service.jobs.messages import Message, StopOrder

READ_BYTES = 65536  # at a time
POLL_S = 0.02  # seconds between two looks at the pipe


class Pipe:
    """One end of it.

    It never waits for the rest of a message: a process that dies or stands still in the middle of
    one must not take the other end along. A message counts once its line is whole.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._read = bytearray()
        self._is_read_out = False
        self._has_line = False

    def fileno(self) -> int:
        """Return the descriptor that is readable when a message or the end has come."""
        return self._socket.fileno()

    def has_message(self) -> bool:
        """Say whether a whole message, or the end, is there."""
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
        """Send a message. Raises ConnectionError where the other end is gone."""
        self._socket.sendall(message.model_dump_json().encode() + b"\n")

    def close(self) -> None:
        self._socket.close()


class Channel:
    """A process's end of the pipe: it reports, and looks for the order to stop."""

    def __init__(self, end: socket.socket) -> None:
        self._pipe = Pipe(end)
        self._polled_at = 0.0
        self._stop: StopReason | None = None
        #: when the last message was sent
        self.sent_at = 0.0

    def should_stop(self) -> StopReason | None:
        """Return why the supervisor ordered a stop, if it did.

        Without a supervisor nothing that is computed can be kept, so the process ends.
        """
        now = time.monotonic()
        if self._stop is None and now - self._polled_at >= POLL_S:
            self._polled_at = now
            if self._pipe.has_message():
                order = self._pipe.receive()
                if order is None:
                    os._exit(1)
                self._stop = StopOrder.model_validate_json(order).reason
        return self._stop

    def send(self, message: Message) -> None:
        self._pipe.send(message)
        self.sent_at = time.monotonic()

    def close(self) -> None:
        self._pipe.close()
