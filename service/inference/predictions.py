"""The routes that predict: read the rows, ask the predictor, answer in the format wanted."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Annotated, Any, Literal

from fastapi import Depends, Path, Query, Request, Response

from descent import schemas
from descent.schemas.protocols import Scores
from descent.spec import Name
from models.predict import Predictor
from service import http
from service.database import reading
from service.dependencies import Parts, PartsDep
from service.errors import BadRequest, UnsupportedMedia
from service.inference import bodies, explanations, files, formats, mlflow, registry, texts
from service.inference.answers import Answer, answers
from service.inference.cache import CheckpointDamaged, Predictors
from service.inference.texts import CSV, JSON, NDJSON, TSV

READ = (JSON, CSV, TSV, NDJSON, *files.MEDIA_TYPES)

router = http.router()


@dataclass(frozen=True)
class Asked:
    """The body of a request as it came, and how the client wants its answer."""

    media_type: str
    content: bytes
    on_problem: Literal["warn", "error"] = "warn"
    #: the media type of the answer
    wants: str = JSON
    explain: bool = False
    #: whether MLflow's server was asked for, so that the answer has the shape of its answers
    is_invocation: bool = False

    @property
    def is_file(self) -> bool:
        return self.media_type in files.MEDIA_TYPES


async def asked(
    request: Request,
    on_problem: Annotated[
        Literal["warn", "error"],
        Query(
            description="Whether a missing required value, a wrong type or an unknown category "
            "is treated as training treated missing values, or is the row's error."
        ),
    ] = "warn",
    *,
    explain: Annotated[
        bool,
        Query(
            description="Whether each prediction tells what each column contributed to it. How "
            "many rows a request may have then depends on the size of the model."
        ),
    ] = False,
) -> Asked:
    media_type = _media_type(request)
    content = await http.read_body(request, "predict")
    wants = formats.wanted(request.headers.get("accept", ""))
    return Asked(media_type, content, on_problem, wants, explain)


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


AskedDep = Annotated[Asked, Depends(asked)]
ModelName = Annotated[Name, Path(description="The name of a model.")]

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
                for file in files.MEDIA_TYPES
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
                for file in (*files.MEDIA_TYPES, formats.ARROW_STREAM)
            },
        },
    }
}


@router.post(
    "/models/{name}/predict",
    openapi_extra=BODY,
    responses=ANSWER,
    operation_id="predict_with_model",
)
@http.not_idempotent
@http.streams_body
async def predict_with_model(parts: PartsDep, name: ModelName, asked: AskedDep) -> Response:
    """Predict with the latest version of a model."""
    return await queued(parts, partial(parts.directory.of_model, name), asked)


@router.post(
    "/models/{name}/versions/{version}/predict",
    openapi_extra=BODY,
    responses=ANSWER,
    operation_id="predict_with_version",
)
@http.not_idempotent
@http.streams_body
async def predict_with_version(
    parts: PartsDep,
    name: ModelName,
    version: Annotated[int, Path(ge=1, lt=2**31, description="The number of a version.")],
    asked: AskedDep,
) -> Response:
    """Predict with one version of a model."""
    return await queued(parts, partial(parts.directory.of_version, name, version), asked)


@router.post(
    "/models/{name}/aliases/{alias}/predict",
    openapi_extra=BODY,
    responses=ANSWER,
    operation_id="predict_with_alias",
)
@http.not_idempotent
@http.streams_body
async def predict_with_alias(
    parts: PartsDep,
    name: ModelName,
    alias: Annotated[Name, Path(description="A name such as `champion`.")],
    asked: AskedDep,
) -> Response:
    """Predict with the version that an alias points to."""
    return await queued(parts, partial(parts.directory.of_alias, name, alias), asked)


@router.post(
    "/runs/{run_id}/predict",
    openapi_extra=BODY,
    responses=ANSWER,
    operation_id="predict_with_run",
)
@http.not_idempotent
@http.streams_body
async def predict_with_run(parts: PartsDep, run_id: schemas.RunId, asked: AskedDep) -> Response:
    """Predict with the best checkpoint of a run."""

    def best() -> registry.Target:
        with reading(parts.engine) as session:
            return registry.target_of_run(session, run_id)

    return await queued(parts, best, asked)


async def queued(parts: Parts, resolve: Callable[[], registry.Target], asked: Asked) -> Response:
    """Answer in a thread, in turn. Raises Overloaded, DeadlineExceeded."""
    return await parts.queue.run(lambda: answer(parts, resolve(), asked))


def answer(parts: Parts, target: registry.Target, asked: Asked) -> Response:
    """Predict the rows of a request and write the answer as the client wants it."""
    began = perf_counter()
    predictor = predictor_of(parts, target)
    rows = _read(parts, predictor, asked)
    found = answered(predictor, asked, rows)

    def again(other: registry.Target) -> list[Answer] | None:
        return computed_again(parts, other, asked, (predictor, rows) if asked.is_file else None)

    seconds = perf_counter() - began
    parts.traffic.answered(target, found, seconds, len(asked.content), again)
    if asked.wants == JSON and (rows.is_mlflow or asked.is_invocation):
        return Response(mlflow.to_json(target.named, found, rows.notes), media_type=JSON)
    content = formats.written(asked.wants, target.named, found, predictor.features)
    return Response(content, media_type=asked.wants)


def predictor_of(parts: Parts, target: registry.Target) -> Predictor:
    """Return who answers for a version. Raises CheckpointDamaged."""
    predictors: Predictors = parts.predictors
    try:
        return predictors.get(target.sha256)
    except CheckpointDamaged:
        parts.traffic.failed(target)
        raise


def computed_again(
    parts: Parts, target: registry.Target, asked: Asked, read: tuple[Predictor, bodies.Rows] | None
) -> list[Answer] | None:
    """Return what another version makes of a request, or None where it cannot read it.

    `read` is what was read of a file, and for whom: its reader has no time to read it again.
    """
    predictor = parts.predictors.get(target.sha256)
    if read is None:
        return answered(predictor, asked, _read(parts, predictor, asked))
    first, rows = read
    known = {column.name for column in first.features.inputs}
    is_known = all(column.name in known for column in predictor.features.inputs)
    return answered(predictor, asked, rows) if is_known else None


def _read(parts: Parts, predictor: Predictor, asked: Asked) -> bodies.Rows:
    if asked.content and asked.is_file:
        reader: files.Files = parts.files
        known = [column.name for column in predictor.features.inputs]
        return reader.read(asked.content, asked.media_type, known)
    return read_text(predictor, asked, parts.settings.max_predict_rows)


def answered(predictor: Predictor, asked: Asked, rows: bodies.Rows) -> list[Answer]:
    """Return one answer for each row of a request, in order."""
    bodies.check_cells(rows.count, len(predictor.features.inputs))
    if asked.explain:
        explanations.check(predictor, rows.count)
    predictions = predictor.predict(
        rows.columns, rows.count, on_problem=asked.on_problem, from_text=rows.is_text
    )
    found = answers(predictions, rows.unreadable)
    if asked.explain:
        explanations.add(found, predictor, rows)
    return found


def read_text(predictor: Predictor, asked: Asked, max_rows: int) -> bodies.Rows:
    """Return the rows of a body that is JSON, NDJSON or CSV."""
    if not asked.content:
        raise BadRequest("The body is empty: send the rows to predict.")
    return texts.read(asked.content, asked.media_type, predictor.features, max_rows)
