"""Predictions as text in the answers."""

from models.predict.predictor import Prediction
from models.predict.values import ValueProblem
from service.predict.answers import MAX_WARNINGS, answers_of, to_csv, to_json

GAP = ValueProblem("Age", "missing", "no value")


def test_a_plain_prediction_is_its_value_alone() -> None:
    assert answers_of([Prediction(1.5)], {}) == [{"value": 1.5}]


def test_an_unreadable_row_has_its_error_and_no_value() -> None:
    error = {"code": "ragged_row", "detail": "…"}
    found = answers_of([Prediction(1.5), Prediction(2.5, warnings=[GAP])], {1: error})
    assert found == [{"value": 1.5}, {"value": None, "error": error}]


def test_the_warnings_of_a_row_are_bounded() -> None:
    (row,) = answers_of([Prediction(1.0, warnings=[GAP] * (MAX_WARNINGS + 5))], {})
    assert len(row["warnings"]) == MAX_WARNINGS + 1
    assert row["warnings"][-1] == {"code": "more", "detail": "5 further warnings are not shown"}


def test_json_names_what_predicted() -> None:
    assert to_json({"model": "m", "version": 3}, [{"value": 1.0}]) == (
        b'{"model":"m","version":3,"predictions":[{"value":1.0}]}'
    )


def test_csv_holds_values_probabilities_and_problems() -> None:
    rows = answers_of(
        [Prediction(True, {"false": 0.25, "true": 0.75}), Prediction(None, None, [GAP], GAP)], {}
    )
    assert to_csv(rows, ["y"], ["false", "true"]).decode().splitlines() == [
        "value,probability.false,probability.true,warnings,error",
        "true,0.25,0.75,,",
        ",,,Age: missing: no value,Age: missing: no value",
    ]


def test_csv_of_several_targets_has_a_column_for_each() -> None:
    rows = answers_of([Prediction({"A": 1.0, "B": -2.0}), Prediction(None, error=GAP)], {})
    lines = to_csv(rows, ["A", "B"], []).decode().splitlines()
    assert lines[:2] == ["value.A,value.B,warnings,error", "1.0,-2.0,,"]
    assert lines[2].startswith(",,,")


def test_no_text_of_a_csv_is_taken_for_a_formula() -> None:
    rows = answers_of([Prediction("=1+1", {"=1+1": 1.0}), Prediction("@x")], {})
    lines = to_csv(rows, ["y"], ["=1+1"]).decode().splitlines()
    assert [line.split(",")[0] for line in lines[1:]] == ["'=1+1", "'@x"]
