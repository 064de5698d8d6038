"""A child's end of the pipe to its supervisor: it reports, and hears when to stop."""

import os
import socket
import time
from typing import Any

from models.events import StopReason
from service.jobs.pipe import Pipe

POLL_S = 0.02  # seconds between two looks at the pipe


class Channel:
    """Sends messages and looks for the one order that there is: to stop."""

    def __init__(self, end: socket.socket) -> None:
        self._pipe = Pipe(end)
        self._polled_at = 0.0
        self._stop: StopReason | None = None
        #: when the last message was sent
        self.sent_at = 0.0

    def should_stop(self) -> StopReason | None:
        """Return what the supervisor asked for. Without a supervisor nothing can be kept: end."""
        now = time.monotonic()
        if self._stop is None and now - self._polled_at >= POLL_S:
            self._polled_at = now
            if self._pipe.has_message():
                order = self._pipe.receive()
                if order is None:
                    os._exit(1)
                self._stop = order["reason"]
        return self._stop

    def send(self, kind: str, **fields: Any) -> None:  # noqa: ANN401  JSON
        self._pipe.send({"type": kind} | fields)
        self.sent_at = time.monotonic()

    def close(self) -> None:
        self._pipe.close()
