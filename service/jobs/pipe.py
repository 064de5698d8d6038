"""Messages between a supervisor and its processes: lines of JSON through a socket."""

import json
import socket
from typing import Any

Message = dict[str, Any]

READ_BYTES = 65536  # at a time


class Pipe:
    """One end of it.

    It never waits for the rest of a message: whoever dies, or stands still, in the middle of one
    must not take the other end along. A message counts once its line is whole.
    """

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._read = bytearray()
        self._is_read_out = False

    def fileno(self) -> int:
        """Return what becomes readable when a message or the end has come."""
        return self._socket.fileno()

    def has_message(self) -> bool:
        """Say whether a whole message, or the end, is there."""
        while not self._is_read_out and b"\n" not in self._read:
            try:
                more = self._socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except ConnectionResetError:
                more = b""
            self._read += more
            self._is_read_out = not more
        return True

    def receive(self) -> Message | None:
        """Return the next message, or None at the end, once `has_message`."""
        line, end, rest = self._read.partition(b"\n")
        if not end:
            return None
        self._read = rest
        message: Message = json.loads(line)
        return message

    def send(self, message: Message) -> None:
        """Send a message. Raises ConnectionError where the other end is gone."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def close(self) -> None:
        self._socket.close()
