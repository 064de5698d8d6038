"""With a full disk, uploads are refused, reads succeed, and training waits for space."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.disk import fill, small_disk
from tests.service.worker.workplace import SHORT, until
from tests.serving import RunService

pytestmark = pytest.mark.slow

API = "/api/v1"
SIZE = "24m"  # of the disk
LEASE_S = float(SHORT["LEASE_S"])
TABLE = {"columns": {"x": [n / 50 for n in range(100)], "y": [n / 25 + 1 for n in range(100)]}}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", SIZE) as folder:
        yield folder


@pytest.fixture
def client(run_service: RunService, disk: Path, tmp_path: Path) -> Iterator[httpx.Client]:
    """Return a client of a whole service with its data, but not its log, on the small disk."""
    variables = {f"DESCENT_{name}": value for name, value in SHORT.items()}
    variables |= {"DESCENT_DATA_DIR": str(disk), "DESCENT_READY_DISK_BYTES": "0"}
    with (
        run_service(tmp_path, **variables) as url,
        httpx.Client(base_url=url + API, timeout=30) as client,
    ):
        yield client


def submit(client: httpx.Client, dataset: str) -> str:
    config = {
        "dataset": dataset,
        "target": "y",
        "model": {"type": "linear"},
        "optimizer": {"type": "sgd", "learning_rate": 0.01},
        "batch_size": "full",
        "early_stopping": None,
        "epochs": 5000,
    }
    answer = client.post("/runs", json=config)
    assert answer.status_code == 202, answer.text
    run_id: str = answer.json()["id"]
    return run_id


def is_refused(answer: httpx.Response) -> bool:
    return (answer.status_code, answer.json().get("code")) == (507, "storage_full")


def run_of(client: httpx.Client, run_id: str) -> dict[str, Any]:
    answer = client.get(f"/runs/{run_id}")
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def values(client: httpx.Client, run_id: str) -> list[tuple[int, str, float]]:
    found: list[tuple[int, str, float]] = []
    while True:
        page = client.get(f"/runs/{run_id}/metrics", params={"after": len(found)}).json()
        found += [(row["seq"], row["split"], row["value"]) for row in page["data"]]
        if page["is_final"] or not page["data"]:
            return found


def test_training_waits_for_space_while_uploads_are_refused(
    client: httpx.Client, disk: Path
) -> None:
    dataset = client.post("/datasets", json=TABLE).json()["id"]
    disturbed = submit(client, dataset)
    until(lambda: bool((run_of(client, disturbed)["progress"] or {}).get("epoch")))
    ballast = fill(disk)
    # A freshly deleted checkpoint leaves room for a small table.
    until(lambda: fill(disk).exists() and is_refused(client.post("/datasets", json=TABLE)))
    small = {"dataset": dataset, "target": "y", "epochs": 1}
    # A few may still fit into the space that the database's log has already allocated.
    until(lambda: client.post("/runs", json=small).status_code == 507)
    seen = len(values(client, disturbed))
    for _ in range(20):  # three leases in all
        before = run_of(client, disturbed)
        assert before["state"] == "running"
        client.get(f"/runs/{disturbed}", params={"wait": LEASE_S * 3 / 20})
    assert len(values(client, disturbed)) - seen <= 2
    ballast.unlink()
    until(lambda: run_of(client, disturbed)["state"] in {"succeeded", "failed"})
    ended = run_of(client, disturbed)
    assert (ended["state"], ended["attempt"], ended["error"]) == ("succeeded", 1, None)
    undisturbed = submit(client, dataset)
    until(lambda: run_of(client, undisturbed)["state"] == "succeeded")
    assert values(client, disturbed) == values(client, undisturbed)
    left = [path.name for path in disk.rglob("*") if path.name.endswith(".part")]
    assert left == []
    assert list((disk / "blobs" / "incoming").iterdir()) == []
