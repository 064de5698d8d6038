"""The migrations make exactly the tables that the program works with, on both databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, inspect, text

from service.storage.columns import Table
from service.storage.database import (
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


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Engine]:
    engine = create_database(f"sqlite:///{tmp_path / 'new' / 'empty.sqlite3'}")
    yield engine
    engine.dispose()


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, Table.metadata))


def test_the_migrated_schema_equals_the_tables(engine: Engine) -> None:
    with engine.connect() as connection:
        assert differences(connection) == []


def test_keys_checks_and_indexes_equal_the_tables(engine: Engine) -> None:
    found = inspect(engine)
    for name, table in Table.metadata.tables.items():
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
