"""A group of runs trains in one process as far as the memory goes."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from descent.spec import RunConfig
from service.datasets.versions import DatasetVersion
from service.jobs.kind import Site
from service.runs import lifecycle
from service.runs.groups import count_fitting
from service.runs.kind import claim_companions
from service.settings import Settings
from service.storage.blobs import LocalBlobs
from service.storage.database import writing
from tests.service.rows import COLUMNS, add_dataset

ROWS = 20_000_000
GB = 10**9


def config(**changes: Any) -> dict[str, Any]:
    asked = {"dataset": "ds_x", "target": "Final", "features": ["Quiz"], "task": "regression"}
    return RunConfig.model_validate(asked | {"loss": "mse"} | changes).model_dump(mode="json")


def rates(count: int) -> list[dict[str, Any]]:
    return [config(optimizer={"learning_rate": 0.001 * (1 + place)}) for place in range(count)]


def seeds(count: int, **changes: Any) -> list[dict[str, Any]]:
    return [config(seed=place, **changes) for place in range(count)]


def test_members_that_share_their_data_need_less_memory_than_members_with_their_own() -> None:
    shared = count_fitting(rates(64), COLUMNS, ROWS, 4 * GB)
    own = count_fitting(seeds(64), COLUMNS, ROWS, 4 * GB)
    assert 1 < own < shared < 64


def test_seeds_need_no_further_data_if_the_split_is_not_drawn() -> None:
    undrawn = seeds(64, split={"type": "none"}, early_stopping=None)
    drawn = seeds(64, split={"type": "random", "validation": 0, "test": 0}, early_stopping=None)
    fitting = [count_fitting(configs, COLUMNS, ROWS, 4 * GB) for configs in (undrawn, drawn)]
    assert fitting[0] > fitting[1]


def test_other_parts_of_the_same_rows_are_data_of_their_own() -> None:
    parts = [config(split={"type": "random", "validation": 0.01 * (1 + n)}) for n in range(64)]
    own = count_fitting(parts, COLUMNS, ROWS, 4 * GB)
    assert own < count_fitting(rates(64), COLUMNS, ROWS, 4 * GB)


def test_a_small_table_leaves_room_for_all() -> None:
    assert count_fitting(seeds(64), COLUMNS, 1000, GB) == 64


def test_the_first_run_trains_however_little_memory_there_is() -> None:
    assert count_fitting(rates(3), COLUMNS, ROWS, 1) == 1


@pytest.mark.both_databases
def test_a_worker_claims_no_more_companions_than_fit(engine: Engine, tmp_path: Path) -> None:
    limit = 2 * GB
    fitting = count_fitting(seeds(8), COLUMNS, ROWS, limit)
    settings = Settings(data_dir=tmp_path, training_memory_bytes=limit)
    site = Site(settings, engine, LocalBlobs(tmp_path))
    with writing(engine) as session:
        dataset = add_dataset(session)
        session.get_one(DatasetVersion, (dataset, 1)).rows = ROWS
        for each in seeds(8):
            lifecycle.submit(session, lifecycle.Submission(each, dataset, 1, [], group="group"))
        first = lifecycle.claim(session, "w1", lease_s=20)
        assert first is not None
        companions = claim_companions(site, session, first, "w1")
        next_first = lifecycle.claim(session, "w2", lease_s=20)
    assert 1 + len(companions) == fitting < 8
    assert [run.config["seed"] for run in companions] == list(range(1, fitting))
    assert next_first is not None
    assert next_first.config["seed"] == fitting
