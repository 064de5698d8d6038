"""Predictions as a client reads them: strict JSON, or CSV that a spreadsheet does not execute."""

import csv
import io
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

import orjson
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from descent.codes import make_warning
from models.features.encoding import Features
from models.features.targets import ClassTarget
from models.predict.explain import RowContributions, explain, most_rows
from models.predict.predictor import Prediction, Predictor
from models.predict.values import Problems, ValueProblem
from service.datasets.messages import ARROW, CSV, JSON, NDJSON, PARQUET
from service.errors import Invalid
from service.predict import bodies
from service.predict.bodies import Answer

#: Warnings that a row tells in full: a short request of empty rows for a wide model would
#: otherwise get an answer ten thousand times its size.
MAX_WARNINGS = 20
#: First characters by which a spreadsheet takes a text for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def answers_of(
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


def _inert(cell: object) -> object:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, str) and cell.startswith(FORMULA):
        return f"'{cell}"
    return cell


MAX_TOLD = 50  # different problems of one answer; each names all its rows

Problem = TypeVar("Problem", bound=Hashable)
Remarks = list[dict[str, Any]]


def remarks(
    problems: Sequence[Sequence[Problem]], tell: Callable[[Problem], dict[str, Any]]
) -> Remarks:
    """Return the problems of all rows, given by row, in the order in which they appear."""
    rows: dict[Problem, list[int]] = {}
    for row, found in enumerate(problems):
        for problem in found:
            rows.setdefault(problem, []).append(row)
    told: Remarks = [
        tell(problem) | {"rows": places} for problem, places in islice(rows.items(), MAX_TOLD)
    ]
    if len(rows) > MAX_TOLD:
        rest = len(rows) - MAX_TOLD
        told.append(make_warning("more", f"{rest} further problems are not shown"))
    return told


class ExplanationTooLarge(Invalid):
    """So many rows cannot be explained in one request."""

    code = "explanation_too_large"


def check(predictor: Predictor, rows: int) -> None:
    """Raise ExplanationTooLarge where it would take too long."""
    most = most_rows(predictor.features, predictor.stack)
    if rows > most:
        raise ExplanationTooLarge(
            f"At most {most} rows of this model can be explained in a request, got {rows}: "
            "send them in parts, or without explain=true."
        )


def add(found: Sequence[Answer], predictor: Predictor, rows: bodies.Rows) -> None:
    """Give each answer that has a value its `explanation`."""
    features = predictor.features
    # What is odd about the values is told with the predictions.
    table = predictor.read(rows.columns, rows.count, Problems(), from_text=rows.is_text)
    explained = explain(features, predictor.stack, table)
    several = not isinstance(features.target, ClassTarget) and features.outputs > 1
    for answer, by_goal in zip(found, explained, strict=True):
        if answer["value"] is None or not all(map(_is_finite, by_goal.values())):
            continue
        told: dict[str, Any] = {goal: each.to_json() for goal, each in by_goal.items()}
        answer["explanation"] = told if several else next(iter(told.values()))


def _is_finite(explanation: RowContributions) -> bool:
    return math.isfinite(explanation.base + sum(explanation.contributions.values()))


__all__ = ["ARROW", "ARROW_STREAM", "CSV", "JSON", "NDJSON", "PARQUET", "wanted", "written"]

ARROW_STREAM = "application/vnd.apache.arrow.stream"
#: what an answer may be; the first one where a client does not mind
WRITTEN = (JSON, CSV, NDJSON, PARQUET, ARROW, ARROW_STREAM)
_TYPES = {"number": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_()}
_PROBLEM = {"column": pa.string(), "code": pa.string(), "detail": pa.string()}
PROBLEM = pa.struct(list(_PROBLEM.items()))


def wanted(accept: str) -> str:
    """Return the format that an `Accept` header asks for: JSON where it may be, or says nothing."""
    if JSON in accept:
        return JSON
    named = [(accept.find(kind), kind) for kind in WRITTEN if kind in accept]
    return min(named)[1] if named else JSON


def written(
    media_type: str, named: Mapping[str, Any], rows: Sequence[Answer], features: Features
) -> bytes:
    """Write one prediction for each row, in order."""
    if media_type == JSON:
        return to_json(named, rows)
    if media_type == NDJSON:
        return b"".join(orjson.dumps(row) + b"\n" for row in rows)
    explained = dict(_explained(rows, features))
    if media_type == CSV:
        target = features.target
        if isinstance(target, ClassTarget):
            return to_csv(rows, [target.name], target.labels, explained)
        return to_csv(rows, target.names, [], explained)
    return _to_file(media_type, _table(named, rows, features, explained))


def _table(
    named: Mapping[str, Any],
    rows: Sequence[Answer],
    features: Features,
    explained: Mapping[str, list[float | None]],
) -> pa.Table:
    """Return the columns that a CSV has, with their types; its metadata names the model."""
    columns = dict(_values(rows, features))
    columns |= {name: pa.array(values, pa.float64()) for name, values in explained.items()}
    warnings = [row.get("warnings", ()) for row in rows]
    columns["warnings"] = pa.array(warnings, pa.list_(PROBLEM))
    columns["error"] = pa.array([row.get("error") for row in rows], PROBLEM)
    table = pa.table(columns)
    return table.replace_schema_metadata(
        {name: str(value) for name, value in named.items() if value is not None}
    )


def _values(rows: Sequence[Answer], features: Features) -> Iterator[tuple[str, "pa.Array[Any]"]]:
    target = features.target
    values = [row["value"] for row in rows]
    if isinstance(target, ClassTarget):
        yield "value", pa.array(values, _TYPES.get(target.type, pa.string()))
        shares = [row.get("probabilities") or {} for row in rows]
        for label in target.labels:
            yield (
                f"probability.{label}",
                pa.array([share.get(label) for share in shares], pa.float64()),
            )
    elif len(target.names) == 1:
        yield "value", pa.array(values, pa.float64())
    else:
        for name in target.names:
            each = [None if value is None else value[name] for value in values]
            yield f"value.{name}", pa.array(each, pa.float64())


def _explained(
    rows: Sequence[Answer], features: Features
) -> Iterator[tuple[str, list[float | None]]]:
    """Give a column for each base and each contribution, where they were asked for."""
    found = [row.get("explanation") or {} for row in rows]
    if not any(found):
        return
    target = features.target
    several = not isinstance(target, ClassTarget) and len(target.names) > 1
    for goal in target.output_names if several else [""]:
        part = [row.get(goal, {}) for row in found] if several else found
        dot = f".{goal}" if several else ""
        yield f"base{dot}", [each.get("base") for each in part]
        shares = [each.get("contributions", {}) for each in part]
        for column in features.inputs:
            name = column.name
            yield f"contribution{dot}.{name}", [share.get(name) for share in shares]


def _to_file(media_type: str, table: pa.Table) -> bytes:
    out = io.BytesIO()
    if media_type == PARQUET:
        pq.write_table(table, out)
        return out.getvalue()
    begin = pyarrow.ipc.new_stream if media_type == ARROW_STREAM else pyarrow.ipc.new_file
    with begin(out, table.schema) as file:
        file.write_table(table)
    return out.getvalue()
