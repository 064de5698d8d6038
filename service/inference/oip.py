"""The Open Inference Protocol, version 2, in JSON: one tensor for each column.

Datatypes: FP64 for numbers, BOOL, and BYTES for categories and datetimes (ISO 8601). JSON `null`
is a missing value, and the answer of a row that has none: the tensor `error` then says why. What
else there is to say of rows is in the answer's parameters, as JSON text: they are scalars.
"""

from collections.abc import Iterator, Sequence
from importlib import metadata
from itertools import islice
from typing import Annotated, Any

import orjson
from fastapi import Path, Response
from sqlalchemy import select

from descent.spec import Name
from models.features import Features
from models.predict import Prediction, Predictor
from models.targets import ClassTarget
from models.values import Problem
from service import http
from service.database import reading
from service.dependencies import Parts, PartsDep
from service.inference import bodies, registry, tensors
from service.inference.cache import Predictors
from service.inference.tensors import DATATYPES, InferRequest, WantedTensor

MAX_TOLD = 50  # different problems of one answer; each names all its rows
#: datatype of a tensor of classes that are numbers
CLASS_DATATYPES = {"number": "FP64", "integer": "INT64", "boolean": "BOOL"}

router = http.router("/v2", tags=["open inference protocol"])

ModelName = Annotated[Name, Path(description="The name of a model.")]
Number = Annotated[int, Path(ge=1, lt=2**31, description="The number of a version.")]
Tensor = dict[str, Any]


# ---- the server ----------------------------------------------------------------------------------


@router.get("", operation_id="oip_server")
def server() -> dict[str, Any]:
    """Tell what answers here."""
    try:
        release = metadata.version("descent")
    except metadata.PackageNotFoundError:
        release = "0+unknown"  # run from a source tree that was never installed
    return {"name": "descent", "version": release, "extensions": []}


@router.get("/health/live", operation_id="oip_live")
@http.open_route
def live() -> dict[str, bool]:
    """Tell that the process answers."""
    return {"live": True}


@router.get("/health/ready", operation_id="oip_ready")
@http.open_route
def ready(parts: PartsDep) -> dict[str, bool]:
    """Tell whether models can be asked: 503 where the database does not answer."""
    with reading(parts.engine) as session:
        session.execute(select(1))
    return {"ready": True}


# ---- models --------------------------------------------------------------------------------------


@router.get("/models/{name}", operation_id="oip_model")
def model(parts: PartsDep, name: ModelName) -> dict[str, Any]:
    """Describe the tensors of a model's latest version."""
    return _described(parts, _target(parts, name))


@router.get("/models/{name}/versions/{version}", operation_id="oip_version")
def version(parts: PartsDep, name: ModelName, version: Number) -> dict[str, Any]:
    """Describe the tensors of a version."""
    return _described(parts, _target(parts, name, version))


@router.get("/models/{name}/ready", operation_id="oip_model_ready")
def model_ready(parts: PartsDep, name: ModelName) -> dict[str, Any]:
    """Load the latest version of a model and tell that it is ready."""
    return _loaded(parts, _target(parts, name))


@router.get("/models/{name}/versions/{version}/ready", operation_id="oip_version_ready")
def version_ready(parts: PartsDep, name: ModelName, version: Number) -> dict[str, Any]:
    """Load a version and tell that it is ready."""
    return _loaded(parts, _target(parts, name, version))


@router.post("/models/{name}/infer", operation_id="oip_infer")
@http.not_idempotent
@http.body_limit("predict")
def infer(parts: PartsDep, name: ModelName, asked: InferRequest) -> Response:
    """Predict with the latest version of a model.

    The warnings and errors of rows are in the answer's `parameters.warnings` and
    `parameters.errors`: each is JSON text, a list of objects with code, column, detail and rows.
    """
    return _inferred(parts, _target(parts, name), asked)


@router.post("/models/{name}/versions/{version}/infer", operation_id="oip_version_infer")
@http.not_idempotent
@http.body_limit("predict")
def version_infer(
    parts: PartsDep, name: ModelName, version: Number, asked: InferRequest
) -> Response:
    """Predict with a version; the answer is that of the latest one's route."""
    return _inferred(parts, _target(parts, name, version), asked)


def _target(parts: Parts, name: str, number: int | None = None) -> registry.Target:
    directory = parts.directory
    return directory.of_model(name) if number is None else directory.of_version(name, number)


def _predictor(parts: Parts, target: registry.Target) -> Predictor:
    predictors: Predictors = parts.predictors
    return predictors.get(target.sha256)


def _loaded(parts: Parts, target: registry.Target) -> dict[str, Any]:
    _predictor(parts, target)
    return {"name": target.named["model"], "ready": True}


def _described(parts: Parts, target: registry.Target) -> dict[str, Any]:
    features = _predictor(parts, target).features
    inputs = [
        {"name": column.name, "datatype": DATATYPES.get(column.type, "BYTES"), "shape": [-1]}
        for column in features.inputs
    ]
    outputs = [
        {
            "name": tensor["name"],
            "datatype": tensor["datatype"],
            "shape": [-1, *tensor["shape"][1:]],
        }
        for tensor in _tensors(features, [])
    ]
    return {
        "name": target.named["model"],
        "versions": [str(target.named["version"])],
        "platform": "descent",
        "inputs": inputs,
        "outputs": outputs,
    }


# ---- tensors -------------------------------------------------------------------------------------


def _inferred(parts: Parts, target: registry.Target, asked: InferRequest) -> Response:
    predictor = _predictor(parts, target)
    rows = tensors.read(asked.inputs, predictor.features, parts.settings.max_predict_rows)
    bodies.check_cells(rows.count, len(predictor.features.inputs))
    predictions = predictor.predict(rows.columns, rows.count)
    found = list(_tensors(predictor.features, predictions))
    if asked.outputs is not None:
        found = _wanted(found, asked.outputs)
    answer = {
        "model_name": target.named["model"],
        "model_version": str(target.named["version"]),
        "outputs": found,
    }
    if asked.id is not None:
        answer["id"] = asked.id
    told = {
        "warnings": _told([row.warnings for row in predictions]),
        "errors": _told([[row.error] if row.error else [] for row in predictions]),
    }
    if parameters := {name: text for name, text in told.items() if text}:
        answer["parameters"] = parameters
    return Response(orjson.dumps(answer), media_type="application/json")


def _told(problems: list[Sequence[Problem]]) -> str:
    """Return each problem with the rows that have it, as JSON text; empty where there is none."""
    rows: dict[Problem, list[int]] = {}
    for row, found in enumerate(problems):
        for problem in found:
            rows.setdefault(problem, []).append(row)
    told: list[dict[str, Any]] = [
        problem.to_json() | {"rows": places} for problem, places in islice(rows.items(), MAX_TOLD)
    ]
    if len(rows) > MAX_TOLD:
        rest = len(rows) - MAX_TOLD
        told.append({"code": "more", "detail": f"{rest} further problems are not shown"})
    return orjson.dumps(told).decode() if told else ""


def _wanted(found: list[Tensor], wanted: list[WantedTensor]) -> list[Tensor]:
    known = [tensor["name"] for tensor in found]
    for place, tensor in enumerate(wanted):
        if tensor.name not in known:
            raise tensors.unknown(tensor.name, known, f"/outputs/{place}/name")
    names = {tensor.name for tensor in wanted}
    return [tensor for tensor in found if tensor["name"] in names]


def _tensors(features: Features, predictions: list[Prediction]) -> Iterator[Tensor]:
    goal = features.target
    if isinstance(goal, ClassTarget):
        datatype = CLASS_DATATYPES.get(goal.type, "BYTES")
        yield _tensor(goal.name, datatype, [row.value for row in predictions])
        shares = [
            (row.probabilities or {}).get(label) for row in predictions for label in goal.labels
        ]
        yield _tensor("probabilities", "FP64", shares, len(goal.labels))
    elif len(goal.names) == 1:
        yield _tensor(goal.names[0], "FP64", [row.value for row in predictions])
    else:
        for name in goal.names:
            values = [
                row.value.get(name) if isinstance(row.value, dict) else None for row in predictions
            ]
            yield _tensor(name, "FP64", values)
    if any(row.error for row in predictions):
        errors = [row.error.detail if row.error else "" for row in predictions]
        yield _tensor("error", "BYTES", errors)


def _tensor(name: str, datatype: str, data: list[Any], width: int | None = None) -> Tensor:
    shape = [len(data)] if width is None else [len(data) // width, width]
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}
