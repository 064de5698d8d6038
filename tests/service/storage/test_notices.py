"""A commit wakes the waiting clients, on PostgreSQL in every process."""

import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from service.storage import database
from service.storage.database import create_database, writing

PATIENCE_S = 20.0


@pytest.fixture
def postgres(fresh_postgres_url: str) -> Iterator[Engine]:
    engine = create_database(fresh_postgres_url)
    yield engine
    engine.dispose()


def is_readable(listener: database.Listener, timeout_s: float) -> bool:
    return bool(select.select([listener], [], [], timeout_s)[0])


def test_a_commit_wakes_a_listener_of_its_channel_alone(postgres: Engine) -> None:
    queue, events = (database.Listener(postgres, c) for c in (database.QUEUE, database.EVENTS))
    assert queue.connect()
    assert events.connect()
    with writing(postgres) as session:
        database.tell(session, database.EVENTS)
        database.tell(session, database.EVENTS)
        assert not is_readable(events, 0.1), "nothing is committed"
    assert is_readable(events, PATIENCE_S)
    assert events.drain()
    assert not is_readable(events, 0.1)
    assert not is_readable(queue, 0.1)
    queue.close()
    events.close()


def test_a_listener_notices_that_its_connection_is_lost(postgres: Engine) -> None:
    listener = database.Listener(postgres, database.QUEUE)
    assert listener.connect()
    with writing(postgres) as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        )
    reads = 0
    while listener.drain():  # the server may send last messages before the end
        assert is_readable(listener, PATIENCE_S)
        reads += 1
    assert reads <= 2


def test_an_embedded_database_has_nothing_to_listen_to(tmp_path: Path) -> None:
    engine = create_database(f"sqlite:///{tmp_path / 'some.sqlite3'}")
    assert not database.Listener(engine, database.QUEUE).connect()
    engine.dispose()


def test_an_engine_rings_once_for_each_channel_after_the_commit(engine: Engine) -> None:
    rung: list[str] = []
    database.ring_on_commit(engine, rung.append)
    with writing(engine) as session:
        for channel in (database.QUEUE, database.EVENTS, database.QUEUE):
            database.tell(session, channel)
        assert rung == []
    assert sorted(rung) == sorted([database.QUEUE, database.EVENTS])


def test_what_is_rolled_back_rings_for_nobody(engine: Engine) -> None:
    rung: list[str] = []
    database.ring_on_commit(engine, rung.append)
    with pytest.raises(ZeroDivisionError):
        _fail_after_telling(engine)
    assert rung == []


def _fail_after_telling(engine: Engine) -> None:
    with writing(engine) as session:
        database.tell(session, database.QUEUE)
        raise ZeroDivisionError
