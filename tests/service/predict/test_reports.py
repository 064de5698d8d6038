"""The report of a run, over HTTP."""

import httpx
import pytest
from sqlalchemy import Engine

from tests.service import trained
from tests.service.trained import Store, Trained

REPORT = {
    "split": "validation",
    "rows": 60,
    "level": 0.95,
    "difference_level": 0.99,
    "metric": "rmse",
    "score": {"value": 1.0, "low": 0.9, "high": 1.1},
    "baselines": [],
    "findings": [{"code": "few_held_out_rows", "detail": "Few."}],
}


@pytest.fixture
def reported(store: Store) -> Trained:
    found = trained.scores()
    known = {"calibration": {"method": "conformal", "coverage": []}}
    found["document"] |= {"report": REPORT, "evaluation": known}
    return store(found)


def test_a_report_is_that_of_the_best_checkpoint(client: httpx.Client, reported: Trained) -> None:
    answer = client.get(f"/api/v1/runs/{reported.run_id}/report")
    assert answer.status_code == 200, answer.text
    assert answer.json() == REPORT | {"calibration": {"method": "conformal", "coverage": []}}
    headers = {"If-None-Match": answer.headers["etag"]}
    again = client.get(f"/api/v1/runs/{reported.run_id}/report", headers=headers)
    assert again.status_code == 304


def test_a_run_without_a_report_is_refused_with_the_reason(
    client: httpx.Client, engine: Engine, scores: Trained
) -> None:
    answer = client.get(f"/api/v1/runs/{scores.run_id}/report")
    assert (answer.status_code, answer.json()["code"]) == (409, "no_report")
    assert client.get("/api/v1/runs/run_none/report").status_code == 404
