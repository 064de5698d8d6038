"""`worker`: one supervisor in this process, and the kinds of jobs that it does."""

import contextlib
import os
import signal
import socket
import sys
from types import FrameType
from typing import Any

from service.batch.kind import BATCHES
from service.datasets.kind import PARSES, SMALL_PARSES
from service.jobs.kind import Kind, Site
from service.proofs.kind import PROOFS
from service.runs.kind import RUNS
from service.settings import Settings
from service.storage import database
from service.storage.database import check_schema, create_database
from service.storage.s3 import open_store
from service.sweeps.kind import SUGGESTIONS
from service.sweeps.steering import steer_due
from service.worker.launch import LocalLauncher
from service.worker.machine import found_gpus
from service.worker.supervisor import Supervisor

#: The order in which a worker looks for jobs. Each kind has its own slots, so that predictions do
#: not wait for trainings of hours.
KINDS: tuple[Kind[Any], ...] = (SMALL_PARSES, PARSES, SUGGESTIONS, RUNS, BATCHES, PROOFS)


def main(settings: Settings, *, stdin_wake: bool, warm: int | None = None) -> None:
    """Run a supervisor until SIGTERM, Ctrl-C or, with `stdin_wake`, the end of standard input.

    With `stdin_wake` each byte on the standard input wakes it, and it writes a byte to the standard
    output when a job has changed. `warm` is the descriptor of a warm parent's orders; without it
    the supervisor starts its own warm parent.
    """
    orders = None if warm is None else socket.socket(fileno=warm)
    launcher = LocalLauncher(
        [kind.module for kind in KINDS], orders
    )  # first, because it takes longest
    engine = create_database(settings.resolved_database_url)
    check_schema(engine)
    site = Site(settings, engine, open_store(settings))
    supervisor = Supervisor(site, KINDS, launcher, found_gpus(), steer_due)
    if stdin_wake:
        news = os.dup(sys.stdout.fileno())
        os.set_blocking(news, False)
        database.ring_on_commit(engine, lambda _channel: _say(news))

    def on_stop(_number: int, _frame: FrameType | None) -> None:
        # A service manager may send SIGTERM to all processes of `serve`, which sends it too.
        # So only a worker without `serve` hurries at a second SIGTERM.
        if supervisor.is_stopping and not stdin_wake:
            supervisor.hurry()
        supervisor.stop()

    def on_hurry(_number: int, _frame: FrameType | None) -> None:
        supervisor.hurry()

    signal.signal(signal.SIGTERM, on_stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN if stdin_wake else on_stop)
    signal.signal(signal.SIGQUIT, on_hurry)
    supervisor.run(sys.stdin.fileno() if stdin_wake else None)
    engine.dispose()
    launcher.close()


def _say(news: int) -> None:
    with contextlib.suppress(OSError):  # a full pipe will be read, a closed one has no reader
        os.write(news, b"\n")
