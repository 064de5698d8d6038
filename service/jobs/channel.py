"""A child's end of the pipe to its supervisor: it reports, and hears when to stop."""

import json
import os
import time
from multiprocessing.connection import Connection
from typing import Any

from models.events import StopReason

POLL_S = 0.02  # seconds between two looks at the pipe


class Channel:
    """Sends messages of JSON and looks for the one order that there is: to stop."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._polled_at = 0.0
        self._stop: StopReason | None = None
        #: when the last message was sent
        self.sent_at = 0.0

    def should_stop(self) -> StopReason | None:
        """Return what the supervisor asked for. Without a supervisor nothing can be kept: end."""
        now = time.monotonic()
        if self._stop is None and now - self._polled_at >= POLL_S:
            self._polled_at = now
            try:
                if self._connection.poll():
                    self._stop = json.loads(self._connection.recv_bytes())["reason"]
            except (EOFError, OSError):
                os._exit(1)
        return self._stop

    def send(self, kind: str, **fields: Any) -> None:  # noqa: ANN401  JSON
        self._connection.send_bytes(json.dumps({"type": kind} | fields).encode())
        self.sent_at = time.monotonic()

    def close(self) -> None:
        self._connection.close()
