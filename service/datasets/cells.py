"""What the parser's process does for a prediction: a Parquet or Arrow file becomes JSON values.

It knows which columns the model reads, and nothing else of it.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from service.datasets.columnar import cast, check_columns, kind_of, open_arrow, open_parquet
from service.datasets.parse import check_magic
from service.datasets.rejected import Rejected, cell_error, shown
from service.datasets.sandbox import Task


def parse(task: Task) -> dict[str, Any]:
    """Return the values of each column; where the model does not read it, whether there is one.

    The options are `known`, the names of the columns that the model reads, and `max_rows`.
    Raises Rejected.
    """
    path, known = Path(task.path), frozenset(task.options["known"])
    check_magic(path, task.media_type)
    open_file = open_parquet if task.media_type.endswith("parquet") else open_arrow
    with open_file(path) as (schema, batches):
        check_columns(schema, task.max_columns)
        # Names that came as JSON may have spaces around them; all others were read without.
        names = [name if name in known else name.strip() for name in schema.names]
        _check_names(names)
        columns: dict[str, list[Any]] = {name: [] for name in names}
        rows = 0
        for batch in batches:
            rows += batch.num_rows
            if rows > task.options["max_rows"]:
                raise _too_many(task.options["max_rows"])
            for field, name, column in zip(schema, names, batch.columns, strict=True):
                columns[name] += _values(field, column) if name in known else _marks(column)
    return {"columns": columns}


def _check_names(names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        detail = f"The file has more than one column {shown(twice[0])}."
        raise cell_error("duplicate_column", detail, column=twice[0])


def _too_many(most: int) -> Rejected:
    return Rejected(
        "too_large",
        f"A prediction request may have {most} rows (DESCENT_MAX_PREDICT_ROWS): send the rest in"
        " further requests.",
        status=413,
    )


def _values(field: "pa.Field[Any]", column: Any) -> list[Any]:  # noqa: ANN401  an array of any type
    kind = kind_of(field)
    values = cast(column, kind, field.name)
    if kind == "number":
        return [_number(value) for value in values.to_pylist()]
    if kind == "datetime":
        return [_moment(value) for value in values.cast(pa.string()).to_pylist()]
    found: list[Any] = values.to_pylist()
    return found


def _marks(column: Any) -> list[bool | None]:  # noqa: ANN401  an array of any type
    return [True if is_there else None for is_there in column.is_valid().to_pylist()]


def _number(value: float | None) -> float | str | None:
    """Return what JSON can say: NaN is a missing value, an infinity its name."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def _moment(text: str | None) -> str | None:
    """Return a time as the parser of datasets writes it, without the zeros at its end."""
    return text.rstrip("0").rstrip(".") if text and "." in text else text
