"""Completes the OpenAPI document that FastAPI derives from the routes.

What every route does (key, problems) is said here once instead of at each of them.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts
from pydantic.json_schema import models_json_schema

from descent import schemas as bodies
from service.http import marks_of

REF = "#/components/schemas/{model}"
_REFERENCE = re.compile(r'"#/components/schemas/([A-Za-z0-9_]+)"')
#: FastAPI's own error bodies, which no route of ours sends
FOREIGN = ("HTTPValidationError", "ValidationError")
DESCRIPTION = (
    "Upload a table, train a neural network on it, watch the loss fall, ask for predictions."
    " Errors are RFC 9457 problems with a stable `code`."
)


def describe(app: FastAPI, version: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of the service."""
    document = get_openapi(
        title="descent",
        version=version,
        description=DESCRIPTION,
        routes=app.routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    components = document.setdefault("components", {})
    components["securitySchemes"] = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, `dsc_…`."}
    }
    schemas = components.setdefault("schemas", {})
    for name in FOREIGN:
        schemas.pop(name, None)
    _add_models(schemas, {"Problem", "ErrorItem"})
    document["security"] = [{"bearer": []}]
    is_open = _open_operations(app)
    for path, method, operation in _operations(document):
        if (path, method) in is_open:
            operation["security"] = []
        responses = operation.setdefault("responses", {})
        if "HTTPValidationError" in str(responses.get("422")):
            del responses["422"]
        responses["default"] = _problem_response()
    _add_models(schemas, set(_REFERENCE.findall(json.dumps(document))) - set(schemas))
    return document


def _add_models(schemas: dict[str, Any], names: set[str]) -> None:
    """Add bodies that a route names itself, because it reads or writes them without FastAPI."""
    wanted = [(getattr(bodies, name), "validation") for name in sorted(names)]
    if wanted:
        _refs, found = models_json_schema(wanted, ref_template=REF)  # type: ignore[arg-type]
        schemas.update({name: each for name, each in found["$defs"].items() if name not in schemas})


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _open_operations(app: FastAPI) -> set[tuple[str, str]]:
    return {
        (context.path_format or "", method.lower())
        for context in iter_route_contexts(app.routes)
        if context.endpoint is not None and marks_of(context.endpoint).is_open
        for method in context.methods or ()
    }


def _problem_response() -> dict[str, Any]:
    schema = {"$ref": REF.format(model="Problem")}
    return {
        "description": "A problem: its `status` says what kind, its `code` says which one.",
        "content": {"application/problem+json": {"schema": schema}},
    }
