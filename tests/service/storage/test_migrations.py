"""The migrations create exactly the tables of the program, on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, select, text
from sqlalchemy.orm import Session

from service.datasets.versions import Parse
from service.storage.columns import SqlTable
from service.storage.database import (
    MIGRATIONS,
    SchemaOutOfDate,
    SchemaTooNew,
    alembic_config,
    check_schema,
    create_database,
    migrate,
    newest_schema_version,
    schema_version,
)

pytestmark = pytest.mark.both_databases

PARSES = "0004"  # the version in which parses became jobs


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Engine]:
    engine = create_database(f"sqlite:///{tmp_path / 'new' / 'empty.sqlite3'}")
    yield engine
    engine.dispose()


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, SqlTable.metadata))


def test_the_migrated_schema_equals_the_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        assert differences(connection) == []


def test_keys_checks_and_indexes_equal_the_tables(engine: Engine) -> None:
    found = inspect(engine)
    for name, table in SqlTable.metadata.tables.items():
        assert {i["name"] for i in found.get_indexes(name)} >= {i.name for i in table.indexes}
        assert found.get_pk_constraint(name)["constrained_columns"] == [
            column.name for column in table.primary_key.columns
        ]
        assert len(found.get_foreign_keys(name)) == len(table.foreign_key_constraints)
        nullable = {column["name"]: column["nullable"] for column in found.get_columns(name)}
        assert nullable == {column.name: column.nullable for column in table.columns}


def test_a_migrated_schema_is_accepted(engine: Engine) -> None:
    check_schema(engine)
    assert schema_version(engine) == newest_schema_version()
    assert migrate(engine) is None


def test_an_empty_database_is_refused_until_it_is_migrated(empty: Engine) -> None:
    with pytest.raises(SchemaOutOfDate, match="descent migrate"):
        check_schema(empty)
    assert migrate(empty) is None, "there was nothing to copy"
    check_schema(empty)


def test_an_older_schema_is_refused_naming_the_command(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM alembic_version"))
    with pytest.raises(SchemaOutOfDate, match="descent migrate"):
        check_schema(engine)


def test_a_newer_schema_is_refused_and_left_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaTooNew):
        check_schema(engine)
    with pytest.raises(SchemaTooNew):
        migrate(engine)
    assert schema_version(engine) == "9999"


def test_the_indexes_of_the_lists_go_down_and_come_up_again(engine: Engine) -> None:
    def indexes() -> set[str | None]:
        found = inspect(engine)
        return {i["name"] for name in found.get_table_names() for i in found.get_indexes(name)}

    newest = indexes()
    with engine.begin() as connection:
        command.downgrade(alembic_config(connection), "0002")
    assert {"ix_runs_dataset_id", "ix_checkpoints_run_id"} <= indexes()
    assert "ix_runs_newest" not in indexes()
    migrate(engine)
    assert indexes() == newest


def test_a_dataset_that_was_being_parsed_is_queued_by_the_migration(engine: Engine) -> None:
    move(engine, "downgrade", before(PARSES))
    with engine.begin() as connection:
        for name, state in (("one", "ingesting"), ("two", "ready")):
            connection.execute(
                text(
                    "INSERT INTO datasets (id, name, state, media_type, version, attempt,"
                    " lease_expires, created_at) VALUES (:id, 'x', :state, 'text/csv', 0, 1, 5.0,"
                    " '2026-01-01 00:00:00')"
                ),
                {"id": f"ds_{name}", "state": state},
            )
    move(engine, "upgrade", "head")
    with Session(engine) as session:
        (parse,) = session.scalars(select(Parse)).all()
        assert (parse.id, parse.dataset_id, parse.state) == ("parse_one", "ds_one", "queued")
        assert (parse.version, parse.options, parse.is_small) == (1, {}, False)
    move(engine, "downgrade", before(PARSES))
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT id, attempt, lease_expires FROM datasets ORDER BY id")
        )
        assert [tuple(row) for row in rows] == [("ds_one", 0, 0.0), ("ds_two", 0, None)]


def before(revision: str) -> str:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return str(ScriptDirectory.from_config(config).get_revision(revision).down_revision)


def move(engine: Engine, direction: str, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        getattr(command, direction)(config, revision)
