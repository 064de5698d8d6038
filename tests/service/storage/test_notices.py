"""What is committed wakes those who wait for it, on PostgreSQL wherever they are."""

import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from service.storage import notices
from service.storage.database import create_database, writing

PATIENCE_S = 20.0


@pytest.fixture
def postgres(fresh_postgres_url: str) -> Iterator[Engine]:
    engine = create_database(fresh_postgres_url)
    yield engine
    engine.dispose()


def is_readable(listener: notices.Listener, timeout_s: float) -> bool:
    return bool(select.select([listener], [], [], timeout_s)[0])


def test_a_commit_wakes_a_listener_of_its_channel_alone(postgres: Engine) -> None:
    queue, events = (notices.Listener(postgres, c) for c in (notices.QUEUE, notices.EVENTS))
    assert queue.connect()
    assert events.connect()
    with writing(postgres) as session:
        notices.tell(session, notices.EVENTS)
        notices.tell(session, notices.EVENTS)
        assert not is_readable(events, 0.1), "nothing is committed"
    assert is_readable(events, PATIENCE_S)
    assert events.drain()
    assert not is_readable(events, 0.1)
    assert not is_readable(queue, 0.1)
    queue.close()
    events.close()


def test_a_listener_notices_that_its_connection_is_lost(postgres: Engine) -> None:
    listener = notices.Listener(postgres, notices.QUEUE)
    assert listener.connect()
    with writing(postgres) as session:
        session.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
            )
        )
    reads = 0
    while listener.drain():  # the server's last words may come before the end
        assert is_readable(listener, PATIENCE_S)
        reads += 1
    assert reads <= 2


def test_an_embedded_database_has_nothing_to_listen_to(tmp_path: Path) -> None:
    engine = create_database(f"sqlite:///{tmp_path / 'some.sqlite3'}")
    assert not notices.Listener(engine, notices.QUEUE).connect()
    engine.dispose()


def test_an_engine_rings_once_for_each_channel_after_the_commit(engine: Engine) -> None:
    rung: list[str] = []
    notices.ring_on_commit(engine, rung.append)
    with writing(engine) as session:
        for channel in (notices.QUEUE, notices.EVENTS, notices.QUEUE):
            notices.tell(session, channel)
        assert rung == []
    assert sorted(rung) == sorted([notices.QUEUE, notices.EVENTS])


def test_what_is_rolled_back_rings_for_nobody(engine: Engine) -> None:
    rung: list[str] = []
    notices.ring_on_commit(engine, rung.append)
    with pytest.raises(ZeroDivisionError):
        _fail_after_telling(engine)
    assert rung == []


def _fail_after_telling(engine: Engine) -> None:
    with writing(engine) as session:
        notices.tell(session, notices.QUEUE)
        raise ZeroDivisionError
