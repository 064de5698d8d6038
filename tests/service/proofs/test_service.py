"""Export verifications in a whole service: they start by themselves with a new version."""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from models.export.card import TOLERANCE
from service.proofs.ways import WAYS
from tests.service.worker.workplace import until

pytestmark = pytest.mark.slow

API = "/api/v1"
ZIP = {"Content-Type": "application/zip"}
ROWS = [{"area": 20.0 + n, "port": "NS"[n % 2], "price": 3.0 * n + n % 5} for n in range(40)]


@dataclass(frozen=True)
class Made:
    """A run, its dataset, and the address of its model's version."""

    run: str
    dataset: str
    version: str


def train(service: httpx.Client, model: str) -> Made:
    body = {"name": model, "rows": ROWS}
    dataset = service.post(f"{API}/datasets", json=body).raise_for_status().json()["id"]
    asked = {"dataset": dataset, "target": "price", "epochs": 5, "register_as": model}
    run = service.post(f"{API}/runs", json=asked).raise_for_status().json()["id"]
    until(lambda: service.get(f"{API}/runs/{run}").json()["state"] == "succeeded")
    number = service.get(f"{API}/runs/{run}").json()["model"]["version"]
    return Made(run, dataset, f"{API}/models/{model}/versions/{number}")


@pytest.fixture(scope="module")
def made(service_url: str) -> Made:
    """Train the model `houses`."""
    with httpx.Client(base_url=service_url, timeout=60) as service:
        return train(service, "houses")


def register(service: httpx.Client, made: Made, model: str) -> str:
    """Register a run as another model; return the address of its version, which is pending."""
    (checkpoint, *_others) = service.get(f"{API}/runs/{made.run}/checkpoints").json()["data"]
    path = f"{API}/runs/{made.run}/checkpoints/{checkpoint['id']}/register"
    version = service.post(path, json={"model": model}).raise_for_status().json()
    assert version["proof"] == "pending"
    return f"{API}/models/{model}/versions/{version['version']}"


def proved(service: httpx.Client, version: str) -> dict[str, Any]:
    """Return a version once its export verification has ended."""
    until(lambda: service.get(version).json()["proof"] != "pending")
    body: dict[str, Any] = service.get(version).json()
    assert (body["proof"], body["proof_error"]) == ("passed", None), body
    return body


def test_a_version_is_proved_by_held_out_rows(service: httpx.Client, made: Made) -> None:
    details = proved(service, made.version)["proof_details"]
    assert (details["source"], details["rows"]) == ("held_out", 8)
    assert details["ways"].keys() == WAYS.keys()
    assert details["largest"] < details["tolerance"] == TOLERANCE


def test_a_version_just_made_from_a_checkpoint_is_promoted_without_a_second_try(
    service: httpx.Client, made: Made
) -> None:
    version = register(service, made, "again")
    answer = service.put(f"{API}/models/again/aliases/champion", json={"version": 1})
    assert answer.status_code == 201
    assert proved(service, version)["proof_details"]["source"] == "held_out"


def test_an_imported_version_is_proved_by_its_golden_rows(
    service: httpx.Client, made: Made
) -> None:
    content = service.get(f"{made.version}/artifact?format=bundle").raise_for_status().content
    path = f"{API}/models/from-elsewhere/versions"
    service.post(path, content=content, headers=ZIP).raise_for_status()
    answer = service.put(f"{API}/models/from-elsewhere/aliases/champion", json={"version": 1})
    assert answer.status_code == 201
    details = proved(service, f"{path}/1")["proof_details"]
    assert details["source"] == "golden"
    assert details["ways"].keys() == WAYS.keys()


def test_a_version_whose_dataset_is_gone_is_proved_by_golden_rows(service: httpx.Client) -> None:
    made = train(service, "orphan")
    assert service.delete(f"{API}/datasets/{made.dataset}").status_code == 204
    version = register(service, made, "orphan")
    assert proved(service, version)["proof_details"]["source"] == "golden"


def test_a_model_goes_while_its_proof_is_pending(service: httpx.Client, made: Made) -> None:
    for _ in range(5):
        register(service, made, "brief")
        assert service.delete(f"{API}/models/brief").status_code == 204
    proved(service, register(service, made, "brief"))
