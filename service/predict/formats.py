"""The formats that predictions are answered in, and which of them a client wants."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from models.features.encoding import Features
from models.features.targets import ClassTarget
from service.datasets.upload import ARROW, CSV, JSON, NDJSON, PARQUET
from service.predict.answers import Answer, to_csv, to_json

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
