"""The locks by which supervisors on one machine detect each other's death."""

import os
from pathlib import Path

from service.runs.kind import RUNS
from service.runs.messages import TrainingJob
from service.worker import machine
from service.worker.launch import LocalLauncher


def test_an_owner_is_dead_only_when_its_trainers_are_gone_too(tmp_path: Path) -> None:
    locks = tmp_path / "locks"
    table = tmp_path / "table.parquet"
    os.mkfifo(table)  # a trainer that opens it blocks
    job = TrainingJob(
        run_id="run_1",
        attempt=1,
        config={"dataset": "ds_1", "target": "y", "features": ["x"]},
        columns={"x": "number", "y": "number"},
        table=table,
        scratch=tmp_path,
        resume=None,
        seq=0,
        elapsed_s=0.0,
        saving_s=0.0,
        checkpoint_s=0.0,
    )
    with machine.alive(locks, "first") as lock:
        launcher = LocalLauncher([RUNS.module])
        child = launcher.start(RUNS.module, job, tmp_path, lock)
    try:
        assert machine.dead(locks) == []
    finally:
        child.kill()
        child.exit_code()
        launcher.close()
    assert machine.dead(locks) == ["first"]


def test_an_owner_that_lives_is_not_dead(tmp_path: Path) -> None:
    with machine.alive(tmp_path, "first"):
        assert machine.dead(tmp_path) == []
    assert machine.dead(tmp_path) == ["first"]
