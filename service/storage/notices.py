"""Wakes those who wait for what a transaction changes, as soon as it is committed.

On PostgreSQL the transaction notifies a channel, which processes on all machines listen to. Beside
that an engine has one function that is called with the channels of each of its commits: it wakes
the other process of this machine. Both only save time: what is missed is found by looking.
"""

import time
from collections.abc import Callable
from typing import Any

import psycopg
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

#: a job may be claimed, or somebody asks something of one
QUEUE = "descent_queue"
#: a job has another state, or more events
EVENTS = "descent_events"

RECONNECT_S = 2.0  # seconds between two tries to connect

Ring = Callable[[str], None]
_CHANNELS = "channels"  # the key under which a session keeps them
_RING = "descent_ring"  # the option of an engine


def tell(session: Session, channel: str) -> None:
    """Wake those who wait at a channel once this transaction is committed."""
    channels: set[str] = session.info.setdefault(_CHANNELS, set())
    if channel in channels:
        return
    channels.add(channel)
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_notify(channel, "")))


def ring_on_commit(engine: Engine, ring: Ring) -> None:
    """Have `ring` called, in the thread that commits, with each channel that is told."""
    engine.update_execution_options(**{_RING: ring})


def committed(engine: Engine, session: Session) -> None:
    """Call the function of the engine: the session's transaction is committed."""
    ring: Ring | None = engine.get_execution_options().get(_RING)
    if ring is not None:
        for channel in session.info.get(_CHANNELS, ()):
            ring(channel)


class Listener:
    """A connection that is readable when a channel is told; only PostgreSQL has such."""

    def __init__(self, engine: Engine, channel: str) -> None:
        self._engine, self._channel = engine, channel
        self._connection: psycopg.Connection[Any] | None = None
        self._try_at = 0.0

    def connect(self) -> bool:
        """Listen, again where the connection was lost; return whether it does."""
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
        """Take what has come; return whether the connection lives, and close it if not."""
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
