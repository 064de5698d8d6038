"""Predictions as a client reads them: strict JSON, or CSV that a spreadsheet does not execute."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from descent.codes import make_warning
from models.predict.predictor import Prediction
from models.predict.values import ValueProblem

#: Warnings that a row tells in full: a short request of empty rows for a wide model would
#: otherwise get an answer ten thousand times its size.
MAX_WARNINGS = 20
#: First characters by which a spreadsheet takes a text for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")

Answer = dict[str, Any]


def answers(
    predictions: Sequence[Prediction], unreadable: Mapping[int, dict[str, str]]
) -> list[Answer]:
    """Return one object for each row, in order; rows that could not be read have an error."""
    # Rows share their problems, so each is written out once.
    told: dict[int, dict[str, str]] = {}
    found = [_answer(prediction, told) for prediction in predictions]
    for row, error in unreadable.items():
        found[row] = {"value": None, "error": error}
    return found


def to_json(named: Mapping[str, Any], rows: Iterable[Answer]) -> bytes:
    return orjson.dumps({**named, "predictions": rows})


def to_csv(
    rows: Sequence[Answer],
    targets: Sequence[str],
    labels: Sequence[str],
    further: Mapping[str, Sequence[Any]] | None = None,
) -> bytes:
    """Write a line for each row: its values, probabilities, further columns, warnings and error.

    One target has the column `value`, several have one `value.<target>` each.
    """
    further = further or {}
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\r\n").writerow
    several = len(targets) > 1
    values = [f"value.{name}" for name in targets] if several else ["value"]
    shares_of = [f"probability.{label}" for label in labels]
    write(map(_inert, [*values, *shares_of, *further, "warnings", "error"]))
    for place, row in enumerate(rows):
        value, shares = row["value"], row.get("probabilities") or {}
        cells = [(value or {}).get(name) for name in targets] if several else [value]
        cells += [shares.get(label) for label in labels]
        cells += [column[place] for column in further.values()]
        warnings = "; ".join(map(_sentence, row.get("warnings", ())))
        error = _sentence(row["error"]) if "error" in row else None
        write(map(_inert, [*cells, warnings, error]))
    return out.getvalue().encode()


def _answer(prediction: Prediction, told: dict[int, dict[str, str]]) -> Answer:
    row: Answer = {"value": prediction.value}
    if prediction.probabilities is not None:
        row["probabilities"] = prediction.probabilities
    if prediction.warnings:
        row["warnings"] = _warnings(prediction.warnings, told)
    if prediction.error:
        row["error"] = prediction.error.to_json()
    return row


def _warnings(
    problems: Sequence[ValueProblem], told: dict[int, dict[str, str]]
) -> list[dict[str, str]]:
    found = []
    for problem in problems[:MAX_WARNINGS]:
        warning = told.get(id(problem))
        if warning is None:
            warning = told[id(problem)] = problem.to_json()
        found.append(warning)
    if len(problems) > MAX_WARNINGS:
        rest = len(problems) - MAX_WARNINGS
        found.append(make_warning("more", f"{rest} further warnings are not shown"))
    return found


def _sentence(problem: Mapping[str, str]) -> str:
    column = problem.get("column")
    where = f"{column}: " if column else ""
    return f"{where}{problem['code']}: {problem['detail']}"


def _inert(cell: Any) -> Any:  # noqa: ANN401  a value of the target's own type
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, str) and cell.startswith(FORMULA):
        return f"'{cell}"
    return cell
