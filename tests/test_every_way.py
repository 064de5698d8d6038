"""A cell means the same wherever it is read: the rows of a file, sent in every way of predicting.

Each generated file is uploaded. A model is trained on it, and the file's own rows are sent back in
the spelling of the file and in others. Every answer must be what training computes from the typed
table of the upload, without a warning about a value that is there.
"""

import csv
import io
import json
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, select

from models.data import read_table
from models.export import bundle
from models.predict.bulk import Bulk
from models.predict.predictor import Predictor
from service.datasets.messages import JSON, NDJSON, VersionReading
from service.datasets.versions import DatasetVersion
from service.settings import Settings
from service.storage.blobs import LocalBlobs
from service.storage.database import create_database, migrate, reading
from tests.files import MadeFile, make_file
from tests.models.export.portables import ABOUT
from tests.models.samples import learn
from tests.service import trained
from tests.serving import app_of, serving

pytestmark = pytest.mark.slow

SEED, FILES, EACH = 16, 300, 50
TOLERANCE = 1e-5
#: warnings that a cell may have although it is read rightly
ALLOWED = {"missing", "rare_category", "out_of_range"}
CONFIG = {
    "dataset": "ds_1",
    "target": "y",
    "task": "regression",
    "loss": "mse",
    "model": {"type": "linear"},
    "epochs": 1,
    "split": {"type": "none"},
}


@dataclass(frozen=True)
class Stage:
    """A service, its storage, and a folder for models."""

    client: httpx.Client
    engine: Engine
    blobs: LocalBlobs
    folder: Path


@dataclass(frozen=True)
class Known:
    """A model that was trained on an upload."""

    name: str
    made: MadeFile
    checkpoint: Path
    #: the typed table of the upload
    table: Path
    types: dict[str, Any]


@contextmanager
def staged(folder: Path) -> Iterator[Stage]:
    settings = Settings(data_dir=folder / "data")
    engine = create_database(settings.resolved_database_url)
    migrate(engine)
    with serving(app_of(settings, engine)) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield Stage(client, engine, LocalBlobs(settings.data_dir / "blobs"), folder)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("ways")) as found:
        yield found


def learned(stage: Stage, made: MadeFile) -> tuple[Known, list[float]]:
    """Upload a file, train on it and publish the model; return it and what training computes."""
    headers = {"Content-Type": made.content_type}
    answer = stage.client.post(
        "/api/v1/datasets", content=made.content, headers=headers, params=made.params
    )
    assert answer.status_code == 201, answer.text
    with reading(stage.engine) as session:
        query = select(DatasetVersion).where(DatasetVersion.dataset_id == answer.json()["id"])
        version = session.scalars(query).one()
    folder = stage.folder / f"file-{made.number}"
    folder.mkdir()
    path = stage.blobs.fetch(str(version.table_sha256), folder)
    kinds = {column["name"]: column["type"] for column in version.columns}
    features = [column["name"] for column in version.columns if column["role"] == "feature"]
    target = made.columns[-1].name
    features = [name for name in features if name != target]
    how = VersionReading.of(version.columns, version.reading)
    table = replace(
        read_table(path, kinds, list(kinds)), readings=how.readings(), reading=how.table_reading()
    )
    outcome = learn(table, folder, CONFIG | {"features": features, "target": target})
    assert outcome.error is None
    known = Known(f"m{made.number}", made, outcome.saved[-1].path, path, kinds)
    predictor = Predictor.load(known.checkpoint)
    _publish(stage, known, predictor)
    outputs = predictor.outputs_with_care(predictor.features.encode(table))
    return known, predictor.features.decode(outputs)[:, 0].tolist()


def _publish(stage: Stage, known: Known, predictor: Predictor) -> None:
    left = trained.store_best(stage.engine, stage.blobs, known.checkpoint, model={"type": "linear"})
    trained.publish(stage.engine, left, known.name, signature=predictor.features.signature())


# ---- ways ---------------------------------------------------------------------------------------

#: A value of each row, and the codes of its warnings; None if the way sends none.
Answers = list[tuple[float | None, set[str]]]
Way = Callable[[Stage, Known], Answers]


def _ask(stage: Stage, known: Known, content: bytes | str, media_type: str) -> Answers:
    answer = stage.client.post(
        f"/api/v1/models/{known.name}/predict",
        content=content,
        headers={"Content-Type": media_type, "Accept": JSON},
    )
    assert answer.status_code == 200, answer.text
    return [
        (row["value"], {each["code"] for each in row.get("warnings", ())})
        for row in answer.json()["predictions"]
    ]


def as_uploaded(stage: Stage, known: Known) -> Answers:
    """The bytes of the upload."""
    return _ask(stage, known, known.made.content, known.made.content_type)


def as_plain_csv(stage: Stage, known: Known) -> Answers:
    """The same cells, with a header, commas and UTF-8."""
    return _ask(stage, known, _csv(known.made), "text/csv")


def _csv(made: MadeFile) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow([column.name for column in made.columns])
    writer.writerows(zip(*(column.texts for column in made.columns), strict=True))
    return out.getvalue().encode()


def as_ndjson(stage: Stage, known: Known) -> Answers:
    """The cells as strings of JSON, one row a line."""
    lines = "".join(json.dumps(row) + "\n" for row in _rows(known.made))
    return _ask(stage, known, lines, NDJSON)


def _rows(made: MadeFile) -> list[dict[str, str]]:
    cells = zip(*(column.texts for column in made.columns), strict=True)
    return [dict(zip([c.name for c in made.columns], row, strict=True)) for row in cells]


def as_columns(stage: Stage, known: Known) -> Answers:
    """The cells as strings of JSON, column by column."""
    columns = {column.name: column.texts for column in known.made.columns}
    return _ask(stage, known, json.dumps({"columns": columns}), JSON)


def as_values(stage: Stage, known: Known) -> Answers:
    """The typed values of the upload as JSON, as `GET /datasets/{id}/rows` returns them."""
    rows = pq.read_table(known.table).to_pylist()
    for row in rows:
        for name, value in row.items():
            if hasattr(value, "isoformat"):
                row[name] = f"{value.isoformat()}Z"
    return _ask(stage, known, json.dumps({"rows": rows}), JSON)


def as_tensors(stage: Stage, known: Known) -> Answers:
    """The cells as BYTES tensors of the Open Inference Protocol."""
    predictor = Predictor.load(known.checkpoint)
    names = {column.name for column in predictor.features.inputs}
    tensors = [
        {"name": c.name, "datatype": "BYTES", "shape": [len(c.texts)], "data": c.texts}
        for c in known.made.columns
        if c.name in names
    ]
    answer = stage.client.post(f"/v2/models/{known.name}/infer", json={"inputs": tensors})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    codes: list[set[str]] = [set() for _ in range(known.made.rows)]
    for problem in json.loads(body.get("parameters", {}).get("warnings", "[]")):
        for row in problem.get("rows", ()):
            codes[row].add(problem["code"])
    (values,) = [tensor["data"] for tensor in body["outputs"]]
    return list(zip(values, codes, strict=True))


def as_mlflow(stage: Stage, known: Known) -> Answers:
    """The cells as strings of a body of MLflow's protocol."""
    columns = known.made.columns
    split = {
        "columns": [column.name for column in columns],
        "data": [list(row) for row in zip(*(c.texts for c in columns), strict=True)],
    }
    answer = stage.client.post(
        f"/api/v1/models/{known.name}/predict", json={"dataframe_split": split}
    )
    assert answer.status_code == 200, answer.text
    return [(value, set()) for value in answer.json()["predictions"]]


def as_batch(_stage: Stage, known: Known) -> Answers:
    """The typed table, as a batch prediction reads it."""
    bulk = Bulk(Predictor.load(known.checkpoint), known.types, "warn")
    found: Answers = []
    for batch in pq.ParquetFile(known.table).iter_batches():
        answers = bulk.predict(batch, lambda: None)
        values, notes = answers.columns[0].to_pylist(), answers.columns[-2].to_pylist()
        codes = [{note.rpartition(": ")[2] for note in (n or "").split("; ") if n} for n in notes]
        found += list(zip(values, codes, strict=True))
    return found


def as_script(_stage: Stage, known: Known) -> Answers:
    """The bytes of the upload, by the exported script."""
    path = known.checkpoint.with_name("bundle.zip")
    bundle.write(path, known.checkpoint, ABOUT)
    script = types.ModuleType("script")
    exec(compile(bundle.script(), "predict.py", "exec"), script.__dict__)  # noqa: S102  our own file
    rows = script.read_csv(known.made.content, json.loads(script.read(path, "preprocessing.json")))
    return [(row["value"], set()) for row in script.predict(path, rows)]


WAYS: Sequence[Way] = [
    as_uploaded,
    as_plain_csv,
    as_ndjson,
    as_columns,
    as_values,
    as_tensors,
    as_mlflow,
    as_batch,
    as_script,
]


def faults(stage: Stage, made: MadeFile) -> list[str]:
    """Return a sentence for each way that reads a row in another way than training."""
    known, due = learned(stage, made)
    return [
        f"file {made.number} {made.made} {[c.kind for c in made.columns]}, {way.__name__}: {fault}"
        for way in WAYS
        if (fault := _fault(made, due, way(stage, known)))
    ]


def _fault(made: MadeFile, due: list[float], answers: Answers) -> str | None:
    if len(answers) != len(due):
        return f"{len(answers)} answers to {len(due)} rows"
    scale = float(np.std(due)) or 1.0
    for row, (wanted, (value, codes)) in enumerate(zip(due, answers, strict=True)):
        texts = [column.texts[row] for column in made.columns]
        if value is None or abs(value - wanted) > TOLERANCE * max(abs(wanted), scale):
            return f"row {row + 1} {texts}: {value}, not {wanted}"
        if codes - ALLOWED:
            return f"row {row + 1} {texts}: {codes}"
    return None


@pytest.mark.parametrize("first", range(0, FILES, EACH))
def test_every_way_reads_a_cell_as_the_upload_did(stage: Stage, first: int) -> None:
    found = [f for n in range(first, first + EACH) for f in faults(stage, make_file(SEED, n))]
    assert found[:5] == []
