"""The evaluation of a run's best checkpoint: its report, and predictions of a split for plots."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from anyio.to_thread import run_sync
from fastapi import Query, Request, Response

from descent import schemas
from descent.codes import make_finding
from descent.spec import ColumnType, KFoldSplit, RunConfig
from models import checkpoint
from models.checkpoint import OUT_OF_FOLD
from models.data import Floats, Integers, Table, generator, read_table, take
from models.features.targets import ClassTarget
from models.predict.predictor import Predictor
from models.training.scores import RowSplit, columns_that_split, pairs, roc_curve, split_table
from service.datasets.versions import DatasetVersion, ready_version, table_digest
from service.errors import Conflict, Invalid, NotFound
from service.http import strict_route
from service.http.resources import BlobsDep, ScratchDep, etag_of, json_response, not_modified
from service.predict.routes import Inference, InferenceDep, predictor_of
from service.registry import versions
from service.runs import lifecycle
from service.storage.database import reading

#: cells of a table that is read for a plot; reading so many takes seconds, column by column
MOST_CELLS = 100_000_000
MOST_ROWS = 2_000  # rows that are predicted
MOST_WORK = 2 * 10**9  # multiplications of the prediction: a second or two
MOST_CURVES = 12  # classes with a ROC curve; a plot of more is not readable
#: second word of the generator's key for the draw of rows; see `models.data`
STREAM = 2**63 + 3
#: order in which a split is chosen if the request names none: rows that training used least first
ORDER = ("test", "validation", "train")

router = strict_route.router()


@router.get(
    "/runs/{run_id}/evaluation",
    response_model=schemas.Evaluation,
    operation_id="get_run_evaluation",
    tags=["runs"],
)
@strict_route.has_etag
async def get_run_evaluation(
    run_id: str,
    inference: InferenceDep,
    blobs: BlobsDep,
    scratch: ScratchDep,
    request: Request,
    split: Annotated[
        Literal["train", "validation", "test"] | None,
        Query(
            description="The split whose rows are used; by default the first of test, validation"
            " and train that has rows."
        ),
    ] = None,
) -> Response:
    """Return predictions of the best checkpoint with the true values, or ROC curves for classes.

    A large split is sampled, with the same rows each time; the run's `evaluation` holds the
    metrics of all rows.
    """
    config, version, target = await run_sync(_found, inference, run_id)
    etag = etag_of(target.sha256, version.table_sha256, split)
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})

    def compute() -> dict[str, Any]:
        predictor = predictor_of(inference, target)
        types = {column["name"]: column["type"] for column in version.columns}
        with scratch.folder() as folder:
            path = blobs.fetch(table_digest(version), folder)
            stored = TableFile(path, types, version.rows)
            held_out: checkpoint.Tensors = {}
            if isinstance(config.split, KFoldSplit) and split in {None, "validation"}:
                file = blobs.fetch(target.sha256, folder)
                held_out, _document = checkpoint.read(file, OUT_OF_FOLD)
            try:
                if held_out:
                    return evaluate_folds(config, stored, predictor, held_out)
                return evaluate(config, stored, predictor, split)
            except FileNotFoundError as error:  # deleted and collected since it was fetched
                raise NotFound(f"The dataset of the run {run_id} was deleted.") from error

    return json_response(await inference.executor.run(compute), headers={"ETag": etag})


class NoReport(Conflict):
    """The best checkpoint of the run has no report."""

    code = "no_report"


@router.get(
    "/runs/{run_id}/report",
    response_model=schemas.Report,
    operation_id="get_run_report",
    tags=["runs"],
)
@strict_route.has_etag
async def get_run_report(run_id: str, inference: InferenceDep, request: Request) -> Response:
    """Return how a run's model compares with simple ones, and what makes its scores doubtful."""

    def found() -> tuple[versions.Target, list[dict[str, Any]]]:
        with reading(inference.engine) as session:
            run = lifecycle.get(session, run_id)
            version = session.get(DatasetVersion, (run.dataset_id, run.dataset_version))
            left_out = [] if version is None else list(_ids_left_out(run.config, version.columns))
            return lifecycle.target_of(session, run_id), left_out

    target, left_out = await run_sync(found)
    etag = etag_of(target.sha256, "report", len(left_out))
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})

    def read() -> dict[str, Any]:
        document = predictor_of(inference, target).document
        report: dict[str, Any] | None = document.get("report")
        if report is None:
            raise NoReport(
                f"The best checkpoint of the run {run_id} has no report: it is made at the end of a"
                " training whose predictions are finite. Wait for the end, or train again."
            )
        known = (document.get("evaluation") or {}).get("calibration")
        return report | {"findings": [*report["findings"], *left_out], "calibration": known}

    return json_response(await inference.executor.run(read), headers={"ETag": etag})


def _ids_left_out(
    config: dict[str, Any], columns: list[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yield a finding for each column that was taken for an id and is no feature."""
    used = {*(config.get("features") or []), *RunConfig.model_validate(config).targets}
    for column in columns:
        if column["type"] == "id" and column["name"] not in used:
            detail = f"{column['name']!r} was taken for an id, so the model does not read it."
            yield make_finding("column_is_id", detail, column["name"])


def _found(inference: Inference, run_id: str) -> tuple[RunConfig, DatasetVersion, versions.Target]:
    with reading(inference.engine) as session:
        run = lifecycle.get(session, run_id)
        target = lifecycle.target_of(session, run_id)
        version = ready_version(session, run.dataset_id, run.dataset_version)
        return RunConfig.model_validate(run.config), version, target


class EvaluationTooLarge(Invalid):
    """The dataset is too large to be read for a plot."""

    code = "evaluation_too_large"


@dataclass(frozen=True)
class TableFile:
    """The table of a dataset version, a Parquet file that the service wrote."""

    path: Path
    types: dict[str, ColumnType]
    rows: int

    def read(self, names: list[str]) -> Table:
        return read_table(self.path, self.types, names)


def evaluate_folds(
    config: RunConfig, stored: TableFile, predictor: Predictor, held_out: checkpoint.Tensors
) -> dict[str, Any]:
    """Return the same as `evaluate` for each row by members that did not train with it."""
    features, rows = predictor.features, held_out[f"{OUT_OF_FOLD}rows"]
    if (cells := stored.rows * len(config.targets)) > MOST_CELLS:
        raise _too_large(cells)
    drawn = _draw(rows, predictor, config.seed)
    truth = features.truth(stored.read(config.targets), drawn)
    outputs = held_out[f"{OUT_OF_FOLD}outputs"][np.searchsorted(rows, drawn)]
    return _body("validation", len(rows), predictor, truth, features.decode(outputs))


def evaluate(
    config: RunConfig, stored: TableFile, predictor: Predictor, wanted: str | None
) -> dict[str, Any]:
    """Return the body of `GET /runs/{id}/evaluation`. Raises EvaluationTooLarge."""
    features = predictor.features
    names = columns_that_split(config)
    inputs = [column.name for column in features.inputs]
    if (cells := stored.rows * (len(names) + len(inputs))) > MOST_CELLS:
        raise _too_large(cells)
    table = stored.read(names)
    name, rows = _chosen(split_table(config, table), wanted)
    drawn = _draw(rows, predictor, config.seed)
    truth = features.truth(table, drawn)
    sample = _rows_of(stored, inputs, drawn)
    decoded = features.decode(predictor.model.forward(features.encode(sample)))
    return _body(name, len(rows), predictor, truth, decoded)


def _too_large(cells: int) -> EvaluationTooLarge:
    return EvaluationTooLarge(
        f"The run's columns have {cells} cells, more than the {MOST_CELLS} that are read for"
        " plots: the run's `evaluation` holds its metrics."
    )


def _body(
    name: str, rows: int, predictor: Predictor, truth: Floats | Integers, decoded: Floats
) -> dict[str, Any]:
    target = predictor.features.target
    body: dict[str, Any] = {"split": name, "rows": rows, "shown": len(decoded)}
    if isinstance(target, ClassTarget):
        return body | {"points": [], "curves": _curves(target, truth, decoded)}
    return body | {"points": _points(target.names, truth, decoded), "curves": []}


def _chosen(split: RowSplit, wanted: str | None) -> tuple[str, Integers]:
    by_name = {"train": split.train, "validation": split.validation, "test": split.test}
    name = wanted or next((each for each in ORDER if len(by_name[each])), "train")
    return name, by_name[name]


def _draw(rows: Integers, predictor: Predictor, seed: int) -> Integers:
    """Return a sample of the rows, the same one each time."""
    most = min(MOST_ROWS, max(20, MOST_WORK // max(1, predictor.model.work)))
    return np.sort(generator(seed, STREAM).permutation(rows)[:most])


def _rows_of(stored: TableFile, names: list[str], rows: Integers) -> Table:
    """Read rows of a table column by column, so that only one whole column is in memory."""
    columns = {name: take(stored.read([name]).columns[name], rows) for name in names}
    return Table({name: stored.types[name] for name in names}, columns, len(rows))


def _points(
    names: tuple[str, ...], truth: Floats | Integers, decoded: Floats
) -> list[dict[str, Any]]:
    found = []
    for place, name in enumerate(names):
        actual, predicted = pairs(truth[:, place].astype(np.float64), decoded[:, place])
        found.append({"target": name, "actual": actual, "predicted": predicted})
    return found


def _curves(target: ClassTarget, truth: Floats | Integers, shares: Floats) -> list[dict[str, Any]]:
    # For two classes one curve is enough: the other one is its mirror image.
    places = [1] if len(target.labels) == 2 else range(min(len(target.labels), MOST_CURVES))
    return [
        {"label": target.labels[place]}
        | {
            name: value.tolist() if isinstance(value, np.ndarray) else value
            for name, value in vars(roc_curve(truth == place, shares[:, place])).items()
        }
        for place in places
    ]
