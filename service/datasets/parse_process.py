"""The process that parses an upload: confines itself, parses, and reports the result.

Whatever a file does to it ends with it: it has no network, no environment, bounded memory and
time, and can change files in its own folder only.
"""

import os
import socket
import threading
import time
from pathlib import Path

from models.failpoints import reach
from service.datasets import parse, queries
from service.datasets.messages import Parsed, ParseJob, Refused, TookLong
from service.datasets.sandbox import TABLE, confine, keep_to, late, outcome
from service.jobs.messages import Heartbeat, Message, Obeyed
from service.jobs.pipe import Channel
from service.storage.blobs import digest_of

TICK_S = 0.05  # seconds between two looks at the clock and at the orders of the supervisor
HEARTBEAT_S = 1.0  # seconds between two signs of life

queries.warm()  # processes that are forked from here have it open


class Attempt:
    """One attempt. It sends one last message, and then nothing more."""

    def __init__(self, end: socket.socket, job: ParseJob) -> None:
        self._job = job
        self._channel = Channel(end)
        self._sending = threading.Lock()

    def run(self) -> None:
        # The thread inherits the limits of this one, so it begins after them.
        confine(self._job.limits)
        keep_to(self._job.scratch)
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self._end(self._parse())

    def _parse(self) -> Message:
        found = outcome(self._job.task, self._job.limits, parse.parse)
        if "rejected" in found:
            return Refused(**found["rejected"])
        path = Path(self._job.task.folder) / TABLE
        digest, _size = digest_of(path)
        return Parsed(path=path, sha256=digest, **found["result"])

    def _watch(self) -> None:
        """Say that the process lives, and end it when it is ordered to or has used its time."""
        began, patience_s = time.monotonic(), self._job.patience_s
        while True:
            time.sleep(TICK_S)
            passed = time.monotonic() - began
            if self._channel.should_stop():
                self._end(Obeyed())
            if passed > self._job.limits.timeout_s:
                self._end(Refused(**late(self._job.limits).to_json()))
            if patience_s is not None and passed > patience_s:
                self._end(TookLong())
            if time.monotonic() - self._channel.sent_at > HEARTBEAT_S:
                with self._sending:
                    self._channel.send(Heartbeat())

    def _end(self, message: Message) -> None:
        with self._sending:
            self._channel.send(message)
            # Nothing here needs to be torn down, and what a file did to the heap may bite while it
            # is.
            os._exit(0)


def main(end: socket.socket, job: str) -> None:
    """Run one attempt to its end."""
    reach("parser.begin")
    Attempt(end, ParseJob.model_validate_json(job)).run()
