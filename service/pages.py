"""The few pages for people: the shell of /docs and, until there is a dashboard, what `/` says."""

from importlib.util import find_spec
from pathlib import Path

from fastapi.responses import HTMLResponse
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from service.http import open_route, router

STATIC = Path(__file__).parent / "static"
# Swagger UI sets inline styles and embeds its icons; all else comes from here or not at all.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none';"
    " frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": CSP}

pages = router()


@pages.get("/", include_in_schema=False)
@open_route
def home() -> HTMLResponse:
    return HTMLResponse((STATIC / "home.html").read_text(), headers=HEADERS)


@pages.get("/docs", include_in_schema=False)
@open_route
def docs() -> HTMLResponse:
    return HTMLResponse((STATIC / "docs.html").read_text(), headers=HEADERS)


def assets() -> list[Mount]:
    """Return the mounts of the files that the pages load: ours, and Swagger UI's."""
    # Found without an import: the package's code is not needed, only the files that it carries.
    bundle = find_spec("fastapi_offline")
    folders = list(bundle.submodule_search_locations or []) if bundle else []
    mounts = [Mount("/docs/static", StaticFiles(directory=STATIC), name="static")]
    if folders:
        files = StaticFiles(directory=Path(folders[0]) / "static")
        mounts.append(Mount("/docs/assets", files, name="assets"))
    return mounts
