"""The ways in which a model is asked: what each makes of the rows of a sample.

Each goes through the very functions that answer a client, from the bytes of a request to those of
an answer. What a way has no words for is left out of it, never guessed.
"""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from models.export import bundle, onnx_graph
from models.export.bundle import Portable
from models.export.card import golden_rows
from models.features.inputs import Choice, Input, Moment
from models.features.targets import ClassTarget
from models.nets.architectures import Reference
from models.predict.predictor import Prediction, Predictor
from models.predict.values import Problems, RawValue
from models.training.scores import columns_that_split, split_table
from service.datasets import parse
from service.datasets.sandbox import Task
from service.predict import answers, bodies
from service.predict.answers import ARROW, CSV, JSON, answers_of
from service.proofs.messages import ProofJob, StoredTable
from service.protocols import mlflow, tensors

Source = Literal["held_out", "training", "golden"]

MOST_ROWS, LEAST_ROWS = 1000, 20
MOST_CELLS = 200_000  # of the table that goes through each way
MOST_WORK = 2 * 10**9  # multiplications of one way: a second or two
#: The second word of the generator's key where it draws rows; see `models.data`.
STREAM = 2**63 + 2


@dataclass(frozen=True)
class Sample:
    """Some rows, as a client would send them and as training reads them."""

    source: Source
    rows: int
    columns: dict[str, list[RawValue]]
    table: Table
    #: (rows, outputs); NaN where no number can be answered
    expected: Floats
    #: the row of the dataset that each is, from 0; None of golden rows
    places: Integers | None = None

    def named(self, row: int) -> str:
        """Return what people can find a row by."""
        if self.places is None:
            return f"golden row {row + 1}"
        return f"row {self.places[row] + 1} of the dataset"


def read_sample(job: ProofJob, predictor: Predictor, reference: Reference) -> Sample:
    """Return the rows that a job is to be proved by."""
    if job.table is None:
        return _golden(predictor, reference)
    return _from_table(job, job.table, predictor, reference)


# ---- rows of the dataset ------------------------------------------------------------------------


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
    """Return the rows of the table to take, in order: a draw that is the same each time."""
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
        MOST_WORK // max(1, predictor.stack.parameters),
    )
    return max(LEAST_ROWS, min(MOST_ROWS, affordable))


def _cells(column: Input, values: "pa.ChunkedArray[Any]") -> list[RawValue]:
    """Return what a client would send who has this column: JSON has no datetimes."""
    if isinstance(column, Choice):
        return list(values.cast(pa.string()).to_pylist())
    if pa.types.is_timestamp(values.type):
        micros = values.cast(pa.timestamp("us")).cast(pa.int64())
        return [None if each is None else _moment(each) for each in micros.to_pylist()]
    return [_scalar(value) for value in values.to_pylist()]


def _moment(micros: int) -> RawValue:
    """Spell a time; beyond the years 1 to 9999 it is a number of seconds."""
    try:
        seconds, rest = divmod(micros, 10**6)
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest).isoformat()
    except (OverflowError, ValueError, OSError):
        return micros / 1e6


def _scalar(value: RawValue) -> RawValue:
    return None if isinstance(value, float) and not np.isfinite(value) else value


# ---- golden rows --------------------------------------------------------------------------------


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


# ---- rows and columns ---------------------------------------------------------------------------


def records_of(columns: Mapping[str, Sequence[RawValue]]) -> list[dict[str, RawValue]]:
    """Return the cells row by row."""
    cells = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in cells]


def numbers_of(predictor: Predictor, answers: Sequence[Mapping[str, Any]]) -> Floats:
    """Return (rows, outputs) of answers in the API's JSON; NaN where a row has none."""
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


NAMED = {"model": "proved", "version": 1}
MANY = 10**9  # rows or columns: the limits of requests are not what is proved
BUNDLE_BYTES = 2**40  # nor is that of imports: any net that can be trained has less
ONNX_PARAMETERS = 2**28  # a file of more bytes than four times that is more than ONNX can hold


@dataclass(frozen=True)
class Subject:
    """A model in the forms that the ways need, and a folder for what they make of it."""

    predictor: Predictor
    #: its checkpoint
    file: Path
    #: what its bundle says of it
    training: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True)
class Answered:
    """What a way answers."""

    #: (rows, outputs); NaN where there is no answer
    numbers: Floats
    #: the classes that are named, where the model has classes
    classes: Sequence[Any] | None = None
    #: the places of rows that the way has no words for
    left_out: frozenset[int] = field(default_factory=frozenset)


#: Returns None where it has no words for any row.
Way = Callable[[Subject, Sample], Answered | None]
#: Whether there is a word for the value of a column.
HasWord = Callable[[Input, RawValue], bool]


# ---- text ---------------------------------------------------------------------------------------


def rows_of_json(subject: Subject, sample: Sample) -> Answered:
    """`{"rows": [{…}, …]}`."""
    features = subject.predictor.features
    columns, left_out = _sayable(features.inputs, sample, _in_json)
    content = orjson.dumps({"rows": records_of(columns)})
    rows = bodies.read(content, JSON, features, MANY, mlflow)
    return _from_json(subject, _written(JSON, subject, rows), left_out)


def a_row_at_a_time(subject: Subject, sample: Sample) -> Answered | None:
    """The same, one row a request: the short way of rows that nothing is to be said about."""
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
    """CSV in, CSV out."""
    features = subject.predictor.features
    columns, left_out = _sayable(features.inputs, sample, _in_csv)
    out = io.StringIO()
    write = csv.writer(out, quoting=csv.QUOTE_ALL).writerow
    write(columns)
    for row in zip(*columns.values(), strict=True):
        write(map(_spelled, row))
    rows = bodies.read(out.getvalue().encode(), CSV, features, MANY, mlflow)
    content = _written(CSV, subject, rows).decode()
    answered = list(csv.DictReader(io.StringIO(content, newline="")))
    target = features.target
    if isinstance(target, ClassTarget):
        names = [f"probability.{label}" for label in target.labels]
    else:
        names = ["value"] if len(target.names) == 1 else [f"value.{n}" for n in target.names]
    numbers = [[float(row[name] or "nan") for name in names] for row in answered]
    return Answered(np.array(numbers).reshape(sample.expected.shape), left_out=left_out)


def _spelled(value: RawValue) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- Arrow --------------------------------------------------------------------------------------


def arrow(subject: Subject, sample: Sample) -> Answered:
    """An Arrow file in, an Arrow file out."""
    inputs = subject.predictor.features.inputs
    columns, left_out = _sayable(inputs, sample, _fits)
    types = {column.name: _arrow_type(column) for column in inputs}
    table = pa.table({n: pa.array(values, types[n]) for n, values in columns.items()})
    path = subject.folder / "rows.arrow"
    with pyarrow.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)
    options = {"known": list(columns), "max_rows": MANY}
    task = Task(str(path), str(subject.folder), ARROW, options, MANY, 0)
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


# ---- the Open Inference Protocol ----------------------------------------------------------------


def tensors_of_json(subject: Subject, sample: Sample) -> Answered:
    """A tensor a column, in a document of JSON."""
    columns, left_out = _sayable(subject.predictor.features.inputs, sample, _in_tensors)
    inputs = [_tensor(subject, name, len(values)) for name, values in columns.items()]
    told = [tensor | {"data": columns[tensor["name"]]} for tensor in inputs]
    asked = tensors.parse(orjson.dumps({"inputs": told}), None)
    found = json.loads(orjson.dumps(_inferred(subject, asked)))
    return Answered(_from_tensors(subject, found), left_out=left_out)


def tensors_of_bytes(subject: Subject, sample: Sample) -> Answered:
    """A tensor a column, as raw bytes."""
    columns, left_out = _sayable(subject.predictor.features.inputs, sample, _in_bytes)
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


# ---- exported -----------------------------------------------------------------------------------


def onnx(subject: Subject, sample: Sample) -> Answered | None:
    """The exported graph, run by onnxruntime."""
    if subject.predictor.stack.parameters > ONNX_PARAMETERS:
        return None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    graph = onnxruntime.InferenceSession(
        onnx_graph.build(Portable.load(subject.file), {}),
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
    _columns, left_out = _sayable(inputs, sample, _in_graph)
    return Answered(numbers, classes, left_out)


def _feed(column: Input, sample: Sample) -> NDArray[Any]:
    values = sample.table.columns[column.name]
    if isinstance(values, Categories):
        words = np.array([*values.values, ""], dtype=object)
        return words[values.codes][:, None]
    return values[:, None]


def sealed(subject: Subject, sample: Sample) -> Answered:
    """The bundle, written, read and loaded again."""
    path = subject.folder / "bundle.zip"
    bundle.write(path, subject.file, subject.training)
    found = bundle.read(path, BUNDLE_BYTES)
    again = subject.folder / "reloaded"
    found.model.save(again, {})
    other = Predictor.load(again)
    found.prove(other)
    predictions = other.predict(sample.columns, sample.rows)
    return _from_predictions(subject, predictions)


# ---- shared -------------------------------------------------------------------------------------


def _written(media_type: str, subject: Subject, rows: bodies.Rows) -> bytes:
    """Predict the rows of a request and write the answer."""
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


# ---- what there are words for -------------------------------------------------------------------


def _sayable(
    inputs: Sequence[Input], sample: Sample, has_word: HasWord
) -> tuple[dict[str, list[RawValue]], frozenset[int]]:
    """Return the cells that can be said; the rows of the others are left out, and they missing."""
    columns: dict[str, list[RawValue]] = {}
    left_out: set[int] = set()
    for column in inputs:
        cells = sample.columns[column.name]
        said = [has_word(column, value) for value in cells]
        left_out |= {place for place, is_said in enumerate(said) if not is_said}
        pairs = zip(cells, said, strict=True)
        columns[column.name] = [value if is_said else None for value, is_said in pairs]
    return columns, frozenset(left_out)


def _in_json(_column: Input, value: RawValue) -> bool:
    return not (isinstance(value, str) and "\0" in value)  # which is refused


def _in_csv(column: Input, value: RawValue) -> bool:
    if isinstance(value, str) and len(value) > csv.field_size_limit():
        return False
    return _in_graph(column, value) and _fits(column, value)


def _in_tensors(column: Input, value: RawValue) -> bool:
    return _in_json(column, value) and _fits(column, value)


def _in_bytes(column: Input, value: RawValue) -> bool:
    """Say that a boolean, which is one bit there, cannot be missing."""
    if value is None and column.type == "boolean":
        return False
    return _in_graph(column, value) and _fits(column, value)


def _in_graph(column: Input, value: RawValue) -> bool:
    """Say that no category is missing where an empty one is known: both are spelled alike."""
    return value is not None or not (isinstance(column, Choice) and "" in column.index)


def _fits(column: Input, value: RawValue) -> bool:
    """Return whether a cell has the type of its column: only JSON can say a number among texts."""
    if value is None:
        return True
    if isinstance(column, Choice | Moment):
        return isinstance(value, str)
    if column.type == "boolean" or isinstance(value, bool):
        return column.type == "boolean" and isinstance(value, bool)
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**53)


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
