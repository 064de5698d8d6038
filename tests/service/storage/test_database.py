"""Sessions, clocks and errors of both databases."""

import errno
import sqlite3
import threading
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Engine, create_engine, func, insert, select, text
from sqlalchemy.exc import IntegrityError

from service.errors import Busy, StorageFull
from service.registry.tables import Model
from service.storage import database
from service.storage.columns import utc_now
from service.storage.database import (
    boot_id,
    clock,
    create_database,
    is_wal_safe,
    migrate,
    reading,
    writing,
)

pytestmark = pytest.mark.both_databases


def count(engine: Engine) -> int:
    with reading(engine) as session:
        return session.execute(select(func.count()).select_from(Model)).scalar_one()


def add_twice(engine: Engine, name: str) -> None:
    with writing(engine) as session:
        for _ in range(2):
            session.execute(insert(Model).values(name=name, last_version=0, created_at=utc_now()))


def run_out_of_space(engine: Engine) -> None:
    with writing(engine) as session:
        session.add(Model(name="half"))
        raise OSError(errno.ENOSPC, "no space")


def ask(engine: Engine) -> None:
    with writing(engine) as session:
        session.execute(select(1))


def test_a_transaction_is_committed_at_its_end(engine: Engine) -> None:
    with writing(engine) as session:
        session.add(Model(name="a"))
    assert count(engine) == 1


def test_an_error_rolls_back_all_of_a_transaction(engine: Engine) -> None:
    with pytest.raises(IntegrityError):
        add_twice(engine, "a")
    assert count(engine) == 0


def test_a_foreign_key_is_enforced(engine: Engine) -> None:
    statement = text(
        "INSERT INTO aliases (model_name, alias, version, revision, created_at, updated_at)"
        " VALUES ('none', 'a', 1, 1, :now, :now)"
    )
    with pytest.raises(IntegrityError), writing(engine) as session:
        session.execute(statement, {"now": utc_now()})


def test_times_come_back_in_utc(engine: Engine) -> None:
    now = utc_now()
    with writing(engine) as session:
        session.add(Model(name="a", created_at=now))
    with reading(engine) as session:
        assert session.execute(select(Model.created_at)).scalar_one() == now


def test_two_writers_wait_for_each_other_and_lose_nothing(engine: Engine) -> None:
    with writing(engine) as session:
        session.add(Model(name="m"))

    def add() -> None:
        for _ in range(10):
            with writing(engine) as session:
                model = session.scalars(select(Model).with_for_update()).one()
                model.last_version += 1

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with reading(engine) as session:
        assert session.execute(select(Model.last_version)).scalar_one() == 40


def test_a_reader_sees_one_moment(engine: Engine) -> None:
    with writing(engine) as session:
        session.add(Model(name="a"))
    with reading(engine) as reader:
        assert len(reader.scalars(select(Model)).all()) == 1


def test_a_writer_that_waits_too_long_is_told_that_the_database_is_busy(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.05)
    engine = create_database(sqlite_url)
    with writing(engine) as session:
        session.execute(select(1))
        with pytest.raises(Busy) as caught:
            ask(engine)
    assert caught.value.code == "database_busy"
    engine.dispose()


def test_a_database_that_does_not_answer_is_a_503() -> None:
    engine = create_database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(Busy) as caught:
        ask(engine)
    assert caught.value.code == "database_unavailable"
    engine.dispose()


def test_a_pool_without_a_free_connection_is_a_503(sqlite_url: str) -> None:
    engine = create_engine(sqlite_url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    with engine.connect(), pytest.raises(Busy) as refused:
        ask(engine)
    assert refused.value.code == "database_busy"
    engine.dispose()


def test_a_full_disk_in_a_transaction_is_a_507_and_leaves_nothing(engine: Engine) -> None:
    with pytest.raises(StorageFull):
        run_out_of_space(engine)
    assert count(engine) == 0


def test_the_clock_moves_forward_and_can_be_given(engine: Engine) -> None:
    with reading(engine) as session:
        first, second = clock(session), clock(session)
        assert second >= first
        assert clock(session, 42.0) == 42.0
        assert boot_id(session)


@pytest.mark.parametrize(
    ("version", "is_safe"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
    ],
)
def test_the_journal_is_a_wal_only_where_sqlite_is_free_of_the_bug(
    version: tuple[int, ...],
    is_safe: bool,  # noqa: FBT001  a parameter of the test
) -> None:
    assert is_wal_safe(version) is is_safe


def test_sqlite_is_set_up_to_survive_a_power_cut(sqlite_url: str) -> None:
    engine = create_database(sqlite_url)
    with engine.connect() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar_one() == 2
        assert connection.execute(text("PRAGMA foreign_keys")).scalar_one() == 1
        mode = connection.execute(text("PRAGMA journal_mode")).scalar_one()
    assert mode == ("wal" if is_wal_safe(sqlite3.sqlite_version_info) else "persist")
    engine.dispose()


def test_an_sqlite_file_with_data_is_copied_before_it_is_migrated(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_database(sqlite_url)
    with writing(engine) as session:
        session.add(Model(name="kept"))
    upgrades: list[str] = []
    monkeypatch.setattr(database, "newest_schema_version", lambda: "9999")
    monkeypatch.setattr(database, "check_is_known", lambda _engine: None)
    monkeypatch.setattr(command, "upgrade", lambda _config, to: upgrades.append(to))
    copy = migrate(engine)
    engine.dispose()
    assert upgrades == ["head"]
    assert copy is not None
    assert copy.parent == Path(engine.url.database or "").parent
    with sqlite3.connect(copy) as connection:
        assert connection.execute("SELECT name FROM models").fetchall() == [("kept",)]
    connection.close()


def test_a_url_of_another_database_is_refused() -> None:
    with pytest.raises(ValueError, match="must begin with sqlite: or postgresql:"):
        create_database("mysql://localhost/x")
