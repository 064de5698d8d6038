"""The locks by which supervisors of one machine know each other's death."""

import os
from pathlib import Path

from service.worker import owners
from service.worker.launch import LocalLauncher


def test_an_owner_is_dead_only_when_its_trainers_are_gone_too(tmp_path: Path) -> None:
    locks = tmp_path / "locks"
    table = tmp_path / "table.parquet"
    os.mkfifo(table)  # a trainer that opens it waits for ever
    job = {
        "config": {"dataset": "ds_1", "target": "y", "features": ["x"]},
        "columns": {"x": "number", "y": "number"},
        "table": str(table),
    }
    with owners.alive(locks, "first") as lock:
        child = LocalLauncher().start(job, tmp_path, lock)
    try:
        assert owners.dead(locks) == []
    finally:
        child.kill()
        child.exit_code()
    assert owners.dead(locks) == ["first"]


def test_an_owner_that_lives_is_not_dead(tmp_path: Path) -> None:
    with owners.alive(tmp_path, "first"):
        assert owners.dead(tmp_path) == []
    assert owners.dead(tmp_path) == ["first"]
