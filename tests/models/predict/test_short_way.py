"""The fast paths for a few rows: exactly the same answers as the general path, or none."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.data import Table, take
from models.predict.predictor import Predictor
from models.predict.values import Problems, RawValue
from tests.models.samples import LINE, SURVIVAL, learn, passengers, scores

PLAIN_VALUES: dict[str, list[RawValue]] = {
    "Sex": ["female", "male"],
    "Age": [30, 30.5, 70],
    "Port": ["S", "C", "Q"],
    "Alone": [True, False],
    "Class": [1, 2, 3, 2.0],
}
ODD_VALUES: list[RawValue] = [None, "x", "2", "", True, 0, 1e300, 10**400, [], {}, math.nan, -5]
FLAWED_VALUES: dict[str, list[RawValue]] = {
    name: [*values, None] for name, values in PLAIN_VALUES.items()
} | {
    "Age": [30.5, None, -5, 71.5, 1e4, 1e300, -(2**63)],
    "Class": [1, None, 0, 4, 10**9],
    "Survived": [True, None],
    "unknown": [1, "x", None],
    "Fare": [[], None],
}


@pytest.fixture(scope="module")
def short_way(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    config = SURVIVAL | {"features": list(PLAIN_VALUES)}
    outcome = learn(passengers(), tmp_path_factory.mktemp("short"), config)
    return Predictor.load(outcome.saved[-1].path)


@pytest.fixture(scope="module")
def flawed(short_way: Predictor, tmp_path_factory: pytest.TempPathFactory) -> list[Predictor]:
    """Return a model whose training rows have gaps, and one whose rows have none."""
    table = passengers()
    whole = np.flatnonzero(~np.isnan(table.numbers("Age")) & (table.categories("Port").codes >= 0))
    config = SURVIVAL | {"features": list(PLAIN_VALUES), "epochs": 3}
    table = Table(
        table.types, {name: take(some, whole) for name, some in table.columns.items()}, len(whole)
    )
    outcome = learn(table, tmp_path_factory.mktemp("whole"), config)
    return [short_way, Predictor.load(outcome.saved[-1].path)]


def test_plain_rows_take_a_short_way_to_the_very_same_numbers(short_way: Predictor) -> None:
    random = np.random.default_rng(3)
    columns = {
        name: [values[place] for place in random.integers(len(values), size=200)]
        for name, values in PLAIN_VALUES.items()
    }
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    encoded = short_way.features.encode(short_way.read(columns, 200, Problems()))
    plain = short_way.plain.encode(rows)
    assert plain is not None
    assert plain.tobytes() == encoded.tobytes()


@given(
    st.lists(
        st.fixed_dictionaries(
            {}, optional={name: st.sampled_from(some) for name, some in FLAWED_VALUES.items()}
        ),
        min_size=1,
        max_size=5,
    )
)
def test_usual_flaws_take_a_short_way_to_the_same_answer(
    flawed: list[Predictor], rows: list[dict[str, RawValue]]
) -> None:
    columns = {name: [row.get(name) for row in rows] for row in rows for name in row}
    for predictor in flawed:
        long = [each.to_json() for each in predictor.predict(columns, len(rows))]
        short = predictor.flawed_predictions(rows)
        assert short is not None
        assert [each.to_json() for each in short] == long


@pytest.mark.parametrize("odd", [odd for odd in ODD_VALUES if odd not in (None, 0, 1e300, -5)])
def test_other_flaws_do_not_take_the_short_way(short_way: Predictor, odd: RawValue) -> None:
    assert short_way.flawed_predictions([{"Age": None}]) is not None
    for name in PLAIN_VALUES.keys() - ({"Alone"} if odd is True else ()):
        assert short_way.flawed_predictions([{name: odd}]) is None, name
    assert short_way.flawed_predictions([{}, 7]) is None


@pytest.mark.parametrize("odd", ODD_VALUES, ids=repr)
def test_an_odd_value_does_not_take_the_short_way(short_way: Predictor, odd: RawValue) -> None:
    for name in PLAIN_VALUES:
        row = {column: values[0] for column, values in PLAIN_VALUES.items()} | {name: odd}
        if (name, odd) == ("Alone", True):
            continue
        assert short_way.plain.encode([row]) is None, name


def test_what_is_far_within_the_range_does_not_take_the_short_way(tmp_path: Path) -> None:
    outcome = learn(scores(), tmp_path, LINE | {"standardize": False, "epochs": 3})
    raw = Predictor.load(outcome.saved[-1].path)
    assert raw.plain.encode([{"Quiz": 15.0}]) is not None
    assert raw.plain.encode([{"Quiz": 24.0}]) is None
