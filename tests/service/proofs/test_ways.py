"""Each way of predicting agrees with training, and the verification finds a way that does not."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import checkpoint
from models.data import Floats
from models.export.card import TOLERANCE, differences, golden
from service.proofs import ways
from service.proofs.ways import WAYS, Answered, Sample, Subject, Way
from service.runs.plan import MAX_PARAMETERS
from tests.service.proofs import proved
from tests.service.proofs.proved import CLASSES, ROWS, Proved, houses

#: the largest difference in 8 or 24 held-out rows
SMALL = 1e-6
FURTHER: dict[str, dict[str, Any]] = {
    "two targets": {"target": ["price", "cost"]},
    "as they are": {"standardize": False, "optimizer": {"type": "adam", "learning_rate": 1e-3}},
    "one boolean": {"features": ["is new"]},
    "words alone": {"features": ["größe, port"]},
    "a line": {"model": {"type": "linear"}, "features": ["size", "count"]},
    "classes of an integer": CLASSES | {"target": "count"},
    "two classes": {"target": "is new", "task": "binary", "loss": "cross_entropy"},
}


def skewed(way: Way, change: Any) -> Way:
    """Return a way with changed numbers."""

    def ask(subject: Subject, sample: Sample) -> Answered | None:
        answered = way(subject, sample)
        assert answered is not None
        return dataclasses.replace(answered, numbers=change(answered.numbers.copy()))

    return ask


def off(numbers: Floats) -> Floats:
    numbers[2, 0] += 1e-3 * max(1.0, abs(numbers[2, 0]))
    return numbers


def lost(numbers: Floats) -> Floats:
    numbers[2] = np.nan
    return numbers


def test_the_largest_net_that_may_be_trained_fits_the_bundle_of_its_proof() -> None:
    rest = 64 * 2**20  # bytes, far above the size of all members but the parameters
    assert 4 * MAX_PARAMETERS + rest <= ways.BUNDLE_BYTES


# ---- ways that agree -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_a_way_answers_what_training_computes(
    request: pytest.FixtureRequest, kind: str, name: str
) -> None:
    model: Proved = request.getfixturevalue(kind)
    details, failure = model.prove({name: WAYS[name]})
    assert failure is None
    if name == "json_row":  # it does not handle datetimes
        assert details["ways"] == {}
        return
    assert details["ways"][name] < SMALL
    assert details["left_out"].get(name, 0) < details["rows"] / 2


def test_rows_that_nothing_is_to_be_said_about_are_asked_one_at_a_time_too(tmp_path: Path) -> None:
    model = proved.train(tmp_path, features=["size", "größe, port"])
    details, failure = model.prove({"json_row": WAYS["json_row"]})
    missing = sum(None in row for row in zip(*model.sample().columns.values(), strict=True))
    assert failure is None
    assert missing <= details["left_out"]["json_row"] < missing + 4  # some are out of range
    assert details["ways"]["json_row"] < SMALL
    _details, failure = model.prove({"json_row": skewed(WAYS["json_row"], lambda found: found + 1)})
    assert failure is not None


@pytest.mark.parametrize("recipe", FURTHER)
def test_all_ways_answer_what_training_computes(tmp_path: Path, recipe: str) -> None:
    asked = {"features": ["size", "größe, port"]} | FURTHER[recipe]
    columns = houses()
    for name in {"count", "is new"} - set(asked["features"]):
        columns[name] = [
            int(bool(cell)) if name == "count" else bool(cell) for cell in columns[name]
        ]
    details, failure = proved.train(tmp_path, columns, **asked).prove()
    assert failure is None
    assert details["ways"].keys() | {"json_row"} == WAYS.keys()
    assert details["largest"] == max(details["ways"].values()) < SMALL


def test_what_training_has_no_number_for_has_none_by_any_way(tmp_path: Path) -> None:
    model = proved.train(tmp_path, features=["size"], model={"type": "linear"})
    tensors, document = checkpoint.read(model.job.model)
    steep = {name: np.full_like(value, 3e38 * (value.ndim > 1)) for name, value in tensors.items()}
    path = tmp_path / "steep.safetensors"
    checkpoint.write(path, steep, document)
    sample = model.sample(model=path)
    assert np.isnan(sample.expected).any()
    details, failure = model.prove(model=path)
    assert failure is None
    assert details["largest"] < SMALL


# ---- ways that differ ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in WAYS if name != "json_row"])
def test_a_way_that_is_off_by_a_thousandth_is_found(numbers: Proved, name: str) -> None:
    row = numbers.sample().named(2)
    details, failure = numbers.prove(WAYS | {name: skewed(WAYS[name], off)})
    assert failure is not None
    right, wrong = numbers.sample().expected[2, 0], off(numbers.sample().expected.copy())[2, 0]
    assert failure.startswith(f"Path {name}: the answer for {row} is {wrong:.5g}"[:-1])
    assert f"but training computes {right:.6g}"[:-1] in failure
    assert details["largest"] == details["ways"][name] > TOLERANCE
    assert max(rest for way, rest in details["ways"].items() if way != name) < SMALL


def test_a_share_that_is_off_is_found(classes: Proved) -> None:
    _details, failure = classes.prove({"csv": skewed(WAYS["csv"], off)})
    assert failure is not None
    assert failure.startswith(f"Path csv: the answer for {classes.sample().named(2)} is ")


def test_a_row_without_an_answer_is_found(numbers: Proved) -> None:
    details, failure = numbers.prove({"arrow": skewed(WAYS["arrow"], lost)})
    assert failure is not None
    assert "is missing, but training computes" in failure
    assert (details["ways"], details["largest"]) == ({"arrow": None}, None)


def test_an_answer_to_a_row_that_has_none_is_found(numbers: Proved) -> None:
    sample = dataclasses.replace(numbers.sample(), expected=lost(numbers.sample().expected))
    answered = ways.rows_of_json(_subject(numbers), sample)
    apart = differences(numbers.predictor.features, sample.expected, answered.numbers)
    assert np.flatnonzero(apart > TOLERANCE).tolist() == [2]
    assert np.isinf(apart[2])


def test_a_row_that_is_lost_is_found(numbers: Proved) -> None:
    _details, failure = numbers.prove({"csv": skewed(WAYS["csv"], lambda found: found[1:])})
    assert failure == "Path csv: the answer has the shape (23, 1), not (24, 1)."


def test_another_class_than_the_likeliest_is_found(classes: Proved) -> None:
    def ask(subject: Subject, sample: Sample) -> Answered:
        answered = ways.rows_of_json(subject, sample)
        assert answered.classes is not None
        return dataclasses.replace(answered, classes=["yes"] * sample.rows)

    _details, failure = classes.prove({"json": ask})
    assert failure is not None
    assert "is 'yes' (" in failure


def test_a_class_of_another_type_is_found(classes: Proved) -> None:
    def ask(subject: Subject, sample: Sample) -> Answered:
        answered = ways.rows_of_json(subject, sample)
        assert answered.classes is not None
        return dataclasses.replace(answered, classes=[*answered.classes[:-1], True])

    details, failure = classes.prove({"json": ask})
    assert (details["ways"], failure is None) == ({"json": None}, False)


def test_a_way_that_cannot_be_asked_is_found_and_the_others_are_asked(numbers: Proved) -> None:
    def ask(_subject: Subject, _sample: Sample) -> Answered:
        raise ValueError("no\nway")

    details, failure = numbers.prove({"json": ask, "csv": WAYS["csv"]})
    assert failure == "Path json failed: ValueError: no way."
    assert details["ways"]["json"] is None
    assert details["ways"]["csv"] < SMALL


@pytest.mark.parametrize("error", [OSError("full"), MemoryError()])
def test_what_is_the_fault_of_the_machine_is_no_verdict(numbers: Proved, error: Exception) -> None:
    def ask(_subject: Subject, _sample: Sample) -> Answered:
        raise error

    with pytest.raises(type(error)):
        numbers.prove({"json": ask})


def test_preprocessing_that_is_not_that_of_the_golden_rows_is_found(numbers: Proved) -> None:
    """An imported model is compared with the answers in its bundle."""
    _tensors, document = checkpoint.read(numbers.job.model)
    told = golden(numbers.predictor)
    own = numbers.with_document(document | {"golden": told})
    details, failure = numbers.prove(table=None, **own)
    assert (failure, details["source"], details["rows"]) == (None, "golden", len(told["rows"]))
    first, *others = document["features"]["inputs"]
    inputs = [first | {"mean": first["mean"] + 1, "center": first["center"] + 1}, *others]
    altered = document | {"golden": told, "features": document["features"] | {"inputs": inputs}}
    _details, failure = numbers.prove(table=None, **numbers.with_document(altered))
    assert failure is not None
    assert failure.startswith("Path json: the answer for golden row ")
    assert "Path onnx: the answer for golden row " in failure


# ---- values that a way cannot express ------------------------------------------------------------


def left_out(folder: Path, words: Sequence[str | None]) -> dict[str, int]:
    """Verify a model of these words; return the number of rows that each way leaves out."""
    cells = [words[place % len(words)] for place in range(ROWS)]
    model = proved.train(folder, houses(**{"größe, port": cells}), features=["größe, port"])
    details, failure = model.prove()
    assert failure is None
    assert max(details["ways"].values()) < SMALL
    found: dict[str, int] = details["left_out"]
    return {name: rows for name, rows in found.items() if name != "json_row"}


def test_an_empty_category_leaves_no_word_for_a_missing_one(tmp_path: Path) -> None:
    assert left_out(tmp_path, ["", "a", None]).keys() == {"csv", "oip_binary", "onnx"}


def test_categories_that_are_spelled_like_missing_values_are_said(tmp_path: Path) -> None:
    assert left_out(tmp_path, ["NA", " ", " null ", "?"]) == {}


def test_what_text_formats_refuse_is_left_out_of_them(tmp_path: Path) -> None:
    assert left_out(tmp_path, ["a\0b", "c"]).keys() == {"json", "csv", "oip"}


def test_a_text_that_is_too_long_for_csv_is_left_out_of_it(tmp_path: Path) -> None:
    assert left_out(tmp_path, [*"abcdefg", "b" * 2_200_000]).keys() == {"csv"}


def test_a_missing_boolean_is_left_out_where_it_is_one_bit(numbers: Proved) -> None:
    missing = numbers.sample().columns["is new"].count(None)
    assert numbers.prove()[0]["left_out"] == {"oip_binary": missing}
    assert missing > 0


def test_an_integer_that_a_number_cannot_hold_is_left_to_json(tmp_path: Path) -> None:
    cells = [(-1) ** place * (2**53 + place) for place in range(ROWS)]
    model = proved.train(tmp_path, houses(count=cells), features=["count"])
    details, failure = model.prove()
    assert failure is None
    assert details["left_out"] == dict.fromkeys(["csv", "arrow", "oip", "oip_binary"], 24)


def _subject(model: Proved) -> Subject:
    return Subject(model.predictor, model.job.model, proved.SAYS, model.job.scratch)
