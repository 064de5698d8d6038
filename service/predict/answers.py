"""Answers to prediction requests: rows, problems of rows, explanations, formats.

- Formats: strict JSON, NDJSON, CSV without cells that a spreadsheet would execute, Parquet, Arrow.
- Remarks: the problems of all rows as one list; each problem lists its rows.
- Explanations: the contribution of each column to each prediction.
- Intervals and sets: columns of `predict.intervals`.
"""

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
from service.predict import bodies, intervals
from service.predict.bodies import Answer

#: warnings that are listed per row: a short request of empty rows for a wide model would otherwise
#: get an answer ten thousand times its size
MAX_WARNINGS = 20
MAX_REMARKS = 50  # different problems that are listed per answer; each lists all its rows
#: first characters that make a spreadsheet treat a text as a formula
FORMULA = ("=", "+", "-", "@", "\t", "\r")

ARROW_STREAM = "application/vnd.apache.arrow.stream"
#: media types of answers; the first one is the default
WRITTEN = (JSON, CSV, NDJSON, PARQUET, ARROW, ARROW_STREAM)
#: type of a target with classes → Arrow type
_TYPES = {"number": pa.float64(), "integer": pa.int64(), "boolean": pa.bool_()}
_PROBLEM = {"column": pa.string(), "code": pa.string(), "detail": pa.string()}
#: Arrow type of a warning or an error
PROBLEM = pa.struct(list(_PROBLEM.items()))

Problem = TypeVar("Problem", bound=Hashable)
Remarks = list[dict[str, Any]]


# ---- rows ---------------------------------------------------------------------------------------


def answers_of(
    predictions: Sequence[Prediction], unreadable: Mapping[int, dict[str, str]]
) -> list[Answer]:
    """Return one object for each row, in order; rows that could not be read have an error."""
    # Rows share their problems, so convert each problem once.
    written: dict[int, dict[str, str]] = {}
    found = [_answer(prediction, written) for prediction in predictions]
    for row, error in unreadable.items():
        found[row] = {"value": None, "error": error}
    return found


def _answer(prediction: Prediction, written: dict[int, dict[str, str]]) -> Answer:
    row: Answer = {"value": prediction.value}
    if prediction.probabilities is not None:
        row["probabilities"] = prediction.probabilities
    if prediction.warnings:
        row["warnings"] = _warnings(prediction.warnings, written)
    if prediction.error:
        row["error"] = prediction.error.to_json()
    return row


def _warnings(
    problems: Sequence[ValueProblem], written: dict[int, dict[str, str]]
) -> list[dict[str, str]]:
    found = []
    for problem in problems[:MAX_WARNINGS]:
        warning = written.get(id(problem))
        if warning is None:
            warning = written[id(problem)] = problem.to_json()
        found.append(warning)
    if len(problems) > MAX_WARNINGS:
        rest = len(problems) - MAX_WARNINGS
        found.append(make_warning("more", f"{rest} further warnings are not shown"))
    return found


# ---- formats ------------------------------------------------------------------------------------


def wanted(accept: str) -> str:
    """Return the media type of the answer: the one with the largest weight in an `Accept` header.

    Of several with this weight it is a named one, and of these JSON or else the first; JSON if the
    header allows none.
    """
    weights = dict(_weighed(accept))
    best, found = 0.0, JSON
    for kind in [JSON, *(name for name in weights if name in WRITTEN and name != JSON)]:
        if weights.get(kind, 0.0) > best:
            best, found = weights[kind], kind
    general = max(weights.get(each, 0.0) for each in ("*/*", "application/*"))
    return JSON if general > best and JSON not in weights else found


def _weighed(accept: str) -> Iterator[tuple[str, float]]:
    """Yield the media ranges of an `Accept` header and their weights, from 0 to 1."""
    for part in accept.split(","):
        name, *parameters = (each.strip().lower() for each in part.split(";"))
        weight = next((each[2:] for each in parameters if each.startswith("q=")), "1")
        try:
            yield name, min(max(float(weight), 0.0), 1.0)
        except ValueError:
            yield name, 1.0


def written(
    media_type: str, named: Mapping[str, Any], rows: Sequence[Answer], features: Features
) -> bytes:
    """Return the body of the answer in the given format, one prediction per row."""
    if media_type == JSON:
        return to_json(named, rows)
    if media_type == NDJSON:
        return b"".join(orjson.dumps(row) + b"\n" for row in rows)
    target, sets = features.target, intervals.sets_of(rows)
    further = dict(intervals.bounds_of(rows, target)) | dict(_explained(rows, features))
    if media_type == CSV:
        texts: dict[str, Sequence[Any]] = (
            {} if sets is None else {"set": [*map(intervals.as_text, sets)]}
        )
        if isinstance(target, ClassTarget):
            return to_csv(rows, [target.name], target.labels, texts | further)
        return to_csv(rows, target.names, [], further)
    return _to_file(media_type, _table(named, rows, features, further))


def to_json(named: Mapping[str, Any], rows: Iterable[Answer]) -> bytes:
    return orjson.dumps({**named, "predictions": rows})


def to_csv(
    rows: Sequence[Answer],
    targets: Sequence[str],
    labels: Sequence[str],
    further: Mapping[str, Sequence[Any]] | None = None,
) -> bytes:
    """Write one line per row: its values, probabilities, further columns, warnings and error.

    A single target has the column `value`; several targets have one column `value.<target>` each.
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


def _inert(cell: object) -> object:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, str) and cell.startswith(FORMULA):
        return f"'{cell}"
    return cell


def _sentence(problem: Mapping[str, str]) -> str:
    column = problem.get("column")
    where = f"{column}: " if column else ""
    return f"{where}{problem['code']}: {problem['detail']}"


def _table(
    named: Mapping[str, Any],
    rows: Sequence[Answer],
    features: Features,
    further: Mapping[str, list[float | None]],
) -> pa.Table:
    """Return the columns that the CSV has, with their types; the metadata names the model."""
    columns = dict(_values(rows, features))
    columns |= {name: pa.array(values, pa.float64()) for name, values in further.items()}
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
        if (sets := intervals.sets_of(rows)) is not None:
            listed: Any = pa.list_(_TYPES.get(target.type, pa.string()))
            yield "set", pa.array(list[Any](sets), listed)
    elif len(target.names) == 1:
        yield "value", pa.array(values, pa.float64())
    else:
        for name in target.names:
            each = [None if value is None else value[name] for value in values]
            yield f"value.{name}", pa.array(each, pa.float64())


def _explained(
    rows: Sequence[Answer], features: Features
) -> Iterator[tuple[str, list[float | None]]]:
    """Yield a column for each base and each contribution, if the answers have explanations."""
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


# ---- explanations -------------------------------------------------------------------------------


class ExplanationTooLarge(Invalid):
    """The request has too many rows for explanations."""

    code = "explanation_too_large"


def check(predictor: Predictor, rows: int) -> None:
    """Raise ExplanationTooLarge if explanations of so many rows would take too long."""
    most = most_rows(predictor.model)
    if rows > most:
        raise ExplanationTooLarge(
            f"At most {most} rows of this model can be explained in a request, got {rows}: "
            "send them in parts, or without explain=true."
        )


def add(found: Sequence[Answer], predictor: Predictor, rows: bodies.Rows) -> None:
    """Add the `explanation` to each answer that has a value."""
    features = predictor.features
    # The answers list the problems of values already, so these are discarded.
    table = predictor.read(rows.columns, rows.count, Problems(), from_text=rows.is_text)
    explained = explain(predictor.model, table)
    several = not isinstance(features.target, ClassTarget) and features.outputs > 1
    for answer, by_goal in zip(found, explained, strict=True):
        if answer["value"] is None or not all(map(_is_finite, by_goal.values())):
            continue
        written: dict[str, Any] = {goal: each.to_json() for goal, each in by_goal.items()}
        answer["explanation"] = written if several else next(iter(written.values()))


def _is_finite(explanation: RowContributions) -> bool:
    return math.isfinite(explanation.base + sum(explanation.contributions.values()))


# ---- remarks: problems of all rows --------------------------------------------------------------


def remarks(
    problems: Sequence[Sequence[Problem]], to_json: Callable[[Problem], dict[str, Any]]
) -> Remarks:
    """Return each different problem with its rows, in order of appearance.

    `problems` holds the problems of each row.
    """
    rows: dict[Problem, list[int]] = {}
    for row, found in enumerate(problems):
        for problem in found:
            rows.setdefault(problem, []).append(row)
    listed: Remarks = [
        to_json(problem) | {"rows": places} for problem, places in islice(rows.items(), MAX_REMARKS)
    ]
    if len(rows) > MAX_REMARKS:
        rest = len(rows) - MAX_REMARKS
        listed.append(make_warning("more", f"{rest} further problems are not shown"))
    return listed
