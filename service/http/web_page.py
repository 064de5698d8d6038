"""The web page at `/`, which the build makes, and the frame of /docs.

These files need no key: they contain no data, and the calls that get the data need one.
"""

from importlib.util import find_spec
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from service.http.etags import etag_of, not_modified
from service.http.strict_route import open_route, router

STATIC = Path(__file__).parent.parent / "static"
PAGE = Path(__file__).parent.parent / "page"  # web/build.py makes it
#: No inline code, and nothing from other hosts. The page may draw images itself.
PAGE_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
    " connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
# Swagger UI sets inline styles and embeds its icons. Everything else must come from this service.
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
            return quality.rstrip("0.") != "q="  # "q=0" and "q=0.0" say no
    return False


def _kept(response: Response) -> Response:
    response.headers["Cache-Control"] = IMMUTABLE
    response.headers["Vary"] = "Accept-Encoding"
    return response
