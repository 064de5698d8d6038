"""Predictions of a run's model beside the true values, over HTTP, after a real training."""

import math
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from descent import Client
from service.storage.database import writing
from tests.service.rows import add_run

DATA = Path(__file__).parents[3] / "descent" / "data"


def trained(url: str, table: str, target: str, **config: Any) -> dict[str, Any]:
    """Return a finished run."""
    with Client(url) as client:
        dataset = client.upload(DATA / table)
        run = client.train(dataset, target, epochs=20, **config).wait()
        assert run.state == "succeeded", run.info.error
        return run.info.model_dump()


def evaluation(url: str, run: dict[str, Any], **params: str) -> Any:
    answer = httpx.get(f"{url}/api/v1/runs/{run['id']}/evaluation", params=params, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_points_give_the_figures_that_the_run_reports(service_url: str) -> None:
    run = trained(service_url, "scores.csv", "Final", split={"validation": 0.3, "test": 0.2})
    for split in ("train", "validation", "test"):
        found = evaluation(service_url, run, split=split)
        (points,) = found["points"]
        squares = [
            (predicted - actual) ** 2
            for actual, predicted in zip(points["actual"], points["predicted"], strict=True)
        ]
        assert found["rows"] == found["shown"] == len(squares)
        rmse = math.sqrt(sum(squares) / len(squares))
        assert rmse == pytest.approx(run["evaluation"][split]["rmse"], rel=1e-5)
    assert evaluation(service_url, run)["split"] == "test"


def test_each_class_has_a_curve_of_the_held_out_rows(service_url: str) -> None:
    run = trained(service_url, "iris.csv", "column_5")
    found = evaluation(service_url, run)
    assert (found["split"], found["points"]) == ("validation", [])
    support = run["evaluation"]["validation"]["classes"]
    assert [curve["label"] for curve in found["curves"]] == list(support)
    for curve in found["curves"]:
        rates = list(zip(curve["false_positive_rate"], curve["true_positive_rate"], strict=True))
        assert (rates[0], rates[-1]) == ((0.0, 0.0), (1.0, 1.0))
        assert curve["auc"] > 0.5


def test_what_a_client_has_is_not_sent_again(service_url: str) -> None:
    run = trained(service_url, "scores.csv", "Final", split={"type": "none"})
    path = f"{service_url}/api/v1/runs/{run['id']}/evaluation"
    first = httpx.get(path, timeout=30)
    again = httpx.get(path, headers={"If-None-Match": first.headers["ETag"]}, timeout=30)
    assert first.json()["split"] == "train"
    assert (again.status_code, again.content) == (304, b"")


def test_a_run_without_a_checkpoint_has_nothing_to_show(
    client: httpx.Client, engine: Engine
) -> None:
    with writing(engine) as session:
        run_id = add_run(session).id
    answer = client.get(f"/api/v1/runs/{run_id}/evaluation")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_checkpoint")
