"""Reads the bodies that MLflow's clients send to a scoring server, and writes MLflow's answers.

Parses the formats but does not check values. A table without column names has the model's columns,
in the order of its signature. A number in a column of datetimes is in milliseconds since 1970 in
`dataframe_split` and `dataframe_records`, as `DataFrame.to_json` writes it. In `instances` and
`inputs` it is in seconds, or in milliseconds if that many seconds would lie beyond the year 5138.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeGuard

import orjson

from descent.codes import make_warning
from service.errors import invalid_at
from service.http.validation import refuse_constant, strict_json
from service.predict import bodies
from service.predict.answers import remarks
from service.predict.bodies import Answer

#: the field for inference parameters of MLflow's models, which Descent ignores
PARAMS = "params"
PARAMS_IGNORED = make_warning("params_ignored", "the model takes no params: they are ignored")

#: seconds since 1970 beyond which a number is in milliseconds: the year 5138
FAR_SECONDS = 1e11

Names: TypeAlias = Sequence[str]
Reader: TypeAlias = Callable[[object, Names, int], bodies.Rows]


def parse(content: bytes) -> object:
    """Return a JSON document. NaN is a missing value in MLflow's bodies and an error in others."""
    literals: dict[str, None] = {}

    def constant(name: str) -> float | None:
        literals.setdefault(name)
        return None if name == "NaN" else float(name)

    document = strict_json(content, constant=constant)
    if literals and not is_body(document):
        refuse_constant(next(iter(literals)))
    return document


def is_body(document: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(document, dict) and not TABLES.keys().isdisjoint(document)


def read(
    document: Mapping[str, Any], inputs: Names, max_rows: int, moments: Collection[str] = ()
) -> bodies.Rows:
    """Return the rows of a body.

    `inputs` are the model's columns in order, and `moments` those of them with datetimes.
    """
    tables = [name for name in document if name in TABLES]
    if len(tables) > 1:
        raise invalid_at(
            f"/{tables[1]}",
            "unknown_field",
            f"Send one of {bodies.quoted(list(TABLES))}, got {bodies.quoted(tables)}.",
        )
    for name in document:
        if name not in TABLES and name != PARAMS:
            detail = f"{name[:60]} is not a known field: remove it or check its spelling."
            raise invalid_at(bodies.pointer(name), "unknown_field", detail)
    rows = TABLES[tables[0]](document[tables[0]], inputs, max_rows)
    is_pandas = tables[0].startswith("dataframe_")
    columns = dict(rows.columns)
    for name in columns.keys() & set(moments):
        columns[name] = [_seconds(value, is_pandas=is_pandas) for value in columns[name]]
    rows = replace(rows, columns=columns)
    notes = (PARAMS_IGNORED,) if document.get(PARAMS) else ()
    return replace(rows, is_mlflow=True, notes=notes)


def _seconds(value: object, *, is_pandas: bool) -> object:
    """Return a number of milliseconds since 1970 in seconds, other values as they are."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    is_milliseconds = is_pandas or abs(value) >= FAR_SECONDS
    return value / 1000 if is_milliseconds and abs(value) < 1e300 else value


def to_json(named: Mapping[str, Any], rows: Sequence[Answer], notes: Sequence[Any] = ()) -> bytes:
    """Return an answer with plain values; with several targets, one object per row as in MLflow.

    `warnings` and `errors` stand beside the values: the reason for a null is in `errors`.
    """
    warnings = remarks([list(map(_hashable, row.get("warnings", ()))) for row in rows], dict)
    errors = remarks([[_hashable(row["error"])] if "error" in row else [] for row in rows], dict)
    problems = {"warnings": [*notes, *warnings], "errors": errors}
    answer = {**named, "predictions": [row["value"] for row in rows]}
    return orjson.dumps(answer | {name: found for name, found in problems.items() if found})


def _hashable(problem: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(problem.items())


# ---- tables --------------------------------------------------------------------------------------


def _split(table: object, inputs: Names, max_rows: int) -> bodies.Rows:
    at = "/dataframe_split"
    if not isinstance(table, dict) or not {"data"} <= table.keys() <= {"columns", "index", "data"}:
        detail = 'Send `{"columns": ["…"], "data": [["…"]]}` as dataframe_split.'
        raise invalid_at(at, "invalid_value", detail)
    names = table.get("columns")
    if names is not None:
        _check_names(names, f"{at}/columns")
    return _from_lists(table["data"], inputs if names is None else names, max_rows, f"{at}/data")


def _records(table: object, _inputs: Names, max_rows: int) -> bodies.Rows:
    return bodies.from_rows(table, max_rows, "dataframe_records")


def _instances(table: object, inputs: Names, max_rows: int) -> bodies.Rows:
    return _from_items(table, inputs, max_rows, "instances")


def _inputs(table: object, inputs: Names, max_rows: int) -> bodies.Rows:
    if not isinstance(table, dict):
        return _from_items(table, inputs, max_rows, "inputs")
    if table and not any(isinstance(values, list) for values in table.values()):
        return bodies.from_rows([table], max_rows, "inputs")
    columns = {name: _flat(values) for name, values in table.items()}
    return bodies.from_columns(columns, max_rows, "inputs")


#: field of a body → the reader of its table
TABLES: Mapping[str, Reader] = {
    "dataframe_split": _split,
    "dataframe_records": _records,
    "instances": _instances,
    "inputs": _inputs,
}


def _from_items(items: object, inputs: Names, max_rows: int, field: str) -> bodies.Rows:
    """Read a list of rows: objects, lists in the order of the signature, or the only column."""
    kinds = {type(item) for item in items} if isinstance(items, list) else {dict}
    if not isinstance(items, list) or dict in kinds:
        return bodies.from_rows(items, max_rows, field)
    if list in kinds:
        return _from_lists(items, inputs, max_rows, f"/{field}")
    if items and len(inputs) != 1:
        detail = (
            f"A row of {field} should have a value for each of {bodies.quoted(inputs)}, got "
            f"{str(items[0])[:60]!r}."
        )
        raise invalid_at(f"/{field}/0", "wrong_shape", detail)
    return bodies.from_columns(dict.fromkeys(inputs, items), max_rows, field)


def _from_lists(rows: object, names: Names, max_rows: int, at: str) -> bodies.Rows:
    """Read rows that are lists of cells. A row of the wrong length gets an error."""
    if not isinstance(rows, list):
        raise invalid_at(at, "wrong_type", f"{at} should be a list of rows.")
    bodies.check_count(len(rows), max_rows)
    bodies.check_cells(len(rows), len(names))
    unreadable: dict[int, dict[str, str]] = {}
    whole: list[list[Any]] = []
    for place, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != len(names):
            unreadable[place] = _unreadable(row, names)
        whole.append([None] * len(names) if place in unreadable else row)
    cells = list(zip(*whole, strict=True)) if whole else [()] * len(names)
    columns = {name: _flat(list(column)) for name, column in zip(names, cells, strict=True)}
    found = bodies.from_columns(columns, max_rows, at.strip("/"))
    return replace(found, count=len(rows), unreadable=unreadable)


def _unreadable(row: object, names: Names) -> dict[str, str]:
    if not isinstance(row, list):
        detail = f"The row must be a list of cells, got {str(row)[:60]!r}."
        return bodies.row_error("malformed_row", detail)
    detail = f"The row has {len(row)} cells for {len(names)} columns."
    return bodies.row_error("ragged_row", detail)


def _flat(values: object) -> object:
    """Return the scalars of a tensor with one column, such as [[1], [2]]."""
    if isinstance(values, list) and any(type(value) is list for value in values):
        return [
            value[0] if isinstance(value, list) and len(value) == 1 else value for value in values
        ]
    return values


def _check_names(names: object, at: str) -> None:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        detail = f"{at} should be a list of texts, as the model's columns are."
        raise invalid_at(at, "wrong_type", detail)
    if len(set(names)) < len(names):
        raise invalid_at(at, "duplicate_column", f"{at} names a column twice.")
