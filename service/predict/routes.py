"""The predict routes: read the rows, predict, answer in the requested format.

`Inference` holds all parts that predictions need; the hot path and the other protocols use it too.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Query, Request, Response
from sqlalchemy import Engine

from descent import schemas
from descent.schemas.protocols import Scores
from descent.spec import Name
from models.predict.intervals import LEAST, MOST
from models.predict.predictor import Predictor
from service.datasets.charsets import charset_of
from service.errors import BadRequest, UnsupportedMedia
from service.http import strict_route
from service.predict import answers, bodies, intervals
from service.predict.answers import answers_of
from service.predict.bodies import CSV, JSON, NDJSON, TSV, Answer, Files, ForeignBodies
from service.predict.directory import Directory, Predictors
from service.predict.executor import PredictionExecutor
from service.predict.traffic import Traffic
from service.registry import versions
from service.registry.serving import ModelDamaged, damage_named
from service.runs import lifecycle
from service.settings import Settings
from service.storage.database import reading

READ = (JSON, CSV, TSV, NDJSON, *bodies.MEDIA_TYPES)
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {
                "schema": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/PredictRequest"},
                        {"$ref": "#/components/schemas/ScoringRequest"},
                    ]
                }
            },
            **{text: {"schema": {"type": "string"}} for text in (CSV, TSV, NDJSON)},
            **{
                file: {"schema": {"type": "string", "format": "binary"}}
                for file in bodies.MEDIA_TYPES
            },
        },
    }
}
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "model": schemas.Predictions | Scores,
        "content": {
            **{text: {"schema": {"type": "string"}} for text in (CSV, NDJSON)},
            **{
                file: {"schema": {"type": "string", "format": "binary"}}
                for file in (*bodies.MEDIA_TYPES, answers.ARROW_STREAM)
            },
        },
    }
}

router = strict_route.router()


# ---- shared by all ways of predicting -----------------------------------------------------------


@dataclass(frozen=True)
class Inference:
    """All parts that predictions need. One per process."""

    settings: Settings
    engine: Engine
    predictors: Predictors
    directory: Directory
    traffic: Traffic
    files: Files
    executor: PredictionExecutor
    #: reads the bodies of another server's clients
    foreign: ForeignBodies


def inference(request: Request) -> Inference:
    found: Inference = request.app.state.inference
    return found


InferenceDep = Annotated[Inference, Depends(inference)]


@dataclass(frozen=True)
class PredictionBody:
    """The unparsed body of a request, and the options of its answer."""

    media_type: str
    content: bytes
    on_problem: Literal["warn", "error"] = "warn"
    #: the media type of the answer
    wants: str = JSON
    explain: bool = False
    #: the level of the intervals or sets; None for none
    interval: float | None = None
    #: whether the request came by MLflow's route, so that the answer has MLflow's shape
    is_invocation: bool = False
    #: the `charset` of the content type; empty if it names none
    charset: str = ""

    @property
    def is_file(self) -> bool:
        return self.media_type in bodies.MEDIA_TYPES


async def asked(
    request: Request,
    on_problem: Annotated[
        Literal["warn", "error"],
        Query(
            description="`warn` treats a missing required value, a wrong type or an unknown "
            "category like a missing value in training, with a warning; `error` makes it the row's "
            "error."
        ),
    ] = "warn",
    *,
    explain: Annotated[
        bool,
        Query(
            description="Whether each prediction lists the contribution of each column. The limit "
            "of rows per request then depends on the size of the model."
        ),
    ] = False,
    interval: Annotated[
        float | None,
        Query(
            ge=LEAST,
            le=MOST,
            description="The level of an `interval` around each predicted number, or of a `set` of"
            " classes: 0.9 means that it holds the true value in at least 90 % of the rows.",
        ),
    ] = None,
) -> PredictionBody:
    media_type = _media_type(request)
    content = await strict_route.read_body(request, "predict")
    wants = answers.wanted(request.headers.get("accept", ""))
    charset = charset_of(request.headers.get("content-type", ""))
    return PredictionBody(
        media_type, content, on_problem, wants, explain, interval, charset=charset
    )


def _media_type(request: Request) -> str:
    given = request.headers.get("content-type", "")
    media_type = given.partition(";")[0].strip().lower()
    if media_type not in READ:
        raise UnsupportedMedia(
            f"Send the rows as one of {', '.join(READ)}, got {given[:100]!r}.",
        )
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedMedia(
            f"The body of a prediction cannot be compressed, got {encoding[:40]!r}."
        )
    return media_type


PredictionBodyDep = Annotated[PredictionBody, Depends(asked)]

ModelName = Annotated[Name, Path(description="The name of a model.")]


# ---- routes -------------------------------------------------------------------------------------


@router.post(
    "/models/{name}/predict",
    openapi_extra=BODY,
    responses=ANSWER,
    operation_id="predict_with_model",
)
@strict_route.not_idempotent
@strict_route.streams_body
async def predict_with_model(
    inference: InferenceDep, name: ModelName, asked: PredictionBodyDep
) -> Response:
    """Predict with the latest version of a model."""
    return await queued(inference, partial(inference.directory.of_model, name), asked)


@router.post(
    "/models/{name}/versions/{version}/predict",
    openapi_extra=BODY,
    responses=ANSWER,
    operation_id="predict_with_version",
)
@strict_route.not_idempotent
@strict_route.streams_body
async def predict_with_version(
    inference: InferenceDep,
    name: ModelName,
    version: Annotated[int, Path(ge=1, lt=2**31, description="The number of a version.")],
    asked: PredictionBodyDep,
) -> Response:
    """Predict with one version of a model."""
    return await queued(inference, partial(inference.directory.of_version, name, version), asked)


@router.post(
    "/models/{name}/aliases/{alias}/predict",
    openapi_extra=BODY,
    responses=ANSWER,
    operation_id="predict_with_alias",
)
@strict_route.not_idempotent
@strict_route.streams_body
async def predict_with_alias(
    inference: InferenceDep,
    name: ModelName,
    alias: Annotated[Name, Path(description="A name such as `champion`.")],
    asked: PredictionBodyDep,
) -> Response:
    """Predict with the version that an alias points to."""
    return await queued(inference, partial(inference.directory.of_alias, name, alias), asked)


@router.post(
    "/runs/{run_id}/predict",
    openapi_extra=BODY,
    responses=ANSWER,
    operation_id="predict_with_run",
)
@strict_route.not_idempotent
@strict_route.streams_body
async def predict_with_run(
    inference: InferenceDep, run_id: schemas.RunId, asked: PredictionBodyDep
) -> Response:
    """Predict with the best checkpoint of a run."""

    def best() -> versions.Target:
        with reading(inference.engine) as session:
            return lifecycle.target_of(session, run_id)

    return await queued(inference, best, asked)


# ---- answers ------------------------------------------------------------------------------------


async def queued(
    inference: Inference, resolve: Callable[[], versions.Target], asked: PredictionBody
) -> Response:
    """Answer a request in a thread. Raises Overloaded, DeadlineExceeded."""
    return await inference.executor.run(lambda: answer(inference, resolve(), asked))


def answer(inference: Inference, target: versions.Target, asked: PredictionBody) -> Response:
    """Predict the rows of a request and write the answer in the requested format."""
    began = perf_counter()
    predictor = predictor_of(inference, target)
    rows = _read(inference, predictor, asked)
    found = answered(predictor, asked, rows)

    def again(other: versions.Target) -> list[Answer] | None:
        return computed_again(inference, other, asked, (predictor, rows) if asked.is_file else None)

    seconds = perf_counter() - began
    inference.traffic.answered(target, found, seconds, len(asked.content), again)
    if asked.wants == JSON and (rows.is_mlflow or asked.is_invocation):
        return Response(inference.foreign.to_json(target.named, found, rows.notes), media_type=JSON)
    content = answers.written(asked.wants, target.named, found, predictor.features)
    return Response(content, media_type=asked.wants)


def predictor_of(inference: Inference, target: versions.Target) -> Predictor:
    """Return the predictor of a version. Raises ModelDamaged."""
    try:
        return inference.predictors.get(target.sha256)
    except ModelDamaged:
        inference.traffic.failed(target)
        raise


def computed_again(
    inference: Inference,
    target: versions.Target,
    asked: PredictionBody,
    read: tuple[Predictor, bodies.Rows] | None,
) -> list[Answer] | None:
    """Return the answers of another version (a shadow), or None if it cannot read the request.

    `read` holds the rows of a file and the predictor for which they were read, because a shadow
    must not take the reader of files a second time.
    """
    predictor = inference.predictors.get(target.sha256)
    asked = replace(asked, interval=None)  # only the values are compared
    if read is None:
        return answered(predictor, asked, _read(inference, predictor, asked))
    first, rows = read
    known = {column.name for column in first.features.inputs}
    is_known = all(column.name in known for column in predictor.features.inputs)
    return answered(predictor, asked, rows) if is_known else None


def answered(predictor: Predictor, asked: PredictionBody, rows: bodies.Rows) -> list[Answer]:
    """Return one answer for each row of a request, in order."""
    bodies.check_cells(rows.count, len(predictor.features.inputs))
    if asked.explain:
        answers.check(predictor, rows.count)
    level = asked.interval
    with damage_named():
        calibration = None if level is None else intervals.calibration_of(predictor, level)
    predictions = predictor.predict(
        rows.columns, rows.count, on_problem=asked.on_problem, from_text=rows.is_text
    )
    found = answers_of(predictions, rows.unreadable)
    if calibration is not None and level is not None:
        intervals.add(found, predictor, calibration, level, rows)
    if asked.explain:
        answers.add(found, predictor, rows)
    return found


def read_text(
    predictor: Predictor, asked: PredictionBody, max_rows: int, foreign: bodies.ForeignBodies
) -> bodies.Rows:
    """Return the rows of a body in JSON, NDJSON, CSV or TSV."""
    if not asked.content:
        raise BadRequest("The body is empty: send the rows to predict.")
    return bodies.read(
        asked.content, asked.media_type, predictor.features, max_rows, foreign, asked.charset
    )


def _read(inference: Inference, predictor: Predictor, asked: PredictionBody) -> bodies.Rows:
    if asked.content and asked.is_file:
        known = [column.name for column in predictor.features.inputs]
        return inference.files.read(asked.content, asked.media_type, known)
    most = inference.settings.max_predict_rows
    return read_text(predictor, asked, most, inference.foreign)
