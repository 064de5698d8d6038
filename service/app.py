"""Puts the service together: the only place where the parts meet."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import structlog
from anyio.to_thread import run_sync
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute
from starlette.types import Receive, Scope, Send

from service import openapi, pages, problems, system, validation
from service.batch import routes as batch
from service.database import create_database
from service.datasets import routes as datasets
from service.datasets.ingest import Ingester
from service.dependencies import Parts
from service.errors import BlobCorrupt, ServiceError
from service.http import authenticate, router
from service.inference import invocations, oip
from service.inference import routes as inference
from service.inference.cache import Predictors
from service.inference.directory import Directory
from service.inference.files import Files
from service.inference.hot import Compute, HotRoutes
from service.inference.queue import Queue
from service.inference.traffic import Traffic
from service.inference.transfers import Transfers
from service.keys import KeyRing
from service.middleware import Gate
from service.runs import routes as runs
from service.runs.events import Watcher
from service.settings import Settings
from service.storage import open_store
from service.telemetry import Telemetry

API = "/api/v1"

logger = structlog.get_logger(__name__)


def _nobody() -> None:
    """Wake no supervisor: there is none on this machine, and others look for themselves."""


class Service(FastAPI):
    """The framework's application, behind the routes that are answered without it."""

    hot: HotRoutes

    def at_once(self, scope: Scope) -> Compute | None:
        """Return what answers a request without a task once its body is there, if anything does."""
        return self.hot.at_once(scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self.hot.call_of(scope) if scope["type"] == "http" else None
        if call is None:
            await super().__call__(scope, receive, send)
        else:
            await self.hot.respond(call, scope, receive, send)


def create_app(settings: Settings, engine: Engine, wake: Callable[[], None] = _nobody) -> FastAPI:
    """Return the service. Its database must have the newest schema; it disposes of the engine."""
    blobs = open_store(settings)
    ingester = Ingester(settings, engine, blobs)
    predictors = Predictors(
        blobs,
        max_bytes=settings.predict_cache_bytes,
        max_entries=settings.predict_cache_models,
    )
    parts = Parts(
        settings=settings,
        engine=engine,
        blobs=blobs,
        watcher=Watcher(engine),
        predictors=predictors,
        directory=Directory(engine, predictors),
        traffic=Traffic(),
        files=Files(settings, ingester.folder),
        transfers=Transfers(settings, ingester.folder),
        queue=Queue(
            threads=settings.predict_threads,
            length=settings.predict_queue,
            timeout_s=settings.predict_timeout_s,
        ),
        ingester=ingester,
        wake=wake,
    )
    app = Service(
        title="descent",
        lifespan=_lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_name_of,
    )
    app.state.parts = parts
    app.state.settings, app.state.engine = settings, engine
    app.state.keys = KeyRing(engine, settings)
    app.state.telemetry = Telemetry(engine, parts.traffic)
    app.hot = HotRoutes(parts, app.state.keys, app.state.telemetry.observe)
    app.add_middleware(Gate, settings=settings, observe=app.state.telemetry.observe)
    _add_handlers(app)
    _add_routes(app)
    return app


def contract() -> str:
    """Return the OpenAPI document as text, of a service that is not started."""
    with TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder))
        engine = create_database(settings.resolved_database_url)
        document = openapi.describe(create_app(settings, engine), system.version())
        engine.dispose()
    return json.dumps(document, indent=1)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    parts: Parts = app.state.parts
    parts.ingester.start()
    parts.directory.start()
    try:
        async with parts.watcher.running():
            yield
    finally:
        await run_sync(parts.ingester.close)
        await run_sync(parts.directory.close)
        parts.traffic.close()
        await run_sync(parts.queue.close)
        await run_sync(app.state.keys.close)
    parts.engine.dispose()


def _add_routes(app: FastAPI) -> None:
    described = router()

    @described.get("/openapi.json", include_in_schema=False)
    def openapi_json() -> JSONResponse:
        if app.openapi_schema is None:
            app.openapi_schema = openapi.describe(app, system.version())
        return JSONResponse(app.openapi_schema)

    app.include_router(described)
    app.routes.extend([*common_routes(), *pages.assets()])


@cache
def common_routes() -> list[BaseRoute]:
    """Return the routes that all services of this process have in common.

    FastAPI looks into all of them at the first request, which takes a tenth of a second.
    """
    table = APIRouter(generate_unique_id_function=_name_of)
    for each in (system.root, pages.pages, oip.router, invocations.router):
        table.include_router(each)
    for each in (system.api, datasets.router, runs.router, batch.router, inference.router):
        table.include_router(each, prefix=API)
    return table.routes


def _name_of(route: APIRoute) -> str:
    return route.name


# ---- errors ---------------------------------------------------------------------------------


def _add_handlers(app: FastAPI) -> None:
    handlers: dict[Any, Any] = {
        HTTPException: _on_http_exception,
        RequestValidationError: _on_invalid,
        **dict.fromkeys((ServiceError, DBAPIError, OverflowError, BlobCorrupt), _on_fault),
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


async def _on_fault(request: Request, error: Exception) -> Response:
    problem = problems.of_fault(error)
    if problem is None:
        raise error
    return problems.respond(request, problem)


async def _on_http_exception(request: Request, error: HTTPException) -> Response:
    # The router found no route, so no route asked for the key.
    try:
        await authenticate(request)
    except ServiceError as refused:
        return problems.respond(request, refused)
    if error.status_code == 405:
        error.headers = {"Allow": ", ".join(sorted(_methods(request)))}
    return problems.respond(request, problems.from_framework(error, request.url.path))


def _methods(request: Request) -> set[str]:
    """Return the methods of all routes at this path; the router names those of the first only."""
    found: set[str] = set()
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    for context in iter_route_contexts(request.app.routes):
        if context.endpoint is not None and context.path_regex.match(path):
            found |= context.methods or set()
    return found


async def _on_invalid(request: Request, error: RequestValidationError) -> Response:
    return problems.respond(request, validation.to_error(error.errors(), error.body))
