"""The test of learning rates, on tables like those that people train on."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from descent.spec import RunConfig
from models.data import Table
from models.training.cost import RATES
from models.training.dataset import TrainingInput
from models.training.interface import Finished, Metrics
from models.training.loop import train
from models.training.lr_range import evaluate_rates

HOUSES: dict[str, Any] = {
    "dataset": "ds_1",
    "target": "value",
    "features": ["income", "age", "rooms", "lat"],
    "task": "regression",
    "loss": "mse",
    "model": {"type": "mlp", "hidden": [16, 16]},
    "batch_size": 32,
    "early_stopping": None,
}


def houses(rows: int = 3000) -> Table:
    """Districts with the value of their houses: no line, with noise and rare large values."""
    random = np.random.default_rng(3)
    income = random.lognormal(1.2, 0.5, rows)
    age = random.uniform(1, 52, rows)
    rooms = random.lognormal(1.6, 0.3, rows)
    lat = random.uniform(32, 42, rows)
    value = np.tanh(income / 5) * 4 + np.sin(lat) + 0.1 * rooms + random.normal(0, 0.3, rows)
    columns = {"income": income, "age": age, "rooms": rooms, "lat": lat, "value": value}
    return Table(dict.fromkeys(columns, "number"), columns, rows)


def events_of(config: dict[str, Any], folder: Path) -> list[Any]:
    given = TrainingInput(RunConfig.model_validate(HOUSES | config), houses(), folder)
    return list(train(given, lambda: None))


def evaluation(events: list[Any]) -> dict[str, Any]:
    (end,) = (event for event in events if isinstance(event, Finished))
    assert end.evaluation is not None
    found: dict[str, Any] = end.evaluation
    return found


@pytest.mark.parametrize("optimizer", ["adam", "sgd", "rmsprop"])
def test_a_run_with_the_suggested_rate_learns_well(tmp_path: Path, optimizer: str) -> None:
    events = events_of({"optimizer": {"type": optimizer}, "lr_range": {}}, tmp_path)
    found = evaluation(events)["lr_range"]
    assert found["is_sure"]
    assert found["range"][0] <= found["suggested"] <= found["range"][1]
    chosen = {"type": optimizer, "learning_rate": found["suggested"]}
    scores = evaluation(events_of({"optimizer": chosen, "epochs": 8}, tmp_path))
    assert scores["validation"]["r2"] > 0.75


def test_every_batch_has_a_row_and_nothing_is_saved(tmp_path: Path) -> None:
    events = events_of({"lr_range": {"min": 1e-6, "max": 1e-2}}, tmp_path)
    found = evaluation(events)["lr_range"]
    rows = [row for event in events if isinstance(event, Metrics) for row in event.rows]
    assert [row.seq for row in rows] == list(range(1, len(rows) + 1))
    assert [row.value for row in rows] == found["losses"]
    assert len(rows) == RATES
    assert found["learning_rates"][0] == pytest.approx(1e-6)
    assert found["learning_rates"][-1] <= 1e-2
    assert list(tmp_path.iterdir()) == []


def test_the_test_ends_when_the_loss_explodes(tmp_path: Path) -> None:
    config = {"optimizer": {"type": "sgd"}, "lr_range": {"max": 1e6}}
    found = evaluation(events_of(config, tmp_path))["lr_range"]
    assert found["learning_rates"][-1] < 1e4
    assert np.isfinite(found["losses"]).all()


def test_the_rate_of_the_steepest_fall_is_suggested() -> None:
    rates = np.geomspace(1e-7, 10, 200)
    places = np.log10(rates)
    losses = 1 - 0.8 / (1 + np.exp(-4 * (places + 3))) + np.exp(3 * places)
    found = evaluate_rates(rates, losses)
    assert found["suggested"] == pytest.approx(1e-3, rel=0.25)
    assert found["is_sure"]


def test_a_loss_that_only_rises_suggests_nothing() -> None:
    rates = np.geomspace(1e-7, 10, 100)
    found = evaluate_rates(rates, np.linspace(1, 2, 100))
    assert (found["suggested"], found["is_sure"]) == (None, False)
    assert "lower" in found["detail"]


def test_a_fall_within_the_noise_is_not_sure() -> None:
    rates = np.geomspace(1e-7, 10, 100)
    noise = np.random.default_rng(0).normal(0, 0.3, 100)
    found = evaluate_rates(rates, 1 + noise)
    assert not found["is_sure"]
