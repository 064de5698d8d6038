"""Sweeps over HTTP, with real processes."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

pytestmark = pytest.mark.slow

API = "/api/v1"
DATA = Path(__file__).parents[3] / "descent" / "data"
RATES = [0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.2, 0.05, 0.02, 0.005, 0.002, 0.0005]
LINE = {
    "target": "Final",
    "model": {"type": "linear"},
    "optimizer": {"type": "sgd"},
    "batch_size": "full",
    "epochs": 30,
}


@pytest.fixture
def scores(service: httpx.Client) -> str:
    content = (DATA / "scores.csv").read_bytes()
    answer = service.post(
        f"{API}/datasets", content=content, headers={"Content-Type": "text/csv"}
    ).json()
    return str(answer["id"])


def submit(service: httpx.Client, dataset: str, **asked: Any) -> dict[str, Any]:
    base = LINE | {"dataset": dataset} | asked.pop("base", {})
    answer = service.post(f"{API}/sweeps", json={"base": base} | asked)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"{API}/sweeps/{answer.json()['id']}"
    return dict(answer.json())


def wait_for(service: httpx.Client, sweep_id: str, *states: str) -> dict[str, Any]:
    while True:
        body = service.get(f"{API}/sweeps/{sweep_id}", params={"wait": 20}).json()
        if body["state"] in states or body["state"] in {"succeeded", "failed", "cancelled"}:
            return dict(body)


def stream(service: httpx.Client, sweep_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of a sweep as they are streamed until its end."""
    found, event = [], ""
    headers = {"Accept": "text/event-stream"}
    with service.stream("GET", f"{API}/sweeps/{sweep_id}/events", headers=headers) as lines:
        for line in lines.iter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((event, json.loads(line.removeprefix("data: "))))
    return found


def test_twelve_learning_rates_make_a_leaderboard_and_a_model(
    service: httpx.Client, scores: str
) -> None:
    space = {"optimizer.learning_rate": {"grid": RATES}}
    made = submit(service, scores, space=space, register_best_as="tuned", name="rates")
    events = stream(service, made["id"])
    body = service.get(f"{API}/sweeps/{made['id']}").json()
    assert body["state"] == "succeeded"
    values = [row["value"] for row in body["leaderboard"]]
    assert values == sorted(values)
    assert {row["parameters"]["optimizer.learning_rate"] for row in body["leaderboard"]} == {*RATES}
    ended = [
        data["trial"] for kind, data in events if kind == "trial" and data["state"] == "succeeded"
    ]
    assert sorted(ended) == list(range(1, 13))
    assert events[-1] == ("end", {"state": "succeeded"})
    run = service.get(f"{API}/runs/{body['best']['run']}").json()
    assert run["model"] == body["model"] == {"name": "tuned", "version": body["model"]["version"]}
    assert run["sweep"] == {"id": made["id"], "trial": body["best"]["trial"]}
    assert run["name"] == f"rates · {body['best']['trial']}"
    predicted = service.post(f"{API}/models/tuned/predict", json={"rows": [{"Quiz": 10.0}]})
    assert predicted.status_code == 200
    members = service.get(f"{API}/runs", params={"sweep": made["id"], "limit": 50}).json()["data"]
    assert len(members) == 12


def curve(service: httpx.Client, run_id: str) -> list[Any]:
    page = service.get(f"{API}/runs/{run_id}/metrics", params={"layout": "columns"}).json()
    data = page["data"]
    return list(zip(data["epoch"], data["split"], data["value"], strict=True))


def test_a_halving_trains_its_winner_like_an_undisturbed_run(
    service: httpx.Client, scores: str
) -> None:
    space = {"optimizer.learning_rate": {"log_uniform": [0.001, 0.1]}}
    made = submit(service, scores, space=space, strategy="halving", trials=3)
    body = wait_for(service, made["id"])
    assert [row["epochs"] for row in body["leaderboard"]] == [30, 10, 10]
    assert [row["state_reason"] for row in body["leaderboard"]] == [None, "pruned", "pruned"]
    best = service.get(f"{API}/runs/{body['best']['run']}").json()
    alone = service.post(f"{API}/runs", json=best["config"]).json()
    while alone["state"] != "succeeded":
        alone = service.get(f"{API}/runs/{alone['id']}", params={"wait": 20}).json()
    assert curve(service, best["id"]) == curve(service, alone["id"])
    digests = [
        service.get(f"{API}/runs/{run['id']}/checkpoints").json()["data"][0]["sha256"]
        for run in (best, alone)
    ]
    assert digests[0] == digests[1]


def test_a_sweep_is_paused_resumed_and_cancelled(service: httpx.Client, scores: str) -> None:
    long = {"epochs": 1_000_000, "early_stopping": None}
    made = submit(service, scores, space={"seed": {"grid": [1, 2, 3]}}, base=long)
    address = f"{API}/sweeps/{made['id']}"
    wait_for(service, made["id"], "running")
    assert service.post(f"{address}/pause").status_code == 202
    body = wait_for(service, made["id"], "paused")
    assert {row["state"] for row in body["leaderboard"]} == {"paused"}
    assert service.post(f"{address}/pause").status_code == 200
    assert service.delete(address).status_code == 409
    assert service.post(f"{address}/resume").json()["state"] == "queued"
    wait_for(service, made["id"], "running")
    service.post(f"{address}/cancel")
    body = wait_for(service, made["id"], "cancelled")
    assert {row["state"] for row in body["leaderboard"]} == {"cancelled"}
    assert service.delete(address).status_code == 204
    assert service.get(address).status_code == 404
    assert service.get(f"{API}/runs", params={"sweep": made["id"]}).json()["data"] == []


def test_a_sampler_suggests_the_later_trials(service: httpx.Client, scores: str) -> None:
    space = {"optimizer.learning_rate": {"log_uniform": [0.001, 0.1]}}
    made = submit(service, scores, space=space, strategy="tpe", trials=11, base={"epochs": 1})
    body = wait_for(service, made["id"])
    assert body["state"] == "succeeded"
    assert sorted(row["trial"] for row in body["leaderboard"]) == list(range(1, 12))


def test_a_repeated_request_returns_the_same_sweep(service: httpx.Client, scores: str) -> None:
    body = {
        "base": LINE | {"dataset": scores, "epochs": 1},
        "space": {"seed": {"grid": [1]}},
    }
    first, second = (
        service.post(f"{API}/sweeps", json=body, headers={"Idempotency-Key": "once"})
        for _ in range(2)
    )
    assert first.json()["id"] == second.json()["id"]


def test_a_sweep_is_previewed_without_being_made(service: httpx.Client, scores: str) -> None:
    asked = {
        "base": LINE | {"dataset": scores},
        "space": {"seed": {"grid": [1, 2]}},
        "register_best_as": "never",
    }
    plan = service.post(f"{API}/sweeps/validate", json=asked).json()
    assert plan["parameters"] == [{"seed": 1}, {"seed": 2}]
    assert plan["estimate"]["steps"] == 60
    assert plan["metric"] == {"name": "loss", "split": "validation", "direction": "min"}


def test_an_error_names_the_field_of_the_space(service: httpx.Client, scores: str) -> None:
    asked = {
        "base": LINE | {"dataset": scores},
        "space": {"optimizer.learning_rate": {"log": [1, 2]}},
    }
    answer = service.post(f"{API}/sweeps", json=asked)
    assert answer.status_code == 422
    item = answer.json()["errors"][0]
    assert item["pointer"] == "/space/optimizer.learning_rate"
    assert "log_uniform" in item["detail"]
