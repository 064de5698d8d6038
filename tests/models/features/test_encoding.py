import json
import math

import numpy as np
import pytest

from descent.spec import ColumnType
from models.data import Table
from models.errors import DataInvalid
from models.features.encoding import Features
from models.features.inputs import Choice
from models.features.targets import ClassTarget
from models.features.widths import MAX_CATEGORIES, estimate_width
from tests.models.samples import PASSENGER_FEATURES, Cells, make_table, passengers


def fit(table: Table, *features: str, standardize: bool = True, target: str = "y") -> Features:
    return Features.fit(
        table,
        np.arange(table.rows),
        features=list(features),
        targets=[target],
        task="regression",
        standardize=standardize,
    )


def one_column(column_type: ColumnType, cells: Cells) -> Table:
    return make_table({"x": column_type, "y": "number"}, x=cells, y=list(range(len(cells))))


def test_numbers_are_standardised_with_the_training_rows_only() -> None:
    table = one_column("number", [1, 2, 3, 1000])
    features = Features.fit(
        table, np.arange(3), features=["x"], targets=["y"], task="regression", standardize=True
    )
    encoded = features.encode(table)[:, 0]
    assert encoded[:3].mean() == pytest.approx(0, abs=1e-6)
    assert encoded[3] == pytest.approx((1000 - 2) / np.std([1, 2, 3]))


def test_without_standardize_numbers_stay_as_they_are() -> None:
    table = one_column("number", [10, 20, 40])
    features = fit(table, "x", standardize=False)
    assert features.encode(table)[:, 0].tolist() == [10, 20, 40]
    assert features.encode_targets(table, np.arange(3))[:, 0].tolist() == [0, 1, 2]


def test_a_missing_number_becomes_the_mean_and_is_indicated() -> None:
    table = one_column("number", [1, None, 3])
    assert fit(table, "x", standardize=False).encode(table).tolist() == [[1, 0], [2, 1], [3, 0]]


def test_no_indicator_where_training_had_no_gap() -> None:
    features = fit(one_column("number", [1, 2, 3]), "x", standardize=False)
    gap = one_column("number", [None, 5, 6])
    assert features.encode(gap)[0].tolist() == [2]


def test_a_category_is_one_hot_by_frequency() -> None:
    table = one_column("category", ["b", "b", "a"])
    features = fit(table, "x")
    assert features.labels == ["x=b", "x=a"]
    assert features.encode(table).tolist() == [[1, 0], [1, 0], [0, 1]]


def test_an_unknown_category_is_like_a_missing_one_of_training() -> None:
    features = fit(one_column("category", ["a", None, "b"]), "x")
    unknown = one_column("category", ["zebra", None, "a"])
    assert features.encode(unknown).tolist() == [[0, 0, 1], [0, 0, 1], [1, 0, 0]]


def test_an_unknown_category_is_the_average_row_where_training_had_no_gap() -> None:
    features = fit(one_column("category", ["a", "b", "b", "b"]), "x")
    unknown = one_column("category", ["zebra", None])
    assert features.encode(unknown).tolist() == [[0.75, 0.25], [0.75, 0.25]]


def test_only_the_most_frequent_categories_have_a_column() -> None:
    cells = [f"c{n:04}" for n in range(400)] * 2 + ["c0399"]
    features = fit(one_column("category", cells), "x")
    assert features.width == MAX_CATEGORIES + 1
    assert features.labels[0] == "x=c0399"
    assert [warning["code"] for warning in features.warnings()] == ["many_categories"]


def test_a_datetime_keeps_only_the_phases_that_move() -> None:
    midnights = one_column("datetime", [day * 86400.0 for day in range(30)])
    labels = fit(midnights, "x").labels
    assert "x.weekday.sin" in labels
    assert "x.hour.sin" not in labels


def test_a_datetime_is_encoded_near_one_even_if_numbers_are_not_scaled() -> None:
    table = one_column("datetime", [1.6e9 + 3600 * n for n in range(50)])
    assert np.abs(fit(table, "x", standardize=False).encode(table)).max() < 3


def test_a_constant_column_is_warned_of_and_encodes_to_zero() -> None:
    table = one_column("number", [5, 5, 5])
    features = fit(table, "x")
    assert features.encode(table).tolist() == [[0], [0], [0]]
    assert features.warnings()[0]["code"] == "constant"


def test_a_column_without_any_value_still_encodes() -> None:
    table = one_column("number", [None, None])
    assert np.isfinite(fit(table, "x").encode(table)).all()


@pytest.mark.parametrize("column_type", ["number", "datetime"])
@pytest.mark.parametrize(
    "cells", [[1, 2, 4], [5, 5], [None, None], [0, 0], [-1.7e308, 1.7e308, 3], [1e-300, 2e-300]]
)
def test_no_training_row_is_clipped_and_every_number_is_encoded_finitely(
    column_type: ColumnType, cells: Cells
) -> None:
    table = one_column(column_type, cells)
    column = fit(table, "x", standardize=False).inputs[0]
    assert not isinstance(column, Choice)
    values = table.numbers("x")
    assert np.array_equal(np.clip(values, column.least, column.most), values, equal_nan=True)
    assert math.isfinite(column.least)
    assert math.isfinite(column.most)


def test_numbers_are_standardised_in_float64_and_rounded_once() -> None:
    table = one_column("number", [1e9, 1e9 + 1, 1e9 + 3])
    values = table.numbers("x")
    exact = (values - values.mean()) / values.std()
    assert fit(table, "x").encode(table)[:, 0].tolist() == exact.astype(np.float32).tolist()


def test_a_number_far_beyond_the_training_rows_is_clipped() -> None:
    features = fit(one_column("number", [0, 1]), "x", standardize=False)
    far = one_column("number", [1e300, -1e300, 2e5])
    assert features.encode(far)[:, 0].tolist() == [np.float32(1e6 + 1), -1e6, 2e5]


def test_features_survive_json_bit_for_bit() -> None:
    table = passengers()
    features = Features.fit(
        table,
        np.arange(80),
        features=PASSENGER_FEATURES,
        targets=["Survived"],
        task="binary",
        standardize=True,
    )
    again = Features.from_json(json.loads(json.dumps(features.to_json())))
    assert again == features
    assert again.encode(table).tobytes() == features.encode(table).tobytes()


def test_the_signature_tells_what_a_client_needs() -> None:
    table = passengers()
    features = fit(table, "Age", "Port", "Alone", target="Class")
    inputs = {column["name"]: column for column in features.signature()["inputs"]}
    assert inputs["Age"]["required"] is False
    assert inputs["Age"]["missing"] == 2
    assert inputs["Alone"]["required"] is True
    assert {entry["value"] for entry in inputs["Port"]["categories"]} == {"C", "Q", "S"}
    assert sum(entry["count"] for entry in inputs["Port"]["categories"]) == table.rows - 1
    assert inputs["Age"]["clip"]["min"] < inputs["Age"]["min"] < inputs["Age"]["mean"]
    assert "clip" not in inputs["Alone"]
    stand_ins = {name: column["missing_as"] for name, column in inputs.items()}
    assert stand_ins == {"Age": "mean", "Port": "other", "Alone": "mean"}
    assert features.signature()["outputs"][0] | {"min": 1, "max": 3} == {
        "name": "Class",
        "type": "number",
        "classes": None,
        "min": 1.0,
        "max": 3.0,
    }


def test_classes_keep_their_own_type() -> None:
    table = make_table({"x": "number", "y": "integer"}, x=[1, 2, 3], y=[3, 1, 3])
    features = Features.fit(
        table, np.arange(3), features=["x"], targets=["y"], task="binary", standardize=True
    )
    assert isinstance(features.target, ClassTarget)
    assert features.target.classes == (1, 3)
    assert type(features.target.classes[0]) is int
    assert features.encode_targets(table, np.arange(3)).tolist() == [1, 0, 1]


def test_boolean_classes_are_called_false_and_true() -> None:
    table = make_table({"x": "number", "y": "boolean"}, x=[1, 2], y=[True, False])
    features = Features.fit(
        table, np.arange(2), features=["x"], targets=["y"], task="binary", standardize=True
    )
    assert isinstance(features.target, ClassTarget)
    assert (features.target.classes, features.target.labels) == ((False, True), ["false", "true"])


def test_a_constant_target_is_an_error() -> None:
    table = make_table({"x": "number", "y": "number"}, x=[1, 2], y=[4, 4])
    with pytest.raises(DataInvalid, match="'y' is 4 in every training row"):
        fit(table, "x")


def test_binary_needs_two_classes() -> None:
    table = make_table({"x": "number", "y": "category"}, x=[1, 2, 3], y=["a", "b", "c"])
    with pytest.raises(DataInvalid, match="needs two classes in 'y', found 3"):
        Features.fit(
            table, np.arange(3), features=["x"], targets=["y"], task="binary", standardize=True
        )


def test_text_is_no_target_of_a_regression() -> None:
    table = make_table({"x": "number", "y": "category"}, x=[1, 2], y=["a", "b"])
    with pytest.raises(DataInvalid, match="holds category"):
        fit(table, "x")


def test_the_estimated_width_is_the_real_one() -> None:
    table = passengers()
    features = fit(table, *PASSENGER_FEATURES[:-1], target="Class")
    profile = [
        {"type": "category", "distinct": 2, "missing": 0},
        {"type": "number", "distinct": 90, "missing": 2},
        {"type": "category", "distinct": 3, "missing": 1},
        {"type": "boolean", "distinct": 2, "missing": 0},
        {"type": "datetime", "distinct": 120, "missing": 0},
    ]
    assert estimate_width(profile) == features.width
