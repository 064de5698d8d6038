"""The server's side of `descent doctor` finds faults, and creates nothing while it checks."""

from pathlib import Path
from typing import Any

import pytest

from descent.schemas.common import Check
from service.doctor import gpu, look
from service.settings import Settings
from service.storage.database import create_database

ROOT = Path(__file__).parents[2]


def check(name: str, settings: Settings) -> Check:
    """Return the first check of this name; later ones do not run."""
    return next(check for check in look(settings) if check.name == name)


@pytest.mark.parametrize(
    ("given", "name", "remedy"),
    [
        ({"data_dir": ROOT / "README.md"}, "data folder", "DESCENT_DATA_DIR"),
        ({"ready_disk_bytes": 2**60}, "disk", "free some"),
        ({"database_url": "mysql://x/y"}, "database", "DESCENT_DATABASE_URL"),
        ({"database_url": "postgresql://127.0.0.1:9/x"}, "database", "lets this machine in"),
        ({"blob_url": "ftp://x"}, "storage", "DESCENT_BLOB_URL"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(
    given: dict[str, Any], name: str, remedy: str, tmp_path: Path
) -> None:
    found = check(name, Settings(**{"data_dir": tmp_path / "data"} | given))
    assert found.state == "failed"
    assert remedy in str(found.remedy)
    assert list(tmp_path.iterdir()) == []


def test_the_schema_that_is_needed_is_found(settings: Settings) -> None:
    assert check("schema", settings).state == "ok"


def test_a_schema_that_is_lacking_is_for_serve_or_for_migrate(
    fresh_postgres_url: str, tmp_path: Path
) -> None:
    engine = create_database(fresh_postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM alembic_version")
    engine.dispose()
    found = check("schema", Settings(data_dir=tmp_path, database_url=fresh_postgres_url))
    assert (found.state, str(found.remedy).partition(";")[0]) == ("failed", "descent migrate")
    (tmp_path / "descent.sqlite3").touch()
    found = check("schema", Settings(data_dir=tmp_path))
    assert found.state == "note"
    assert "descent serve" in str(found.remedy)


def test_a_damaged_database_is_found(tmp_path: Path) -> None:
    (tmp_path / "descent.sqlite3").write_bytes(b"no database" * 1000)
    found = check("database", Settings(data_dir=tmp_path))
    assert found.state == "failed"
    assert "is damaged" in found.detail
    assert "restore a backup" in str(found.remedy)


def test_an_address_that_others_reach_without_a_key_is_found(settings: Settings) -> None:
    open_to_all = settings.model_copy(update={"host": "192.0.2.1"})
    assert "descent keys create" in str(check("keys", open_to_all).remedy)


def test_a_password_of_the_database_is_not_shown(tmp_path: Path) -> None:
    url = "postgresql://me:mysecret@127.0.0.1:9/x"
    found = check("database", Settings(data_dir=tmp_path, database_url=url))
    assert "mysecret" not in found.model_dump_json()


def test_a_gpu_that_torch_does_not_see_is_found() -> None:
    present = [{"name": "cuda:0", "model": "NVIDIA H100"}]
    assert gpu("13.0", ["NVIDIA H100"], present).state == "ok"
    assert gpu(None, [], []).state == "note"
    assert "TORCH_INDEX" in str(gpu(None, [], present).remedy)
    assert "driver" in str(gpu("13.0", [], present).remedy)
