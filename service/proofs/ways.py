"""The prediction paths of an export verification, and the sample of rows that they predict.

- `read_sample` draws held-out rows of the dataset, else training rows, else golden rows.
- `WAYS` lists the paths. Each one uses the functions that answer clients, from the bytes of a
  request to the bytes of an answer. A path leaves out the rows that its format cannot represent.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
import orjson
import pyarrow as pa
import pyarrow.ipc
from numpy.typing import NDArray

from descent.spec import RunConfig
from models.data import Categories, Floats, Integers, Table, generator, read_rows, read_table
from models.export import bundle, onnx_graph, standalone
from models.export.card import golden_rows
from models.features.inputs import Choice, Input, Moment
from models.features.targets import ClassTarget
from models.model import save
from models.predict.predictor import Prediction, Predictor
from models.predict.reference import Reference
from models.predict.values import Problems, RawValue
from models.training.scores import columns_that_split, split_table
from service.datasets import parse
from service.datasets.dialect import MAX_CELL
from service.datasets.messages import ARROW, CSV, JSON
from service.datasets.originals import read_texts, with_markers
from service.datasets.sandbox import Task
from service.predict import answers, bodies
from service.predict.answers import answers_of
from service.proofs.messages import ProofJob, StoredTable
from service.protocols import mlflow, tensors

MOST_ROWS, LEAST_ROWS = 1000, 20  # rows of a sample
MOST_CELLS = 200_000  # cells of a sample
MOST_WORK = 2 * 10**9  # multiplications of one path: a second or two
#: second word of the generator's key for the draw of rows; see `models.data`
STREAM = 2**63 + 2
#: the model in the answers; the comparison does not use it
NAMED = {"model": "proved", "version": 1}
MANY = 10**9  # rows or columns, instead of the limits of requests, which do not matter here
BUNDLE_BYTES = 2**40  # instead of the limit of imports; no net that can be trained has more
ONNX_PARAMETERS = 2**28  # parameters of 4 bytes each; ONNX cannot hold larger files

Source = Literal["held_out", "training", "golden"]


# ---- types --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sample:
    """A sample of rows, as a client would send them and as training reads them."""

    source: Source
    rows: int
    columns: dict[str, list[RawValue]]
    table: Table
    #: (rows, outputs); NaN for a row without an answer
    expected: Floats
    #: positions of the rows in the dataset, from 0; None for golden rows
    places: Integers | None = None
    #: the text of the cells in the file that was uploaded, for each column of the table; None if
    #: there is no such file
    spelled: dict[str, list[str]] | None = None

    def named(self, row: int) -> str:
        """Return the name of a row in messages."""
        if self.places is None:
            return f"golden row {row + 1}"
        return f"row {self.places[row] + 1} of the dataset"


@dataclass(frozen=True)
class Subject:
    """A model in the forms that the paths need, and a folder for their files."""

    predictor: Predictor
    #: the checkpoint
    file: Path
    #: the member training.json of its bundle
    training: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True)
class Answered:
    """The answers of a path."""

    #: (rows, outputs); NaN for a row without an answer
    numbers: Floats
    #: the predicted classes, if the model has classes and the path returns them
    classes: Sequence[Any] | None = None
    #: positions of the rows that the path cannot represent
    left_out: frozenset[int] = field(default_factory=frozenset)


#: a prediction path; returns None if it can represent no row
Way = Callable[[Subject, Sample], Answered | None]
#: whether a format can represent this value of this column
CanHold = Callable[[Input, RawValue], bool]


# ---- the sample: rows of the dataset ------------------------------------------------------------


def read_sample(
    job: ProofJob,
    predictor: Predictor,
    reference: Reference,
    pulse: Callable[[], None] = lambda: None,
) -> Sample:
    """Return the rows with which a job compares the paths; calls `pulse` while it waits."""
    if job.table is None:
        return _golden(predictor, reference)
    sample = _from_table(job, job.table, predictor, reference)
    spelled = _spelling(job.table, job.scratch, predictor, sample.places, pulse)
    return replace(sample, spelled=spelled)


def _spelling(
    stored: StoredTable,
    scratch: Path,
    predictor: Predictor,
    places: Integers | None,
    pulse: Callable[[], None],
) -> dict[str, list[str]] | None:
    """Return the text of the sampled rows in the file that was uploaded."""
    table = predictor.features.table
    if stored.original is None or table is None or places is None:
        return None
    original = with_markers(stored.original, header=table.header)
    path = read_texts(original, scratch / "texts", pulse)
    if path is None:
        return None
    names = list(table.names)
    _table, cells = read_rows(path, dict.fromkeys(names, "text"), names, places)
    return {name: [text or "" for text in cells.column(name).to_pylist()] for name in names}


def _from_table(
    job: ProofJob, stored: StoredTable, predictor: Predictor, reference: Reference
) -> Sample:
    inputs = predictor.features.inputs
    config = RunConfig.model_validate(job.config)
    source, places = _places(stored, config, _most_rows(predictor))
    names = [column.name for column in inputs]
    table, cells = read_rows(stored.path, stored.types, names, places)
    return Sample(
        source=source,
        rows=len(places),
        columns={column.name: _cells(column, cells.column(column.name)) for column in inputs},
        table=table,
        expected=reference.predict(table),
        places=places,
    )


def _places(stored: StoredTable, config: RunConfig, most: int) -> tuple[Source, Integers]:
    """Return the positions of the sampled rows in order; the sample is the same each time."""
    names = columns_that_split(config)
    table = read_table(stored.path, {name: stored.types[name] for name in names}, names)
    split = split_table(config, table)
    held_out = np.concatenate([split.validation, split.test])
    rows = held_out if len(held_out) else split.train
    drawn = generator(config.seed, STREAM).permutation(rows)[:most]
    return ("held_out" if len(held_out) else "training"), np.sort(drawn)


def _most_rows(predictor: Predictor) -> int:
    affordable = min(
        MOST_CELLS // max(1, len(predictor.features.inputs)),
        MOST_WORK // max(1, predictor.model.work),
    )
    return max(LEAST_ROWS, min(MOST_ROWS, affordable))


def _cells(column: Input, values: "pa.ChunkedArray[Any]") -> list[RawValue]:
    """Return the cells as a client would send them; datetimes as text, since JSON has none."""
    if isinstance(column, Choice):
        return list(values.cast(pa.string()).to_pylist())
    if pa.types.is_timestamp(values.type):
        micros = values.cast(pa.timestamp("us")).cast(pa.int64())
        return [None if each is None else _moment(each) for each in micros.to_pylist()]
    return [_scalar(value) for value in values.to_pylist()]


def _moment(micros: int) -> RawValue:
    """Return a time as ISO 8601 text, or in seconds outside the years 1 to 9999."""
    try:
        seconds, rest = divmod(micros, 10**6)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest).isoformat()
    except (OverflowError, ValueError, OSError):
        return micros / 1e6


def _scalar(value: RawValue) -> RawValue:
    return None if isinstance(value, float) and not np.isfinite(value) else value


# ---- the sample: golden rows --------------------------------------------------------------------


def _golden(predictor: Predictor, reference: Reference) -> Sample:
    known = predictor.document.get("golden")
    rows: Sequence[Mapping[str, RawValue]]
    rows = golden_rows(predictor.features) if known is None else known["rows"]
    names = [column.name for column in predictor.features.inputs]
    columns = {name: [row.get(name) for row in rows] for name in names}
    table = predictor.read(columns, len(rows), Problems())
    expected = reference.predict(table)
    if known is not None:
        expected = numbers_of(predictor, known["predictions"])
    return Sample("golden", len(rows), columns, table, expected)


# ---- paths: text --------------------------------------------------------------------------------


def rows_of_json(subject: Subject, sample: Sample) -> Answered:
    """Predict with JSON `{"rows": [{…}, …]}`."""
    features = subject.predictor.features
    columns, left_out = _representable(features.inputs, sample, _in_json)
    content = orjson.dumps({"rows": records_of(columns)})
    rows = bodies.read(content, JSON, features, MANY, mlflow)
    return _from_json(subject, _written(JSON, subject, rows), left_out)


def a_row_at_a_time(subject: Subject, sample: Sample) -> Answered | None:
    """Predict with JSON, one row per request: the fast path of rows without problems."""
    predictor = subject.predictor
    found = np.full(sample.expected.shape, np.nan)
    left_out = set(range(sample.rows))
    for place, record in enumerate(records_of(sample.columns)):
        sent = json.loads(orjson.dumps({"rows": [record]}))["rows"]
        encoded = predictor.plain.encode(sent)
        if encoded is None:
            continue
        predictions = predictor.plain_predictions(predictor.outputs(encoded))
        if predictions is not None:
            found[place] = numbers_of(predictor, [predictions[0].to_json()])[0]
            left_out.discard(place)
    if len(left_out) == sample.rows:
        return None
    return Answered(found, left_out=frozenset(left_out))


def comma_separated(subject: Subject, sample: Sample) -> Answered:
    """Predict with a CSV and an answer as CSV."""
    features = subject.predictor.features
    columns, left_out = _representable(features.inputs, sample, _in_csv)
    out = io.StringIO()
    write = csv.writer(out, quoting=csv.QUOTE_ALL).writerow
    write(columns)
    marks = [column.reading.decimal if column.reading else "." for column in features.inputs]
    for row in zip(*columns.values(), strict=True):
        write(map(_spelled, row, marks))
    return replace(_from_csv(subject, sample, out.getvalue()), left_out=left_out)


def _from_csv(subject: Subject, sample: Sample, text: str) -> Answered:
    features = subject.predictor.features
    rows = bodies.read(text.encode(), CSV, features, MANY, mlflow)
    content = _written(CSV, subject, rows).decode()
    answered = list(csv.DictReader(io.StringIO(content, newline="")))
    target = features.target
    if isinstance(target, ClassTarget):
        names = [f"probability.{label}" for label in target.labels]
    else:
        names = ["value"] if len(target.names) == 1 else [f"value.{n}" for n in target.names]
    numbers = [[float(row[name] or "nan") for name in names] for row in answered]
    return Answered(np.array(numbers).reshape(-1, sample.expected.shape[1]))


def _spelled(value: RawValue, decimal: str) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return str(value).replace(".", decimal)
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- paths: the spelling of the file that was uploaded ------------------------------------------


def as_uploaded(subject: Subject, sample: Sample) -> Answered:
    """Predict with a CSV in the spelling of the file."""
    return _from_csv(subject, sample, _file_of(subject, sample))


def texts_of_json(subject: Subject, sample: Sample) -> Answered:
    """Predict with JSON whose values are the texts of the file."""
    features = subject.predictor.features
    texts = _texts(subject, sample)
    content = orjson.dumps({"columns": texts})
    rows = bodies.read(content, JSON, features, MANY, mlflow)
    return _from_json(subject, _written(JSON, subject, rows), frozenset())


def texts_of_tensors(subject: Subject, sample: Sample) -> Answered | None:
    """Predict with tensors of BYTES that hold the texts of the file."""
    if any(column.reading is None for column in subject.predictor.features.inputs):
        return None
    inputs = [
        {"name": name, "datatype": "BYTES", "shape": [len(values)], "data": values}
        for name, values in _texts(subject, sample).items()
    ]
    asked = tensors.parse(orjson.dumps({"inputs": inputs}), None)
    return Answered(_from_tensors(subject, json.loads(orjson.dumps(_inferred(subject, asked)))))


def script(subject: Subject, sample: Sample) -> Answered:
    """Predict with the script of the bundle and a CSV in the spelling of the file."""
    path = subject.folder / "script.zip"
    bundle.write(path, subject.file, subject.training)
    features = subject.predictor.features
    rows = standalone.read_csv(_file_of(subject, sample).encode(), features.to_json())
    answered = standalone.predict(path, rows)
    numbers = numbers_of(subject.predictor, answered)
    numbers[~np.isfinite(numbers).all(axis=1)] = np.nan
    return Answered(numbers, [row["value"] for row in answered])


def _texts(subject: Subject, sample: Sample) -> dict[str, list[str]]:
    spelled = sample.spelled or {}
    return {column.name: spelled[column.name] for column in subject.predictor.features.inputs}


def _file_of(subject: Subject, sample: Sample) -> str:
    """Return the rows as a part of the file, with the delimiter and the header that it has."""
    table = subject.predictor.features.table
    delimiter = (table and table.delimiter) or ","
    out = io.StringIO()
    write = csv.writer(out, delimiter=delimiter if delimiter.strip(" ") else ",").writerow
    spelled = sample.spelled or {}
    if table is None or table.header:
        write(spelled)
    for row in zip(*spelled.values(), strict=True):
        write(row)
    return out.getvalue()


# ---- paths: Arrow -------------------------------------------------------------------------------


def arrow(subject: Subject, sample: Sample) -> Answered:
    """Predict with an Arrow file and an answer as an Arrow file."""
    inputs = subject.predictor.features.inputs
    columns, left_out = _representable(inputs, sample, _fits)
    types = {column.name: _arrow_type(column) for column in inputs}
    table = pa.table({n: pa.array(values, types[n]) for n, values in columns.items()})
    path = subject.folder / "rows.arrow"
    with pyarrow.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)
    options = {"known": list(columns), "max_rows": MANY}
    task = Task(str(path), str(subject.folder), ARROW, options, MANY)
    rows = bodies.from_json(parse.parse_rows(task), MANY)
    content = _written(ARROW, subject, rows)
    answered = pyarrow.ipc.open_file(io.BytesIO(content)).read_all()
    names = [name for name in answered.column_names if name.startswith("probability.")]
    if not names:
        names = [name for name in answered.column_names if name.partition(".")[0] == "value"]
    numbers = [answered.column(name).to_numpy().astype(np.float64) for name in names]
    return Answered(np.column_stack(numbers), left_out=left_out)


def _arrow_type(column: Input) -> pa.DataType:
    if isinstance(column, Choice | Moment):
        return pa.string()
    return pa.bool_() if column.type == "boolean" else pa.float64()


# ---- paths: the Open Inference Protocol ---------------------------------------------------------


def tensors_of_json(subject: Subject, sample: Sample) -> Answered:
    """Predict with one tensor per column in JSON."""
    columns, left_out = _representable(subject.predictor.features.inputs, sample, _in_tensors)
    inputs = [_tensor(subject, name, len(values)) for name, values in columns.items()]
    filled = [tensor | {"data": columns[tensor["name"]]} for tensor in inputs]
    asked = tensors.parse(orjson.dumps({"inputs": filled}), None)
    found = json.loads(orjson.dumps(_inferred(subject, asked)))
    return Answered(_from_tensors(subject, found), left_out=left_out)


def tensors_of_bytes(subject: Subject, sample: Sample) -> Answered:
    """Predict with one tensor per column as raw bytes."""
    columns, left_out = _representable(subject.predictor.features.inputs, sample, _in_bytes)
    inputs, parts = [], []
    for name, values in columns.items():
        tensor = _tensor(subject, name, len(values))
        parts.append(tensors.encode(values, tensor["datatype"]))
        inputs.append(tensor | {"parameters": {tensors.SIZE: len(parts[-1])}})
    document = orjson.dumps({"inputs": inputs})
    asked = tensors.parse(b"".join([document, *parts]), str(len(document)))
    return Answered(_from_tensors(subject, _inferred(subject, asked)), left_out=left_out)


def _tensor(subject: Subject, name: str, rows: int) -> dict[str, Any]:
    column = next(each for each in subject.predictor.features.inputs if each.name == name)
    datatype = tensors.DATATYPES.get(column.type, "BYTES")
    return {"name": name, "datatype": datatype, "shape": [rows]}


def _inferred(subject: Subject, asked: tensors.TensorBody) -> list[dict[str, Any]]:
    predictor = subject.predictor
    rows = tensors.read(asked, predictor.features, MANY)
    predictions = predictor.predict(rows.columns, rows.count)
    return list(tensors.tensors_of(predictor.features, predictions))


def _from_tensors(subject: Subject, found: Sequence[Mapping[str, Any]]) -> Floats:
    features = subject.predictor.features
    target = features.target
    data = {tensor["name"]: np.array(tensor["data"], dtype=object) for tensor in found}
    if isinstance(target, ClassTarget):
        return data[tensors.shares_name(features)].astype(np.float64).reshape(-1, target.outputs)
    return np.column_stack([data[name].astype(np.float64) for name in target.names])


# ---- paths: exported files ----------------------------------------------------------------------


def onnx(subject: Subject, sample: Sample) -> Answered | None:
    """Predict with the exported graph in onnxruntime."""
    if subject.predictor.model.parameters > ONNX_PARAMETERS:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    graph = onnxruntime.InferenceSession(
        onnx_graph.build(subject.predictor.model, {}),
        options,
        providers=["CPUExecutionProvider"],
    )
    target = subject.predictor.features.target
    inputs = subject.predictor.features.inputs
    feed = {column.name: _feed(column, sample) for column in inputs}
    found = graph.run(None, feed)
    numbers = np.column_stack(found[1:] if isinstance(target, ClassTarget) else found)
    numbers[~np.isfinite(numbers).all(axis=1)] = np.nan
    classes = found[0][:, 0].tolist() if isinstance(target, ClassTarget) else None
    _columns, left_out = _representable(inputs, sample, _in_graph)
    return Answered(numbers, classes, left_out)


def _feed(column: Input, sample: Sample) -> NDArray[Any]:
    values = sample.table.columns[column.name]
    if isinstance(values, Categories):
        words = np.array([*values.values, ""], dtype=object)
        return words[values.codes][:, None]
    return values[:, None]


def sealed(subject: Subject, sample: Sample) -> Answered:
    """Predict with the model from a bundle that is written, read and loaded again."""
    path = subject.folder / "bundle.zip"
    bundle.write(path, subject.file, subject.training)
    found = bundle.read(path, BUNDLE_BYTES)
    again = subject.folder / "reloaded"
    save(found.model, again, {})
    other = Predictor.load(again)
    found.prove(other)
    predictions = other.predict(sample.columns, sample.rows)
    return _from_predictions(subject, predictions)


#: name of a path in the API → its function
WAYS: dict[str, Way] = {
    "json": rows_of_json,
    "json_row": a_row_at_a_time,
    "csv": comma_separated,
    "arrow": arrow,
    "oip": tensors_of_json,
    "oip_binary": tensors_of_bytes,
    "onnx": onnx,
    "bundle": sealed,
}
#: the same for a model whose table was uploaded as a CSV
SPELLED_WAYS: dict[str, Way] = {
    "csv_as_uploaded": as_uploaded,
    "json_as_uploaded": texts_of_json,
    "oip_as_uploaded": texts_of_tensors,
    "script_as_uploaded": script,
}


# ---- requests and answers -----------------------------------------------------------------------


def records_of(columns: Mapping[str, Sequence[RawValue]]) -> list[dict[str, RawValue]]:
    """Return the cells row by row."""
    cells = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in cells]


def numbers_of(predictor: Predictor, answers: Sequence[Mapping[str, Any]]) -> Floats:
    """Return (rows, outputs) of answers in the API's JSON; NaN for a row without an answer."""
    target = predictor.features.target
    found = np.full((len(answers), target.outputs), np.nan)
    for row, answer in enumerate(answers):
        value = answer["value"]
        if value is None:
            continue
        if isinstance(target, ClassTarget):
            found[row] = [answer["probabilities"][label] for label in target.labels]
        elif len(target.names) == 1:
            found[row] = value
        else:
            found[row] = [value[name] for name in target.names]
    return found


def _written(media_type: str, subject: Subject, rows: bodies.Rows) -> bytes:
    """Predict the rows of a request and return the body of the answer."""
    predictor = subject.predictor
    predictions = predictor.predict(rows.columns, rows.count, from_text=rows.is_text)
    found = answers_of(predictions, rows.unreadable)
    return answers.written(media_type, NAMED, found, predictor.features)


def _from_json(subject: Subject, content: bytes, left_out: frozenset[int]) -> Answered:
    rows = json.loads(content)["predictions"]
    classes = [row["value"] for row in rows]
    return Answered(numbers_of(subject.predictor, rows), classes, left_out)


def _from_predictions(subject: Subject, predictions: Sequence[Prediction]) -> Answered:
    rows = [prediction.to_json() for prediction in predictions]
    return Answered(numbers_of(subject.predictor, rows), [row["value"] for row in rows])


# ---- cells that a format can represent ----------------------------------------------------------


def _representable(
    inputs: Sequence[Input], sample: Sample, can_hold: CanHold
) -> tuple[dict[str, list[RawValue]], frozenset[int]]:
    """Return the columns for a format, and the positions of the rows that it cannot represent.

    Cells that the format cannot hold become missing; their rows are left out of the comparison.
    """
    columns: dict[str, list[RawValue]] = {}
    left_out: set[int] = set()
    for column in inputs:
        cells = sample.columns[column.name]
        held = [can_hold(column, value) for value in cells]
        left_out |= {place for place, is_held in enumerate(held) if not is_held}
        pairs = zip(cells, held, strict=True)
        columns[column.name] = [value if is_held else None for value, is_held in pairs]
    return columns, frozenset(left_out)


def _in_json(_column: Input, value: RawValue) -> bool:
    return not (isinstance(value, str) and "\0" in value)  # the service refuses NUL in text


def _in_csv(column: Input, value: RawValue) -> bool:
    if isinstance(value, str) and len(value) > MAX_CELL:
        return False
    return _in_json(column, value) and _in_graph(column, value) and _fits(column, value)


def _in_tensors(column: Input, value: RawValue) -> bool:
    return _in_json(column, value) and _fits(column, value)


def _in_bytes(column: Input, value: RawValue) -> bool:
    """Return whether raw bytes can hold a cell: a boolean has no missing value there."""
    if value is None and column.type == "boolean":
        return False
    return _in_graph(column, value) and _fits(column, value)


def _in_graph(column: Input, value: RawValue) -> bool:
    """Return whether the graph can hold a cell: a missing category equals an empty one there."""
    return value is not None or not (isinstance(column, Choice) and "" in column.index)


def _fits(column: Input, value: RawValue) -> bool:
    """Return whether a cell has its column's type; only JSON can mix numbers and texts."""
    if value is None:
        return True
    if isinstance(column, Choice | Moment):
        return isinstance(value, str)
    if column.type == "boolean" or isinstance(value, bool):
        return column.type == "boolean" and isinstance(value, bool)
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53)
