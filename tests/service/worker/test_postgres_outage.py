"""PostgreSQL dies during training and restarts: no row is lost or written twice."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.storage.database import create_database, migrate
from tests.postgres import OwnServer, own_server
from tests.service.worker.workplace import Workplace, until
from tests.serving import RunService
from tests.warm import Parent

pytestmark = pytest.mark.slow

EPOCHS = 4_000
RUNS = 12


@pytest.fixture(scope="module")
def server() -> Iterator[OwnServer]:
    with own_server() as server:
        engine = create_database(server.url)
        migrate(engine)
        engine.dispose()
        yield server


@pytest.fixture
def workplace(server: OwnServer, tmp_path: Path, warm: Parent) -> Iterator[Workplace]:
    engine = create_database(server.url)
    place = Workplace(engine, tmp_path, warm)
    yield place
    place.dismiss()
    engine.dispose()


def progress(workplace: Workplace, run_id: str) -> int:
    return int((workplace.run(run_id).progress or {}).get("epoch", 0))


def test_training_goes_on_while_the_database_is_away_and_nothing_is_lost(
    server: OwnServer, workplace: Workplace, run_service: RunService, tmp_path: Path
) -> None:
    workplace.staff(1)
    dataset = workplace.add_dataset()
    with (
        run_service(tmp_path, "--no-worker", DESCENT_DATABASE_URL=server.url) as url,
        httpx.Client(base_url=url, timeout=30) as client,
    ):
        disturbed = workplace.submit(dataset, epochs=EPOCHS, batch_size=16)
        until(lambda: progress(workplace, disturbed) > 0)
        server.kill()
        for path in (f"/api/v1/runs/{disturbed}", "/api/v1/runs", "/readyz"):
            asked = time.monotonic()
            answer = client.get(path)
            assert answer.status_code == 503
            assert time.monotonic() - asked < 2
            if path != "/readyz":
                assert answer.json()["code"] == "database_unavailable"
                assert answer.headers["retry-after"]
        server.start()
        back = time.monotonic()
        until(lambda: client.get(f"/api/v1/runs/{disturbed}").status_code == 200)
        until(lambda: client.get("/readyz").status_code == 200)
        assert time.monotonic() - back < 5
    assert workplace.wait_for(disturbed, "succeeded", "failed").state == "succeeded"
    assert workplace.run(disturbed).attempt == 1
    undisturbed = workplace.submit(dataset, epochs=EPOCHS, batch_size=16)
    workplace.wait_for(undisturbed, "succeeded", "failed")
    curves = [
        [(row["seq"], row["split"], row["value"]) for row in workplace.curve(run_id)]
        for run_id in (disturbed, undisturbed)
    ]
    assert curves[0] == curves[1]
    assert [seq for seq, _, _ in curves[0]] == list(range(1, len(curves[0]) + 1))


def test_two_apis_and_three_workers_train_each_run_once(
    server: OwnServer, workplace: Workplace, run_service: RunService, tmp_path: Path
) -> None:
    workplace.staff(3)
    dataset = workplace.add_dataset()
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    variables = {"DESCENT_DATABASE_URL": server.url, "DESCENT_BLOB_URL": f"file://{tmp_path}/blobs"}
    with (
        run_service(folders[0], "--no-worker", **variables) as first,
        run_service(folders[1], "--no-worker", **variables) as second,
        httpx.Client(timeout=30) as client,
    ):
        runs = []
        for seed in range(RUNS):
            config: dict[str, Any] = {"dataset": dataset, "target": "y"}
            config |= {
                "model": {"type": "linear"},
                "epochs": 20,
                "seed": seed,
                "register_as": "line",
            }
            key = {"Idempotency-Key": f"{os.getpid()}-{seed}"}
            here, there = (first, second) if seed % 2 else (second, first)
            answer = client.post(f"{here}/api/v1/runs", json=config, headers=key)
            again = client.post(f"{there}/api/v1/runs", json=config, headers=key)
            assert (answer.status_code, again.text) == (202, answer.text)
            runs.append(answer.json()["id"])
        for run_id in runs:
            run = workplace.wait_for(run_id, "succeeded", "failed")
            assert (run.state, run.attempt) == ("succeeded", 1)
        version = f"{first}/api/v1/models/line/versions/{RUNS}"
        until(lambda: client.get(version).json()["proof"] != "pending")
        alias = "/api/v1/models/line/aliases/champion"
        assert client.put(f"{first}{alias}", json={"version": RUNS}).status_code in {200, 201}
        seen = client.get(f"{second}/api/v1/models/line").json()
        assert "champion" in str(seen)
        assert {workplace.run(run_id).model_version for run_id in runs} == set(range(1, RUNS + 1))
