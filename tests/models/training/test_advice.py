"""The learning rate that the error of a diverged run recommends."""

import re
from pathlib import Path
from typing import Any

import pytest

from models.data import Table
from tests.models.samples import LINE, SURVIVAL, learn, passengers, scores

NET = LINE | {"model": {"type": "mlp", "hidden": [16, 16]}, "epochs": 300}
AGE = LINE | {
    "target": "Age",
    "features": ["Sex", "Class", "Alone", "Fare"],
    "epochs": 200,
    "batch_size": 8,
}
SGD = {"type": "sgd", "learning_rate": 1e6}
RAW = AGE | {
    "model": {"type": "mlp", "hidden": [16, 16]},
    "optimizer": SGD,
    "standardize": False,
}
CASES: dict[str, tuple[Table, dict[str, Any]]] = {
    "a line": (scores(), LINE | {"optimizer": SGD, "epochs": 300}),
    "a line of all rows": (scores(), LINE | {"optimizer": SGD, "batch_size": "full"}),
    "a line of raw numbers": (scores(), LINE | {"optimizer": SGD, "standardize": False}),
    "a net": (scores(), NET | {"optimizer": SGD}),
    "a net of raw numbers": (
        passengers(),
        AGE | NET | AGE | {"optimizer": SGD, "standardize": False},
    ),
    "momentum": (passengers(), AGE | {"optimizer": SGD | {"momentum": 0.9}}),
    "the sum of squares": (passengers(), AGE | {"loss": "sse", "optimizer": SGD}),
    "a net with tanh": (
        passengers(),
        AGE | {"model": {"type": "mlp", "hidden": [8], "activation": "tanh"}, "optimizer": SGD},
    ),
    "adam": (scores(), NET | {"optimizer": {"type": "adam", "learning_rate": 1e6}}),
    "rmsprop": (scores(), NET | {"optimizer": {"type": "rmsprop", "learning_rate": 1e6}}),
    "classes": (passengers(), SURVIVAL | {"optimizer": SGD, "epochs": 50}),
    "weights": (passengers(), AGE | {"weight": "Boarded", "optimizer": SGD}),
}


@pytest.mark.parametrize("name", CASES)
def test_one_more_run_suffices_after_a_rate_of_a_million(tmp_path: Path, name: str) -> None:
    table, config = CASES[name]
    error = learn(table, tmp_path, config).error
    if error is None:
        return
    rate = float(re.findall(r"learning_rate of ([0-9.e+-]+[0-9])", error.detail)[0])
    optimizer = config["optimizer"] | {"learning_rate": rate}
    again = learn(table, tmp_path, config | {"optimizer": optimizer})
    assert again.error is None, (error.detail, again.error)
    losses = again.values("train")
    assert losses[-1] <= losses[0]


def test_a_run_without_standardised_numbers_may_have_them(tmp_path: Path) -> None:
    config = LINE | {"optimizer": SGD, "batch_size": 4}
    for standardize, expected in ((True, False), (False, True)):
        error = learn(scores(), tmp_path, config | {"standardize": standardize}).error
        assert error is not None
        assert ("standardize: true" in error.detail) is expected
