"""The contributions of the columns to a prediction, over HTTP."""

import csv
import io
import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from tests.service import trained
from tests.service.trained import Store, Trained

MODELS = "/api/v1/models"


def explained(client: httpx.Client, model: str, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    answer = client.post(f"{MODELS}/{model}/predict?explain=true", json={"rows": list(rows)})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["predictions"]
    return found


@pytest.fixture
def publish(engine: Engine, store: Store) -> Callable[[str, dict[str, Any]], int]:
    return lambda name, saved: trained.publish(engine, store(saved), name)


def test_the_contribution_of_a_line_is_its_weight_times_the_distance_from_the_mean(
    client: httpx.Client, scores: Trained
) -> None:
    (row,) = explained(client, "scores", {"Quiz": 10.0})
    assert row["explanation"] == {"base": 1.25 * 7.5 + 0.5, "contributions": {"Quiz": 3.125}}


def test_several_targets_are_explained_each(
    client: httpx.Client, publish: Callable[[str, dict[str, Any]], int]
) -> None:
    publish("both", trained.both())
    (row,) = explained(client, "both", {"Quiz": 10.0})
    assert row["explanation"] == {
        "A": {"base": 7.5, "contributions": {"Quiz": 2.5}},
        "B": {"base": 15.0, "contributions": {"Quiz": 5.0}},
    }


def test_a_class_is_explained_by_its_log_odds(client: httpx.Client, boats: Trained) -> None:
    for row in explained(client, "boats", {"Age": 30, "Port": "NA"}, {"Age": None}):
        explanation, share = row["explanation"], row["probabilities"][row["value"]]
        assert list(explanation["contributions"]) == ["Age", "Port"]
        total = explanation["base"] + sum(explanation["contributions"].values())
        assert total == pytest.approx(math.log(share / (1 - share)), rel=1e-5)


def test_a_row_without_an_answer_is_not_explained(client: httpx.Client, steep: Trained) -> None:
    good, bad = explained(client, "steep", {"Quiz": 10.0}, {"Quiz": 1000.0})
    assert "explanation" in good
    assert "explanation" not in bad
    assert bad["error"]["code"] == "non_finite"


def test_more_rows_than_can_be_explained_are_refused_by_name(
    client: httpx.Client, publish: Callable[[str, dict[str, Any]], int]
) -> None:
    publish("large", trained.large())
    assert len(explained(client, "large", *[{"Quiz": 1.0}] * 3)) == 3
    body = {"columns": {"Quiz": [1.0] * 1000}}
    refused = client.post(f"{MODELS}/large/predict?explain=true", json=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "explanation_too_large")
    assert "rows of this model" in refused.json()["detail"]
    assert client.post(f"{MODELS}/large/predict", json=body).status_code == 200


def test_a_csv_has_a_column_for_each_contribution(client: httpx.Client, scores: Trained) -> None:
    answer = client.post(
        f"{MODELS}/scores/predict?explain=true",
        content="Quiz\n10\n",
        headers={"Content-Type": "text/csv", "Accept": "text/csv"},
    )
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["base"], row["contribution.Quiz"]) == ("9.875", "3.125")


def test_no_explanation_unless_it_is_asked_for(client: httpx.Client, scores: Trained) -> None:
    for query in ("", "?explain=false"):
        answer = client.post(f"{MODELS}/scores/predict{query}", json={"rows": [{"Quiz": 10}]})
        assert answer.json()["predictions"] == [{"value": 13.0}]
    bad = client.post(f"{MODELS}/scores/predict?explain=maybe", json={"rows": []})
    assert bad.status_code == 422
