"""The OpenAPI document of a model version, with the columns, types and ranges of that version.

It describes well-formed rows. The service answers other rows too, with warnings, or with errors if
`on_problem=error`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Path, Request, Response

from descent.spec import Name
from models.predict.intervals import LEAST, MOST
from models.predict.values import moment_text
from models.reading import Reading
from service.http import strict_route
from service.http.resources import ReadSession, json_unless_known
from service.registry import versions

MAX_LISTED = 50  # categories of a column that the document lists; the signature has all of them
MAX_CLASSES = 1000  # classes whose probabilities the document lists
JSON = "application/json"

Schema = dict[str, Any]

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
    return json_unless_known(request, document)


def openapi_of(
    model: str, version: int, signature: Mapping[str, Any], *, root: str = ""
) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of a version; `root` is the path prefix of the service."""
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
        "summary": "Predict each row, in order.",
        "parameters": [
            {
                "name": "on_problem",
                "in": "query",
                "description": "`warn` imputes a value that does not fit its column and adds a "
                "warning; `error` makes it the row's error.",
                "schema": {"type": "string", "enum": ["warn", "error"], "default": "warn"},
            },
            {
                "name": "explain",
                "in": "query",
                "description": "Whether each prediction lists the contribution of each column.",
                "schema": {"type": "boolean", "default": False},
            },
            {
                "name": "interval",
                "in": "query",
                "description": "The level, from 0.5 to 0.99, of an interval around each predicted"
                " number, or of a set of classes; 0.9 holds the true value in 90 % of the rows.",
                "schema": {"type": "number", "minimum": LEAST, "maximum": MOST},
            },
        ],
        "requestBody": {"required": True, "content": {JSON: {"schema": _ref("Request")}}},
        "responses": {
            "200": {
                "description": "One prediction for each row.",
                "content": {JSON: {"schema": _ref("Predictions")}},
            },
            "default": {
                "description": "The error of the request.",
                "content": {"application/problem+json": {"schema": _ref("Problem")}},
            },
        },
    }


# ---- requests -----------------------------------------------------------------------------------


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
        "description": "The rows as columns; all columns have the same length.",
        "properties": lists,
        "required": [column["name"] for column in inputs if column["required"]],
        "additionalProperties": {"type": "array", "description": "Ignored with a warning."},
    }


def _request() -> Schema:
    rows: Schema = {"type": "array", "items": _ref("Row")}
    objects = [
        {"type": "object", "properties": properties, "required": list(properties)}
        | {"additionalProperties": False}
        for properties in ({"rows": rows}, {"columns": _ref("Columns")})
    ]
    return {"oneOf": [*objects, rows | {"minItems": 1}]}


def _value(column: Mapping[str, Any]) -> Schema:
    """Describe a value; null is allowed if the column had missing values in training."""
    kinds: dict[str, Schema] = {
        "number": {"type": "number"},
        "integer": {"type": "number"},
        "boolean": {"type": "boolean"},
        "datetime": {"type": "string", "format": "date-time"},
    }
    schema = kinds.get(column["type"]) or _category(column)
    if not column["required"]:
        schema = {**schema, "type": [schema["type"], "null"]}
    sentences = [*_ranges(column), _missing(column), *_spelling(column)]
    return schema | {"description": " ".join(sentences)}


def _category(column: Mapping[str, Any]) -> Schema:
    # No enum: other categories are accepted too, with a warning.
    values = [entry["value"] for entry in column.get("categories") or []]
    return {"type": "string", "examples": values[:MAX_LISTED]}


def _ranges(column: Mapping[str, Any]) -> list[str]:
    categories = column.get("categories")
    if categories is not None:
        known = len(categories)
        return [f"One of {known} categories of the training rows; others get a warning."]
    low, high = column.get("min"), column.get("max")
    if low is None or high is None:
        return []
    shown = moment_text if column["type"] == "datetime" else "{:g}".format
    found = [f"Training rows: {shown(low)} to {shown(high)}; other values get a warning."]
    if clip := column.get("clip"):
        found.append(f"Clipped to {shown(clip['min'])} to {shown(clip['max'])}.")
    return found


def _spelling(column: Mapping[str, Any]) -> list[str]:
    reading = column.get("reading")
    told = Reading.from_json(reading).describe() if reading else ""
    return [f"As text: {told}."] if told else []


def _missing(column: Mapping[str, Any]) -> str:
    stand_in = {
        "other": "is treated like the missing and rare categories of the training rows",
        "shares": "is replaced by the training rows' mix of categories",
        "mean": "is replaced by the training rows' mean",
    }
    return f"A missing value {stand_in.get(column.get('missing_as') or '', 'is imputed')}."


# ---- answers ------------------------------------------------------------------------------------


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
    properties = {"value": value | {"description": "null if the row has an error"}}
    if classes is not None:
        properties["probabilities"] = _probabilities(classes)
        properties["set"] = {"type": "array", "items": {"enum": classes}}
    else:
        properties["interval"] = _interval(outputs)
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


def _interval(outputs: list[dict[str, Any]]) -> Schema:
    number = {"type": "number"}
    one: Schema = {"type": "array", "items": number, "minItems": 2, "maxItems": 2}
    if len(outputs) == 1:
        return one
    return {"type": "object", "properties": {output["name"]: one for output in outputs}}


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
