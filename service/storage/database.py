"""The engine, sessions, clocks, notices and the version of the schema.

A notice tells other processes that a transaction has changed a job. On PostgreSQL the transaction
notifies a channel, to which processes on all machines listen (LISTEN and NOTIFY). The callback of
an engine gets the channels of each of its commits and wakes the other process of this machine.
Notices only save time: polling finds every change whose notice is missed.

Queries no table of the service.
"""

import errno
import json
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, cast

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic_core import PydanticSerializationError, from_json, to_json
from sqlalchemy import Connection, CursorResult, Engine, Result, create_engine, event, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from models.failpoints import reach
from service.errors import Busy, ServiceError, StorageFull
from service.storage.columns import utc_now

#: the channel of the notice that the queue has work: a new job, or a request of a client
QUEUE = "descent_queue"
#: the channel of the notice that a job has another state or more events
EVENTS = "descent_events"
RECONNECT_S = 2.0  # seconds between two attempts to connect a listener
_CHANNELS = "channels"  # the key of a session's notices in its `info`
_RING = "descent_ring"  # the option of an engine that holds its callback

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
BUSY_TIMEOUT = 10.0  # seconds that a writer waits for SQLite's lock before the answer is 503
POOL_SIZE = 20  # connections of one process
POOL_WAIT = 5.0  # seconds that a request waits for a connection before the answer is 503
#: parts of SQLite's messages about a damaged file
DAMAGED = ("not a database", "disk image is malformed", "malformed database schema")
CHECK_S = 5.0  # seconds that the check for damage may take
CHECK_STEPS = 10_000  # instructions of SQLite between two looks at the clock
#: limits that PostgreSQL enforces, so that every lock is released in the end
POSTGRES_OPTIONS = (
    "-c statement_timeout=30000 -c lock_timeout=10000"
    " -c idle_in_transaction_session_timeout=60000 -c timezone=UTC"
)

#: Receives the channel of a notice.
Ring = Callable[[str], None]


class SchemaOutOfDate(ServiceError):
    """The database schema is older than this program: run `descent migrate`, then start again."""

    code = "schema_out_of_date"


class DatabaseDamaged(ServiceError):
    """The database file is damaged: stop the service and restore a backup (docs/production.md)."""

    code = "database_damaged"


class SchemaTooNew(ServiceError):
    """The database schema is newer than this program: start the newer release."""

    code = "schema_too_new"


def create_database(url: str) -> Engine:
    """Return the engine of a process, and make the folder of an SQLite file. Changes no schema."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(
            parsed,
            hide_parameters=True,  # errors are logged, and the log must not hold clients' data
            json_serializer=_to_json,
            json_deserializer=_from_json,
            pool_size=POOL_SIZE,
            pool_timeout=POOL_WAIT,
            connect_args={"timeout": BUSY_TIMEOUT, "check_same_thread": False},
        )
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if parsed.get_backend_name() == "postgresql":
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            hide_parameters=True,
            json_serializer=_to_json,
            json_deserializer=_from_json,
            pool_size=POOL_SIZE,
            pool_timeout=POOL_WAIT,
            pool_pre_ping=True,
            connect_args={"options": POSTGRES_OPTIONS, "connect_timeout": 5},
        )
    raise ValueError(f"database_url must begin with sqlite: or postgresql:, got {url!r}")


def _to_json(value: Any) -> str:  # noqa: ANN401  any value of JSON
    """Return the text of a value. NaN and infinities are written as Python's `json` does."""
    try:
        return to_json(value, inf_nan_mode="constants").decode()
    except PydanticSerializationError:  # half of a surrogate pair
        return json.dumps(value)


def _from_json(text: str | bytes) -> Any:  # noqa: ANN401  any value of JSON
    try:
        return from_json(text, allow_inf_nan=True)
    except ValueError:
        return json.loads(text)


def is_wal_safe(version: tuple[int, ...]) -> bool:
    """Return whether this SQLite is free of the WAL-reset bug that can corrupt a database.

    Fixed in 3.51.3, and in 3.50.7 and 3.44.6 of the older lines.
    """
    backports = ((3, 50, 7), (3, 44, 6))
    return version >= (3, 51, 3) or any(
        fixed <= version < (fixed[0], fixed[1] + 1) for fixed in backports
    )


def _configure_sqlite(connection: sqlite3.Connection, _entry: ConnectionPoolEntry) -> None:
    # None turns off the driver's own transactions: `_begin_sqlite` opens them, so that a
    # transaction that reads before it writes holds the write lock from its start.
    connection.isolation_level = None
    journal = "WAL" if is_wal_safe(sqlite3.sqlite_version_info) else "PERSIST"
    for pragma in (
        f"journal_mode={journal}",
        "synchronous=FULL",
        "foreign_keys=ON",
        "trusted_schema=OFF",
        "mmap_size=0",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    reads = connection.get_execution_options().get("reads_only", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextmanager
def writing(engine: Engine) -> Iterator[Session]:
    """One write transaction: committed at the end, rolled back on any error."""
    with translated_errors(), Session(engine, expire_on_commit=False) as session, session.begin():
        yield session
        reach("database.commit")
    reach("database.committed")
    committed(engine, session)


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """One read transaction: a consistent view that takes no write lock."""
    with (
        translated_errors(),
        Session(engine, expire_on_commit=False) as session,
        session.begin(),
    ):
        session.connection(execution_options={"reads_only": True})
        yield session


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turn errors of the database into errors of the service."""
    try:
        yield
    # The listener that configures a new connection raises SQLite's own error.
    except (DBAPIError, PoolTimeout, sqlite3.DatabaseError) as error:
        raise _translate(error) from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull from error
        raise


def _translate(error: Exception) -> Exception:
    text = str(getattr(error, "orig", error)).lower()
    if any(words in text for words in DAMAGED):
        return DatabaseDamaged()
    if "disk is full" in text or "no space left" in text or "disk full" in text:
        return StorageFull("The database has no space left: free some and try again.")
    if "locked" in text or "lock timeout" in text or isinstance(error, PoolTimeout):
        return Busy("The database is busy: try again in a moment.", code="database_busy")
    is_gone = isinstance(error, DBAPIError) and error.connection_invalidated
    if is_gone or isinstance(error, OperationalError):
        return Busy("The database does not answer: try again.", code="database_unavailable")
    return error


def is_postgres(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def row_count(result: Result[Any]) -> int:
    """Return how many rows an UPDATE or DELETE changed."""
    # SQLAlchemy gives the result of every statement the type of a SELECT's.
    return cast("CursorResult[Any]", result).rowcount


def clock(session: Session, now: float | None = None) -> float:
    """Return the time of leases, in seconds.

    PostgreSQL: the clock of the server. SQLite: the time since boot, because all processes share
    one kernel, and changes of the wall clock do not affect it; `boot_id` tells boots apart. `now`
    is for tests.
    """
    if now is not None:
        return now
    if is_postgres(session):
        return time_of_day(session).timestamp()
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else _wall()


def time_of_day(session: Session) -> datetime:
    """Return the time of day. PostgreSQL: by its server, because the clocks of machines differ."""
    if is_postgres(session):
        now: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
        return now
    return utc_now()


def _wall() -> float:
    return time.monotonic()


@cache
def _kernel_boot_id() -> str:
    path = Path("/proc/sys/kernel/random/boot_id")
    return path.read_text().strip() if path.exists() else "unknown"


def boot_id(session: Session) -> str:
    """Return the id of the boot: readings of `clock` are comparable only within one boot."""
    return "server" if is_postgres(session) else _kernel_boot_id()


# ---- notices ------------------------------------------------------------------------------------


def tell(session: Session, channel: str) -> None:
    """Send a notice to a channel once this transaction is committed."""
    channels: set[str] = session.info.setdefault(_CHANNELS, set())
    if channel in channels:
        return
    channels.add(channel)
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_notify(channel, "")))


def ring_on_commit(engine: Engine, ring: Ring) -> None:
    """Call `ring` with the channel of each notice, in the thread that commits."""
    engine.update_execution_options(**{_RING: ring})


def committed(engine: Engine, session: Session) -> None:
    """Call the callback of the engine: the session's transaction is committed."""
    ring: Ring | None = engine.get_execution_options().get(_RING)
    if ring is not None:
        for channel in session.info.get(_CHANNELS, ()):
            ring(channel)


class Listener:
    """A connection that becomes readable when a channel gets a notice; PostgreSQL only."""

    def __init__(self, engine: Engine, channel: str) -> None:
        self._engine, self._channel = engine, channel
        self._connection: psycopg.Connection[Any] | None = None
        self._try_at = 0.0

    def connect(self) -> bool:
        """Listen, and listen again after a lost connection; return whether it listens."""
        if self._engine.dialect.name != "postgresql":
            return False
        if self._connection is not None:
            return True
        if time.monotonic() < self._try_at:
            return False
        self._try_at = time.monotonic() + RECONNECT_S
        try:
            pooled = self._engine.raw_connection()
            connection: Any = pooled.driver_connection
            pooled.detach()
            connection.rollback()
            connection.autocommit = True
            connection.execute(f"LISTEN {self._channel}")
        except (DBAPIError, psycopg.Error, OSError):
            return False
        self._connection = connection
        return True

    def fileno(self) -> int:
        """Return the descriptor, once connected."""
        if self._connection is None:
            raise ValueError("the listener is not connected")
        return self._connection.fileno()

    def drain(self) -> bool:
        """Read all notices; close a lost connection. Return whether the connection lives."""
        if self._connection is None:
            return False
        try:
            pg = self._connection.pgconn
            pg.consume_input()
            while pg.notifies():
                pass
        except psycopg.Error:
            self.close()
            return False
        return True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


# ---- the schema's version -----------------------------------------------------------------------


def alembic_config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    return config


def schema_version(engine: Engine) -> str | None:
    # Without the option this would wait for SQLite's write lock.
    reader = engine.execution_options(reads_only=True)
    with translated_errors(), reader.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def newest_schema_version() -> str | None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return ScriptDirectory.from_config(config).get_current_head()


def check_schema(engine: Engine) -> None:
    """Raise SchemaOutOfDate or SchemaTooNew unless the schema is the one this program needs."""
    current = schema_version(engine)
    if current == newest_schema_version():
        return
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if current is None or current in known:
        raise SchemaOutOfDate
    raise SchemaTooNew


def migrate(engine: Engine) -> Path | None:
    """Bring the schema up to date; return the copy of an SQLite file that held data before.

    Raises DatabaseDamaged if the file is damaged.
    """
    check_file(engine)
    current = schema_version(engine)
    if current == newest_schema_version():
        return None
    if current is not None:
        check_is_known(engine)
    copy = _copy_sqlite(engine) if current is not None else None
    with translated_errors(), engine.begin() as connection:
        command.upgrade(alembic_config(connection), "head")
    return copy


def check_file(engine: Engine) -> None:
    """Raise DatabaseDamaged if SQLite finds damage in its file within `CHECK_S` seconds."""
    path = _file_of(engine)
    if path is None or not path.exists():
        return
    deadline = time.monotonic() + CHECK_S
    with translated_errors(), closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT)) as connection:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.set_progress_handler(lambda: time.monotonic() > deadline, CHECK_STEPS)
        try:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            if "interrupted" not in str(error):
                raise
            return  # the file is too large for a full check
    if found != "ok":
        raise DatabaseDamaged


def check_is_known(engine: Engine) -> None:
    """Raise SchemaTooNew if a newer release has changed the schema."""
    try:
        check_schema(engine)
    except SchemaOutOfDate:
        return


def _copy_sqlite(engine: Engine) -> Path | None:
    source = _file_of(engine)
    if source is None:
        return None
    stamp = utc_now().strftime("%Y%m%dT%H%M%S")
    target = source.with_name(f"{source.name}.before-migration-{stamp}")
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)
    shutil.copymode(source, target)
    return target


def _file_of(engine: Engine) -> Path | None:
    """Return the file of an SQLite database; None for another database."""
    is_file = engine.dialect.name == "sqlite" and engine.url.database
    return Path(str(engine.url.database)) if is_file else None
