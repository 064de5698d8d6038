"""A child's end of the pipe to its supervisor: it reports, and hears when to stop."""

import json
import os
import socket
import time
from typing import Any

from models.events import StopReason

POLL_S = 0.02  # seconds between two looks at the pipe
ORDER_BYTES = 4096  # far more than all orders together


class Channel:
    """Sends messages, lines of JSON, and looks for the one order that there is: to stop."""

    def __init__(self, pipe: socket.socket) -> None:
        self._pipe = pipe
        self._polled_at = 0.0
        self._stop: StopReason | None = None
        #: when the last message was sent
        self.sent_at = 0.0

    def should_stop(self) -> StopReason | None:
        """Return what the supervisor asked for. Without a supervisor nothing can be kept: end."""
        now = time.monotonic()
        if self._stop is None and now - self._polled_at >= POLL_S:
            self._polled_at = now
            self._stop = self._ordered()
        return self._stop

    def send(self, kind: str, **fields: Any) -> None:  # noqa: ANN401  JSON
        self._pipe.sendall(json.dumps({"type": kind} | fields).encode() + b"\n")
        self.sent_at = time.monotonic()

    def close(self) -> None:
        self._pipe.close()

    def _ordered(self) -> StopReason | None:
        try:
            orders = self._pipe.recv(ORDER_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            orders = b""
        if not orders:
            os._exit(1)
        reason: StopReason = json.loads(orders.splitlines()[-1])["reason"]
        return reason
