"""`worker`: one supervisor in this process, until it is told to stop."""

import os
import signal
import sys
from types import FrameType

from models import failpoints
from service.jobs.kind import Site
from service.kinds import KINDS
from service.settings import Settings
from service.storage.database import check_schema, create_database
from service.storage.stores import open_store
from service.worker.launch import LocalLauncher
from service.worker.supervisor import Supervisor


def main(settings: Settings, *, stdin_wake: bool) -> None:
    """Run a supervisor until SIGTERM, Ctrl-C or, with `stdin_wake`, the end of standard input."""
    engine = create_database(settings.resolved_database_url)
    check_schema(engine)
    site = Site(settings, engine, open_store(settings))
    # Read by now. The trainers' warm parent inherits the environment: no credential may be in it.
    secret = [name for name in os.environ if name.startswith(("DESCENT_", "PG", "AWS_"))]
    for name in set(secret) - {failpoints.VARIABLE}:
        del os.environ[name]
    launcher = LocalLauncher([kind.module for kind in KINDS])
    supervisor = Supervisor(site, KINDS, launcher)

    def on_stop(_number: int, _frame: FrameType | None) -> None:
        # A service manager may send SIGTERM to all processes of `serve`, which sends it too: there
        # only the signal below means haste.
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
