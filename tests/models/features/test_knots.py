"""The knots of piecewise-linear codes."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import checkpoint
from models.checkpoint import BEST, NET
from models.features.knots import knots_of
from tests.models.samples import SURVIVAL, learn, passengers

BINS = 4
NAMES = ("0.place", "0.knots")


def bins_of(values: list[float]) -> list[tuple[float, float]]:
    """Return the bins of a column that have a width."""
    (knots,) = knots_of(np.array(values)[:, None], BINS).tolist()
    return [(a, b) for a, b in itertools.pairwise(knots) if a < b]


def test_bins_end_at_quantiles() -> None:
    assert bins_of([0, 1, 2, 4, 8, 16, 32, 64, 128]) == [(0, 2), (2, 8), (8, 32), (32, 128)]


def test_repeated_values_make_fewer_bins_and_the_outer_ones_stay_first_and_last() -> None:
    (knots,) = knots_of(np.array([[0.0], [0], [0], [0], [1], [2]]), BINS).tolist()
    assert knots[0] == 0
    assert knots[-2:] == [0.75, 2]
    assert bins_of([0, 0, 0, 0, 1, 2]) == [(0, 0.75), (0.75, 2)]
    assert bins_of([3.0, 3.0]) == []


def test_no_bin_is_narrower_than_a_thousandth_of_the_deviation() -> None:
    ((low, high),) = bins_of([0, 1e-5, 2e-5, 3e-5, 0.5])
    assert (low, high) == (0, 0.5)
    assert len(bins_of([0, 1e-2, 2e-2, 3e-2, 0.5])) == BINS


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lbfgs"])
def test_training_leaves_the_knots_as_they_were(tmp_path: Path, optimizer: str) -> None:
    decay: dict[str, Any] = {} if optimizer == "lbfgs" else {"weight_decay": 0.1}
    config = SURVIVAL | {
        "model": {"type": "mlp", "hidden": [4], "embedding": {"bins": BINS}},
        "optimizer": {"type": optimizer, "learning_rate": 0.05} | decay,
        "epochs": 3,
    }
    found = []
    for epochs in (1, 3):
        scratch = tmp_path / str(epochs)
        saved = learn(passengers(), scratch, config | {"epochs": epochs}).saved[-1]
        tensors, _ = checkpoint.read(saved.path)
        found += [tensors[f"{part}{name}"] for part in (NET, BEST) for name in NAMES]
    place, knots = found[:2]
    for each in range(0, len(found), 2):
        np.testing.assert_array_equal(found[each], place)
        np.testing.assert_array_equal(found[each + 1], knots)
    assert (np.diff(knots) >= 0).all()
    assert np.diff(knots).max() > 0
