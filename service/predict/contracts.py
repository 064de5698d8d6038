"""The OpenAPI document of one model version: its own columns, types and ranges instead of any.

Says what a well-formed row is. A row that is not is answered all the same, with warnings, unless
`on_problem=error` asks for errors.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Path, Request, Response

from descent.spec import Name
from models.predict.values import moment_text
from service.http import strict_route
from service.http.resources import ReadSession, etag_of, json_response, not_modified
from service.registry import versions

#: Categories of a column that the document lists; the signature has them all.
MAX_LISTED = 50
#: Classes that have a probability of their own in the document.
MAX_CLASSES = 1000
JSON = "application/json"

Schema = dict[str, Any]


def openapi_of(
    model: str, version: int, signature: Mapping[str, Any], *, root: str = ""
) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a version; `root` is the path below which we are."""
    path = f"/api/v1/models/{model}/versions/{version}/predict"
    outputs = ", ".join(output["name"] for output in signature["outputs"])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"{model}, version {version}",
            "version": str(version),
            "description": f"Predicts {outputs} with one immutable version of a model.",
        },
        "servers": [{"url": root or "/"}],
        "security": [{"key": []}],
        "paths": {path: {"post": _operation()}},
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                "Row": _row(signature["inputs"]),
                "Columns": _columns(signature["inputs"]),
                "Request": _request(),
                "Prediction": _prediction(signature["outputs"]),
                "Predictions": _predictions(model, version),
                "Notice": _notice(),
                "Problem": _problem(),
            },
        },
    }


def _operation() -> Schema:
    return {
        "operationId": "predict",
        "summary": "Predict rows, each of them, in order.",
        "parameters": [
            {
                "name": "on_problem",
                "in": "query",
                "description": "Whether a value that does not fit is imputed with a warning, or "
                "is its row's error.",
                "schema": {"type": "string", "enum": ["warn", "error"], "default": "warn"},
            },
            {
                "name": "explain",
                "in": "query",
                "description": "Whether each prediction tells what each column contributed.",
                "schema": {"type": "boolean", "default": False},
            },
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": _ref("Request")}}},
        "responses": {
            "200": {
                "description": "One prediction for each row.",
                "content": {JSON: {"schema": _ref("Predictions")}},
            },
            "default": {
                "description": "What is wrong with the request.",
                "content": {"application/problem+json": {"schema": _ref("Problem")}},
            },
        },
    }


# ---- what goes in --------------------------------------------------------------------------------


def _row(inputs: list[dict[str, Any]]) -> Schema:
    return {
        "type": "object",
        "properties": {column["name"]: _value(column) for column in inputs},
        "required": [column["name"] for column in inputs if column["required"]],
        "additionalProperties": {"description": "Ignored with a warning."},
    }


def _columns(inputs: list[dict[str, Any]]) -> Schema:
    lists = {column["name"]: {"type": "array", "items": _value(column)} for column in inputs}
    return {
        "type": "object",
        "description": "The same column by column; all have the same length.",
        "properties": lists,
        "required": [column["name"] for column in inputs if column["required"]],
        "additionalProperties": {"type": "array", "description": "Ignored with a warning."},
    }


def _request() -> Schema:
    rows = {"rows": {"type": "array", "items": _ref("Row")}}
    return {
        "oneOf": [
            {"type": "object", "properties": properties, "required": list(properties)}
            | {"additionalProperties": False}
            for properties in (rows, {"columns": _ref("Columns")})
        ]
    }


def _value(column: Mapping[str, Any]) -> Schema:
    """Describe a value; null is allowed where training rows had gaps too."""
    kinds: dict[str, Schema] = {
        "number": {"type": "number"},
        "integer": {"type": "number"},
        "boolean": {"type": "boolean"},
        "datetime": {"type": "string", "format": "date-time"},
    }
    schema = kinds.get(column["type"]) or _category(column)
    if not column["required"]:
        schema = {**schema, "type": [schema["type"], "null"]}
    told = [*_ranges(column), _missing(column)]
    return schema | {"description": " ".join(told)}


def _category(column: Mapping[str, Any]) -> Schema:
    # No enum: another category is answered too, with a warning.
    values = [entry["value"] for entry in column.get("categories") or []]
    return {"type": "string", "examples": values[:MAX_LISTED]}


def _ranges(column: Mapping[str, Any]) -> list[str]:
    categories = column.get("categories")
    if categories is not None:
        known = len(categories)
        return [f"One of {known} categories that training has seen; another gets a warning."]
    low, high = column.get("min"), column.get("max")
    if low is None or high is None:
        return []
    shown = moment_text if column["type"] == "datetime" else "{:g}".format
    told = [f"Training rows: {shown(low)} to {shown(high)}; outside gets a warning."]
    if clip := column.get("clip"):
        told.append(f"Clipped to {shown(clip['min'])} to {shown(clip['max'])}.")
    return told


def _missing(column: Mapping[str, Any]) -> str:
    stand_in = {
        "other": "counts like the missing and rare ones of the training rows",
        "shares": "is replaced by the training rows' mix of categories",
        "mean": "is replaced by the training rows' mean",
    }
    return f"A missing value {stand_in.get(column.get('missing_as') or '', 'is imputed')}."


# ---- what comes out ------------------------------------------------------------------------------


def _prediction(outputs: list[dict[str, Any]]) -> Schema:
    classes = outputs[0].get("classes")
    if classes is not None:
        value: Schema = {"enum": [*classes, None]}
    elif len(outputs) == 1:
        value = {"type": ["number", "null"]}
    else:
        names = [output["name"] for output in outputs]
        value = {
            "type": ["object", "null"],
            "properties": {name: {"type": "number"} for name in names},
            "required": names,
        }
    properties = {"value": value | {"description": "null where there is an error"}}
    if classes is not None:
        properties["probabilities"] = _probabilities(classes)
    properties["explanation"] = _explanation(outputs)
    properties["warnings"] = {"type": "array", "items": _ref("Notice")}
    properties["error"] = _ref("Notice")
    return {"type": "object", "properties": properties, "required": ["value"]}


def _probabilities(classes: list[Any]) -> Schema:
    share = {"type": "number", "minimum": 0, "maximum": 1}
    labels = [str(each).lower() if isinstance(each, bool) else str(each) for each in classes]
    return {
        "type": "object",
        "properties": dict.fromkeys(labels[:MAX_CLASSES], share),
        "additionalProperties": share,
    }


def _explanation(outputs: list[dict[str, Any]]) -> Schema:
    one: Schema = {
        "type": "object",
        "properties": {
            "base": {"type": "number"},
            "contributions": {"type": "object", "additionalProperties": {"type": "number"}},
        },
        "required": ["base", "contributions"],
    }
    if len(outputs) == 1:
        return one
    return {"type": "object", "properties": {output["name"]: one for output in outputs}}


def _predictions(model: str, version: int) -> Schema:
    return {
        "type": "object",
        "properties": {
            "model": {"const": model},
            "version": {"const": version},
            "predictions": {"type": "array", "items": _ref("Prediction")},
        },
        "required": ["model", "version", "predictions"],
    }


def _notice() -> Schema:
    names = ("column", "code", "detail")
    return {
        "type": "object",
        "properties": {name: {"type": "string"} for name in names},
        "required": ["code", "detail"],
    }


def _problem() -> Schema:
    return {
        "type": "object",
        "properties": {
            "status": {"type": "integer"},
            **{name: {"type": "string"} for name in ("type", "title", "code", "detail")},
        },
        "required": ["status", "code"],
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


router = strict_route.router()


@router.get(
    "/models/{name}/versions/{version}/openapi.json",
    response_model=dict[str, Any],
    operation_id="get_model_contract",
)
@strict_route.has_etag
def get_contract(
    request: Request,
    session: ReadSession,
    name: Annotated[Name, Path(description="The name of a model.")],
    version: Annotated[int, Path(ge=1, lt=2**31, description="The number of a version.")],
) -> Response:
    """Describe how to predict with a version, in OpenAPI 3.1, with its own columns and types."""
    row = versions.find_version(session, name, version)
    root = request.scope.get("root_path", "")
    document = openapi_of(name, version, row.signature, root=root)
    etag = etag_of(document)
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    return json_response(document, headers={"ETag": etag})
