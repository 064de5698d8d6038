"""The Open Inference Protocol, version 2: one tensor for each column, in JSON or as raw bytes.

Datatypes: FP64 for numbers, BOOL, and BYTES for categories and datetimes (ISO 8601). JSON `null`,
NaN and an empty text are missing values. BYTES may hold any column of a model that knows how the
text of its training table was read. A row without an answer has `null`, or in raw bytes NaN, an
empty text, 0 or false; the tensor `error` gives the reason. Warnings and errors of rows are in the
answer's parameters as JSON text, because parameters are scalars. A target keeps its name: if it is
named `error` or `probabilities`, the tensor of that name becomes `error_2` or `probabilities_2`.
"""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import orjson
from anyio.to_thread import run_sync
from fastapi import Depends, Header, Path, Request, Response

from descent.schemas.protocols import InferAnswer, InferRequest
from descent.spec import Name
from models.predict.predictor import Predictor
from models.predict.values import ValueProblem
from service.errors import Busy, UnsupportedMedia
from service.http import strict_route
from service.http.resources import ProbesDep
from service.predict import bodies
from service.predict.answers import remarks
from service.predict.routes import Inference, InferenceDep
from service.protocols import tensors
from service.protocols.tensors import DATATYPES, Tensor, TensorBody
from service.registry import versions
from service.settings import version as own_version
from service.storage.database import reading

JSON, RAW = "application/json", "application/octet-stream"
MAX_DIGITS = 9  # digits of a version's number; a longer text is an alias

router = strict_route.router("/v2", tags=["open inference protocol"])

ModelName = Annotated[Name, Path(description="The name of a model.")]
Version = Annotated[Name, Path(description="The number of a version, or an alias.")]

_FILE = {"schema": {"type": "string", "format": "binary"}}
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": {"$ref": "#/components/schemas/InferRequest"}},
            RAW: _FILE,
        },
    }
}
ANSWER: dict[int | str, dict[str, Any]] = {200: {"model": InferAnswer, "content": {RAW: _FILE}}}


# ---- the server ----------------------------------------------------------------------------------


@router.get("", operation_id="oip_server")
def server() -> dict[str, Any]:
    """Return the name, the version and the extensions of the server."""
    return {"name": "descent", "version": own_version(), "extensions": ["binary_tensor_data"]}


@router.get("/health/live", operation_id="oip_live")
@strict_route.open_route
async def live() -> dict[str, bool]:
    """Answer if the process is alive."""
    return {"live": True}


@router.get("/health/ready", operation_id="oip_ready")
@strict_route.open_route
async def ready(probes: ProbesDep) -> dict[str, bool]:
    """Answer if predictions are possible; 503 if the database does not answer."""
    database = await probes.part("database")
    if database.state != "ok":
        raise Busy(database.detail, code="database_unavailable")
    return {"ready": True}


# ---- models --------------------------------------------------------------------------------------


@router.get("/models/{name}", operation_id="oip_model")
def model(inference: InferenceDep, name: ModelName) -> dict[str, Any]:
    """Describe the tensors of a model's latest version."""
    return _described(inference, _target(inference, name))


@router.get("/models/{name}/versions/{version}", operation_id="oip_version")
def version(inference: InferenceDep, name: ModelName, version: Version) -> dict[str, Any]:
    """Describe the tensors of a version."""
    return _described(inference, _target(inference, name, version))


@router.get("/models/{name}/ready", operation_id="oip_model_ready")
def model_ready(inference: InferenceDep, name: ModelName) -> dict[str, Any]:
    """Load the latest version of a model and answer when it is ready."""
    return _loaded(inference, _target(inference, name))


@router.get("/models/{name}/versions/{version}/ready", operation_id="oip_version_ready")
def version_ready(inference: InferenceDep, name: ModelName, version: Version) -> dict[str, Any]:
    """Load a version and answer when it is ready."""
    return _loaded(inference, _target(inference, name, version))


async def asked(
    request: Request,
    length: Annotated[
        str | None,
        Header(
            alias=tensors.HEADER,
            description="The length of the JSON document in bytes, if raw tensors follow it.",
        ),
    ] = None,
) -> TensorBody:
    _check_media_type(request)
    content = await strict_route.read_body(request, "predict")
    is_large = len(content) > strict_route.PARSED_INLINE
    parse = run_sync(tensors.parse, content, length) if is_large else None
    return await parse if parse else tensors.parse(content, length)


AskedDep = Annotated[TensorBody, Depends(asked)]


@router.post("/models/{name}/infer", openapi_extra=BODY, responses=ANSWER, operation_id="oip_infer")
@strict_route.not_idempotent
@strict_route.streams_body
async def infer(inference: InferenceDep, name: ModelName, asked: AskedDep) -> Response:
    """Predict with the latest version of a model.

    The warnings and errors of rows are in the answer's `parameters.warnings` and
    `parameters.errors`: each is JSON text, a list of objects with code, column, detail and rows.
    """
    return await _queued(inference, partial(_target, inference, name), asked)


@router.post(
    "/models/{name}/versions/{version}/infer",
    openapi_extra=BODY,
    responses=ANSWER,
    operation_id="oip_version_infer",
)
@strict_route.not_idempotent
@strict_route.streams_body
async def version_infer(
    inference: InferenceDep, name: ModelName, version: Version, asked: AskedDep
) -> Response:
    """Predict with a version; the answer has the same form as with the latest version."""
    return await _queued(inference, partial(_target, inference, name, version), asked)


def _check_media_type(request: Request) -> None:
    """Raise UnsupportedMedia for other types; Triton's client sends no Content-Type."""
    given = request.headers.get("content-type", JSON)
    if given.partition(";")[0].strip().lower() not in (JSON, RAW):
        raise UnsupportedMedia(f"Send the tensors as {JSON} or {RAW}, got {given[:100]!r}.")
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnsupportedMedia(f"Tensors cannot be compressed, got {encoding[:40]!r}.")


def _target(inference: Inference, name: str, version: str | None = None) -> versions.Target:
    if version is None:
        return inference.directory.of_model(name)
    if version.isdigit() and len(version) <= MAX_DIGITS:
        return inference.directory.of_version(name, int(version))
    return inference.directory.of_alias(name, version)


def _predictor(inference: Inference, target: versions.Target) -> Predictor:
    return inference.predictors.get(target.sha256)


def _loaded(inference: Inference, target: versions.Target) -> dict[str, Any]:
    _predictor(inference, target)
    return {"name": target.named["model"], "ready": True}


def _described(inference: Inference, target: versions.Target) -> dict[str, Any]:
    name = target.named["model"]
    with reading(inference.engine) as session:
        numbers = versions.version_numbers(session, name)
    features = _predictor(inference, target).features
    inputs = [
        {"name": column.name, "datatype": DATATYPES.get(column.type, "BYTES"), "shape": [-1]}
        for column in features.inputs
    ]
    answered = [
        {
            "name": tensor["name"],
            "datatype": tensor["datatype"],
            "shape": [-1, *tensor["shape"][1:]],
        }
        for tensor in tensors.tensors_of(features, [])
    ]
    return {
        "name": name,
        "versions": [str(number) for number in numbers],
        "platform": "descent",
        "inputs": inputs,
        "outputs": answered,
    }


# ---- tensors -------------------------------------------------------------------------------------


async def _queued(
    inference: Inference, resolve: Callable[[], versions.Target], asked: TensorBody
) -> Response:
    return await inference.executor.run(lambda: _inferred(inference, resolve(), asked))


def _inferred(inference: Inference, target: versions.Target, asked: TensorBody) -> Response:
    predictor = _predictor(inference, target)
    rows = tensors.read(asked, predictor.features, inference.settings.max_predict_rows)
    bodies.check_cells(rows.count, len(predictor.features.inputs))
    predictions = predictor.predict(rows.columns, rows.count)
    values = list(tensors.tensors_of(predictor.features, predictions))
    found = _wanted(values, tensors.errors_of(predictor.features, predictions), asked.request)
    answer = {
        "model_name": target.named["model"],
        "model_version": str(target.named["version"]),
        "outputs": [tensor for tensor, _is_raw in found],
    }
    if asked.request.id is not None:
        answer["id"] = asked.request.id
    problems = {
        "warnings": remarks([row.warnings for row in predictions], ValueProblem.to_json),
        "errors": remarks(
            [[row.error] if row.error else [] for row in predictions], ValueProblem.to_json
        ),
    }
    if parameters := {name: orjson.dumps(rows).decode() for name, rows in problems.items() if rows}:
        answer["parameters"] = parameters
    return _sent(answer, [tensor for tensor, is_raw in found if is_raw])


def _sent(answer: dict[str, Any], raw: list[Tensor]) -> Response:
    """Return the answer; the data of the `raw` tensors follow the JSON document as bytes."""
    pieces = []
    for tensor in raw:
        pieces.append(tensors.encode(tensor.pop("data"), tensor["datatype"]))
        tensor["parameters"] = {tensors.SIZE: len(pieces[-1])}
    document = orjson.dumps(answer)
    if not raw:
        return Response(document, media_type=JSON)
    headers = {tensors.HEADER: str(len(document))}
    return Response(b"".join([document, *pieces]), media_type=RAW, headers=headers)


def _wanted(
    found: list[Tensor], errors: Tensor, request: InferRequest
) -> list[tuple[Tensor, bool]]:
    """Return the tensors of the answer, each with whether it is sent as raw bytes.

    The tensor of errors is included if a row has an error or the client requests it.
    """
    as_raw = (request.parameters or {}).get("binary_data_output") is True
    if request.outputs is None:
        return [(tensor, as_raw) for tensor in ([*found, errors] if any(errors["data"]) else found)]
    known = [tensor["name"] for tensor in (*found, errors)]
    for place, tensor in enumerate(request.outputs):
        if tensor.name not in known:
            raise tensors.unknown(tensor.name, known, f"/outputs/{place}/name")
    wanted = {
        tensor.name: (tensor.parameters or {}).get("binary_data", as_raw) is True
        for tensor in request.outputs
    }
    everything = (*found, errors)
    return [(tensor, wanted[tensor["name"]]) for tensor in everything if tensor["name"] in wanted]
