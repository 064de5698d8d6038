"""The web page at `/`, the page `/docs`, and the OpenAPI document.

`web/build.py` makes the web page. These files need no key: they contain no data, and the requests
that read the data need one. FastAPI derives the document from the routes; `describe` adds the parts
that all routes share, such as the key and the problems.
"""

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse
from fastapi.routing import iter_route_contexts
from pydantic.json_schema import models_json_schema
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from descent import schemas as bodies
from descent.schemas import protocols
from service.http.resources import etag_of, not_modified
from service.http.strict_route import Marks, marks_of, open_route, router

STATIC = Path(__file__).parent.parent / "static"
PAGE = Path(__file__).parent.parent / "page"  # the output of web/build.py
#: No inline code, and nothing from other hosts. The page may draw images itself.
PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
    " connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
# Swagger UI sets inline styles and embeds its icons. All other files are from this service.
DOCS_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none';"
    " frame-ancestors 'none'"
)
IMMUTABLE = "public, max-age=31536000, immutable"  # the names of these files hold their hash
#: encoding that a browser accepts → the suffix of the file with this compression, best first
COMPRESSED = {"br": ".br", "gzip": ".gz"}
MEDIA_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
BYTES = "application/octet-stream"

#: name → model of every body in the API
BODIES = vars(bodies) | vars(protocols)
REF = "#/components/schemas/{model}"
_REFERENCE = re.compile(r'"#/components/schemas/([A-Za-z0-9_]+)"')
#: FastAPI's own error bodies, which our routes never send
FOREIGN = ("HTTPValidationError", "ValidationError")
DESCRIPTION = (
    "Upload a table, train a neural network on it, watch the loss fall, get predictions."
    " Errors are RFC 9457 problems with a stable `code`."
)
IDEMPOTENCY_KEY = {
    "description": (
        "Makes it safe to send the request again: for 24 h the same key with the same body gets"
        " the stored answer and `Idempotency-Replayed: true`, with another body 422, and 409 while"
        " the first request is in flight. Only success is stored: a request that is refused or"
        " fails frees its key."
    ),
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
}
IF_MATCH = {
    "description": (
        "The ETag of the resource to change: 412 if the resource has changed since. Required to"
        " move an alias (428)."
    ),
    "schema": {"type": "string"},
}
IF_NONE_MATCH = {
    "description": "The ETag of your copy: 304 if the resource has not changed.",
    "schema": {"type": "string"},
}
ETAG = {"description": "Identifies this state of the resource.", "schema": {"type": "string"}}
NOT_MODIFIED = "The resource has not changed."

pages = router()


@pages.get("/", include_in_schema=False)
@open_route
def home(request: Request) -> Response:
    """Return the page."""
    text = page_in(PAGE)
    headers = {"Content-Security-Policy": PAGE_CSP, "Cache-Control": "no-cache"}
    headers["ETag"] = etag_of(text)
    if not_modified(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return HTMLResponse(text, headers=headers)


@pages.get("/docs", include_in_schema=False)
@open_route
def docs() -> HTMLResponse:
    csp = {"Content-Security-Policy": DOCS_CSP}
    return HTMLResponse((STATIC / "docs.html").read_text(), headers=csp)


def page_in(folder: Path) -> str:
    """Return the page in a folder, or a page with instructions to build it."""
    built = folder / "index.html"
    return (built if built.exists() else STATIC / "home.html").read_text()


def assets() -> list[Mount]:
    """Return the mounts of the files that the pages load: ours, and Swagger UI's."""
    # Only the files of the package are needed, so it is not imported.
    bundle = find_spec("fastapi_offline")
    folders = list(bundle.submodule_search_locations or []) if bundle else []
    mounts = [
        Mount("/assets", BuiltFiles(directory=PAGE / "assets", check_dir=False), name="page"),
        Mount("/docs/static", StaticFiles(directory=STATIC), name="static"),
    ]
    if folders:
        files = StaticFiles(directory=Path(folders[0]) / "static")
        mounts.append(Mount("/docs/assets", files, name="assets"))
    return mounts


class BuiltFiles(StaticFiles):
    """Files that never change, which the build has compressed; the folder may be missing."""

    async def check_config(self) -> None:
        """Accept that the folder is missing: then each file in it is not found."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        accepted = Headers(scope=scope).get("accept-encoding", "")
        for encoding, ending in COMPRESSED.items():
            if not _accepts(accepted, encoding):
                continue
            try:
                response = await super().get_response(path + ending, scope)
            except HTTPException:
                break  # then the file exists in no other encoding either
            response.headers["Content-Encoding"] = encoding
            response.headers["Content-Type"] = MEDIA_TYPES.get(Path(path).suffix, BYTES)
            return _kept(response)
        return _kept(await super().get_response(path, scope))


def _accepts(header: str, encoding: str) -> bool:
    for part in header.split(","):
        name, _, quality = part.replace(" ", "").partition(";")
        if name.lower() == encoding:
            return quality.rstrip("0.") != "q="  # "q=0" and "q=0.0" refuse the encoding
    return False


def _kept(response: Response) -> Response:
    response.headers["Cache-Control"] = IMMUTABLE
    response.headers["Vary"] = "Accept-Encoding"
    return response


# ---- OpenAPI ------------------------------------------------------------------------------------


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
    marks = _marks_of_operations(app)
    for path, method, operation in _operations(document):
        _complete(operation, method, marks[path, method])
    _add_models(schemas, set(_REFERENCE.findall(json.dumps(document))) - set(schemas))
    return document


def _complete(operation: dict[str, Any], method: str, marks: Marks) -> None:
    """Add the properties that the marks of a route give it, and the problems of all routes."""
    if marks.is_open:
        operation["security"] = []
    responses = operation.setdefault("responses", {})
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    headers = {}
    if method == "post" and marks.is_idempotent:
        headers["Idempotency-Key"] = IDEMPOTENCY_KEY
    if marks.heeds_match:
        headers["If-Match"] = IF_MATCH
    if marks.has_etag:
        headers["If-None-Match"] = IF_NONE_MATCH
        responses["200"]["headers"] = {"ETag": ETAG}
        responses["304"] = {"description": NOT_MODIFIED, "headers": {"ETag": ETAG}}
    if headers:
        operation.setdefault("parameters", []).extend(map(_header, headers, headers.values()))
    responses["default"] = _problem_response()


def _header(name: str, about: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, **about}


def _add_models(schemas: dict[str, Any], names: set[str]) -> None:
    """Add the schemas of bodies that routes read or write themselves and name in a `$ref`."""
    wanted = [(BODIES[name], "validation") for name in sorted(names)]
    if wanted:
        _refs, found = models_json_schema(wanted, ref_template=REF)  # type: ignore[arg-type]
        schemas.update({name: each for name, each in found["$defs"].items() if name not in schemas})


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _marks_of_operations(app: FastAPI) -> dict[tuple[str, str], Marks]:
    return {
        (context.path_format or "", method.lower()): marks_of(context.endpoint)
        for context in iter_route_contexts(app.routes)
        if context.endpoint is not None
        for method in context.methods or ()
    }


def _problem_response() -> dict[str, Any]:
    schema = {"$ref": REF.format(model="Problem")}
    return {
        "description": "A problem: its `code` identifies it, and its `detail` explains it.",
        "content": {"application/problem+json": {"schema": schema}},
    }
