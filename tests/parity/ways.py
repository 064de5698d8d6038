"""The ways into the service: each sends a table in its format or protocol and reads the answer.

A way is a function of the client and the table. It returns one answer for each row, or None if it
cannot express this table. To add a way, add it to `WAYS`.
"""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from models.features.inputs import Choice, Moment
from models.features.targets import ClassTarget
from service.datasets.messages import ARROW, CSV, JSON, NDJSON, PARQUET
from tests.parity.tables import ABSENT, Cell, Sample

TSV = "text/tab-separated-values"


@dataclass(frozen=True)
class Answer:
    """The answer to a row, in the same form for every way."""

    #: values by target, or probabilities by class; None if the row has no answer
    numbers: dict[str, float] | None
    value: Any
    error: str | None
    #: columns and codes of the warnings; None if the way does not send them
    codes: frozenset[tuple[str, str]] | None
    #: whether the format has only text, so that a number read from text causes no warning
    reads_text: bool = False


class Refused(Exception):
    """The service did not answer 200."""


Way = Callable[[httpx.Client, Sample], list[Answer] | None]


# ---- JSON ----------------------------------------------------------------------------------------


def json_rows(client: httpx.Client, sample: Sample) -> list[Answer]:
    """`{"rows": [{…}, …]}`, where a missing key is a missing value."""
    return _native(client, sample, json.dumps({"rows": _rows(sample)}).encode(), JSON)


def json_columns(client: httpx.Client, sample: Sample) -> list[Answer] | None:
    """`{"columns": {"name": […]}}`."""
    columns = {
        name: [None if cell.value is ABSENT else cell.value for cell in cells]
        for name, cells in sample.columns.items()
    }
    if not columns and sample.rows:
        return None
    return _native(client, sample, json.dumps({"columns": columns}).encode(), JSON)


def ndjson(client: httpx.Client, sample: Sample) -> list[Answer]:
    """One object a line, in and out."""
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(sample)) or "\n"
    answer = _post(client, sample, lines.encode(), NDJSON, NDJSON)
    return [_answer(sample, json.loads(line)) for line in answer.content.splitlines()]


def _rows(sample: Sample) -> list[dict[str, Any]]:
    return [
        {
            name: cells[row].value
            for name, cells in sample.columns.items()
            if cells[row].value is not ABSENT
        }
        for row in range(sample.rows)
    ]


# ---- text ----------------------------------------------------------------------------------------


def comma_separated(client: httpx.Client, sample: Sample) -> list[Answer] | None:
    return _text(client, sample, CSV, ",")


def tab_separated(client: httpx.Client, sample: Sample) -> list[Answer] | None:
    return _text(client, sample, TSV, "\t")


def _text(
    client: httpx.Client, sample: Sample, media_type: str, delimiter: str
) -> list[Answer] | None:
    names = list(sample.columns)
    if any(cell.text is None for cells in sample.columns.values() for cell in cells):
        return None
    if not sample.known.features.inputs or not _knows_one(sample):
        return None
    out = io.StringIO()
    write = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerow
    write(names)
    for row in range(sample.rows):
        write([sample.columns[name][row].text for name in names])
    return _native(client, sample, out.getvalue().encode(), media_type, reads_text=True)


def _knows_one(sample: Sample) -> bool:
    # The service refuses a header without any of the model's columns as data.
    return any(column.name in sample.columns for column in sample.known.features.inputs)


# ---- files ---------------------------------------------------------------------------------------


def parquet(client: httpx.Client, sample: Sample) -> list[Answer] | None:
    """A Parquet file in, a Parquet file out."""
    table = _arrow_table(sample)
    if table is None:
        return None
    body = io.BytesIO()
    pq.write_table(table, body)
    answer = _post(client, sample, body.getvalue(), PARQUET, PARQUET)
    return _from_table(sample, pq.read_table(io.BytesIO(answer.content)))


def arrow(client: httpx.Client, sample: Sample) -> list[Answer] | None:
    """An Arrow file in, an Arrow file out."""
    table = _arrow_table(sample)
    if table is None:
        return None
    body = io.BytesIO()
    with pyarrow.ipc.new_file(body, table.schema) as file:
        file.write_table(table)
    answer = _post(client, sample, body.getvalue(), ARROW, ARROW)
    return _from_table(sample, pyarrow.ipc.open_file(io.BytesIO(answer.content)).read_all())


def _arrow_table(sample: Sample) -> "pa.Table | None":
    columns: dict[str, Any] = {}
    for name, cells in sample.columns.items():
        column = _arrow_column(cells)
        if column is None:
            return None
        columns[name] = column
    return pa.table(columns) if columns else None


def _arrow_column(cells: list[Cell]) -> "pa.Array[Any] | None":
    values = [None if cell.value is ABSENT else cell.value for cell in cells]
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    if kinds == {int} and all(value is None or abs(value) < 2**63 for value in values):
        return pa.array(values, pa.int64())
    if kinds and kinds <= {int, float}:
        if any(value is not None and abs(value) > 1e308 for value in values if type(value) is int):
            return None
        floats = [None if value is None else float(value) for value in values]
        if any(value != number for value, number in zip(values, floats, strict=True)):
            return None
        return pa.array(floats, pa.float64())
    if kinds <= {str}:
        return pa.array(values, pa.string())
    return None


def _from_table(sample: Sample, table: "pa.Table") -> list[Answer]:
    names = [name for name in table.column_names if name not in {"warnings", "error"}]
    answers = []
    for row in table.to_pylist():
        told: dict[str, Any] = {"warnings": row["warnings"], "value": row.get("value")}
        if row["error"]:
            told["error"] = row["error"]
        shares = {
            name.removeprefix("probability."): row[name]
            for name in names
            if name.startswith("probability.")
        }
        if shares and row["value"] is not None:
            told["probabilities"] = shares
        each = {
            name.removeprefix("value."): row[name] for name in names if name.startswith("value.")
        }
        if each and None not in each.values():
            told["value"] = each
        answers.append(_answer(sample, told))
    return answers


# ---- the Open Inference Protocol -----------------------------------------------------------------


def oip_json(client: httpx.Client, sample: Sample) -> list[Answer] | None:
    """One tensor for each column, with the datatypes of the protocol."""
    tensors = _tensors(sample)
    if tensors is None or sample.on_problem != "warn":
        return None
    url = f"/v2/models/{sample.known.name}/infer"
    answer = client.post(url, content=json.dumps({"inputs": tensors}).encode(), headers=TYPE)
    if answer.status_code != 200:
        raise Refused(answer.text[:500])
    return _from_tensors(sample, answer.json())


TYPE = {"Content-Type": JSON}


def _tensors(sample: Sample) -> list[dict[str, Any]] | None:
    inputs = {column.name: column for column in sample.known.features.inputs}
    found = []
    if not sample.columns:
        return None
    for name, cells in sample.columns.items():
        column = inputs.get(name)
        if column is None:
            return None
        values = [None if cell.value is ABSENT else cell.value for cell in cells]
        kinds = {type(value) for value in values if value is not None}
        wanted: set[type]
        is_spelled = column.reading is not None and kinds == {str}
        if isinstance(column, Choice | Moment) or is_spelled:
            datatype, wanted = "BYTES", {str}
        elif column.type == "boolean":
            datatype, wanted = "BOOL", {bool}
        else:
            datatype, wanted = "FP64", {int, float}
        if not kinds <= wanted or any(
            type(value) is int and abs(value) > 1e308 for value in values
        ):
            return None
        found.append({"name": name, "datatype": datatype, "shape": [len(values)], "data": values})
    return found


def _from_tensors(sample: Sample, answer: dict[str, Any]) -> list[Answer] | None:
    outputs = {tensor["name"]: tensor["data"] for tensor in answer["outputs"]}
    told = {
        name: json.loads(answer.get("parameters", {}).get(name, "[]"))
        for name in ("warnings", "errors")
    }
    codes: list[set[tuple[str, str]]] = [set() for _ in range(sample.rows)]
    is_whole = all("rows" in problem for problem in told["warnings"])  # else it is cut
    for problem in told["warnings"] if is_whole else ():
        for row in problem["rows"]:
            codes[row].add((problem["column"], problem["code"]))
    errors = {row: problem["code"] for problem in told["errors"] for row in problem["rows"]}
    target = sample.known.features.target
    answers = []
    for row in range(sample.rows):
        if isinstance(target, ClassTarget):
            width = len(target.labels)
            shares = outputs["probabilities"][row * width : (row + 1) * width]
            value = outputs[target.name][row]
            numbers = dict(zip(target.labels, shares, strict=True)) if value is not None else None
        else:
            each = {name: outputs[name][row] for name in target.names}
            numbers = None if None in each.values() else each
            value = None if numbers is None else each
            value = value[target.names[0]] if value and len(each) == 1 else value
        known = frozenset(codes[row]) if is_whole else None
        answers.append(Answer(numbers, value, errors.get(row), known))
    return answers


# ---- shared --------------------------------------------------------------------------------------


def _native(
    client: httpx.Client, sample: Sample, body: bytes, media_type: str, *, reads_text: bool = False
) -> list[Answer]:
    answer = _post(client, sample, body, media_type, JSON)
    rows = answer.json()["predictions"]
    return [_answer(sample, row, reads_text=reads_text) for row in rows]


def _post(
    client: httpx.Client, sample: Sample, body: bytes, media_type: str, accept: str
) -> httpx.Response:
    answer = client.post(
        f"/api/v1/models/{sample.known.name}/predict",
        params={} if sample.on_problem == "warn" else {"on_problem": sample.on_problem},
        content=body,
        headers={"Content-Type": media_type, "Accept": accept},
    )
    if answer.status_code != 200:
        raise Refused(answer.text[:500])
    return answer


def _answer(sample: Sample, row: dict[str, Any], *, reads_text: bool = False) -> Answer:
    value = row["value"]
    numbers: dict[str, float] | None = None
    target = sample.known.features.target
    if value is not None:
        if isinstance(target, ClassTarget):
            numbers = row["probabilities"]
        else:
            numbers = value if isinstance(value, dict) else {target.names[0]: value}
    problems = [*(row.get("warnings") or ()), *([row["error"]] if "error" in row else [])]
    codes = {(problem.get("column") or "", problem["code"]) for problem in problems}
    codes.discard(("", "non_finite"))
    error = row["error"]["code"] if "error" in row else None
    return Answer(numbers, value, error, frozenset(codes), reads_text)


WAYS: dict[str, Way] = {
    "JSON rows": json_rows,
    "JSON columns": json_columns,
    "NDJSON": ndjson,
    "CSV": comma_separated,
    "TSV": tab_separated,
    "Parquet": parquet,
    "Arrow": arrow,
    "OIP JSON": oip_json,
}
