"""Puts the API together: the only place where its rooms meet."""

import json
import threading
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

from service import system
from service.access import routes as access
from service.access.keys import KeyRing
from service.batch import routes as batch
from service.datasets import routes as datasets
from service.datasets import sandbox
from service.datasets.preview import Previews
from service.datasets.upload import remove_leftovers
from service.errors import BlobCorrupt, ServiceError
from service.exports import routes as exports
from service.exports.routes import Transfers
from service.http import pages, problems, validation
from service.http.middleware import Gate, Telemetry
from service.http.server import Compute
from service.http.strict_route import any_query, authenticate, router
from service.jobs.events import Watcher
from service.predict import contracts, evaluations
from service.predict import routes as predict
from service.predict.bodies import Files
from service.predict.directory import Directory, Predictors
from service.predict.executor import PredictionExecutor
from service.predict.hot import HotRoutes
from service.predict.routes import Inference
from service.predict.traffic import Traffic
from service.protocols import invocations, mlflow, oip
from service.registry import routes as registry
from service.runs import routes as runs
from service.settings import Settings, version
from service.storage import database
from service.storage.blobs import BlobStore, Scratch
from service.storage.database import create_database
from service.storage.s3 import open_store
from service.sweeps import routes as sweeps
from service.system import RunCounts

API = "/api/v1"

logger = structlog.get_logger(__name__)


def _wake_none() -> None:
    """Do nothing: this machine has no supervisor, and those of others poll."""


class Service(FastAPI):
    """The framework's application, behind the hot routes, which answer without the framework."""

    hot: HotRoutes

    def at_once(self, scope: Scope) -> Compute | None:
        """Return the function that answers a request at once when its body is complete, if any."""
        return self.hot.at_once(scope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self.hot.call_of(scope) if scope["type"] == "http" else None
        if call is None:
            await super().__call__(scope, receive, send)
        else:
            await self.hot.respond(call, scope, receive, send)


def create_app(
    settings: Settings,
    engine: Engine,
    wake: Callable[[], None] = _wake_none,
    news: int | None = None,
) -> FastAPI:
    """Return the service. Its database must have the newest schema; it disposes of the engine.

    `wake` wakes the worker of this machine. The worker writes a byte to the pipe `news` when a job
    has changed.
    """
    app = Service(
        title="descent",
        lifespan=_lifespan,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=_name_of,
    )
    blobs = open_store(settings)
    scratch = Scratch(settings.scratch_dir / "uploads")
    inference = _inference(settings, engine, blobs, scratch)
    watcher = Watcher(engine, news)
    database.ring_on_commit(engine, _ring(watcher, wake))
    keys = KeyRing(engine, settings)
    telemetry = Telemetry(RunCounts(engine), inference.traffic)
    # The dependencies of each room read the values that it needs.
    state = app.state
    state.settings, state.engine, state.blobs, state.scratch = settings, engine, blobs, scratch
    state.keys, state.telemetry = keys, telemetry
    own_engine = create_database(engine.url.render_as_string(hide_password=False))
    state.probes = system.probes_of(settings, own_engine, blobs)
    state.probes_engine = own_engine
    state.watcher, state.end_streams = watcher, watcher.stop
    state.inference, state.serving = inference, inference.directory
    state.transfers = Transfers(settings, scratch.folder)
    state.previews = Previews(settings, scratch.folder)
    app.hot = HotRoutes(inference, keys, telemetry.observe)
    app.add_middleware(Gate, settings=settings, observe=telemetry.observe)
    _add_handlers(app)
    _add_routes(app)
    return app


def _inference(settings: Settings, engine: Engine, blobs: BlobStore, scratch: Scratch) -> Inference:
    predictors = Predictors(
        blobs,
        max_bytes=settings.predict_cache_bytes,
        max_entries=settings.predict_cache_models,
    )
    return Inference(
        settings=settings,
        engine=engine,
        predictors=predictors,
        directory=Directory(engine, predictors),
        traffic=Traffic(),
        files=Files(settings, scratch.folder),
        executor=PredictionExecutor(
            threads=settings.predict_threads,
            length=settings.predict_queue,
            timeout_s=settings.predict_timeout_s,
        ),
        foreign=mlflow,
    )


def _ring(watcher: Watcher, wake: Callable[[], None]) -> database.Ring:
    def ring(channel: str) -> None:
        if channel == database.QUEUE:
            wake()
        else:
            watcher.look()

    return ring


def _prepare(uploads: Path) -> None:
    """Start the sandbox and remove old files, so that the first request need not wait."""
    sandbox.warm()
    remove_leftovers(uploads)


def contract() -> str:
    """Return the OpenAPI document as text, of a service that is not started."""
    with TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder))
        engine = create_database(settings.resolved_database_url)
        document = pages.describe(create_app(settings, engine), version())
        engine.dispose()
    return json.dumps(document, indent=1)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    state = app.state
    watcher: Watcher = state.watcher
    inference: Inference = state.inference
    keys: KeyRing = state.keys
    threading.Thread(target=_prepare, args=(state.scratch.root,), daemon=True).start()
    inference.directory.start()
    try:
        async with watcher.running():
            yield
    finally:
        await run_sync(inference.directory.close)
        inference.traffic.close()
        await run_sync(inference.executor.close)
        await run_sync(keys.close)
    state.probes_engine.dispose()
    inference.engine.dispose()


def _add_routes(app: FastAPI) -> None:
    described = router()

    @described.get("/openapi.json", include_in_schema=False)
    @any_query
    def openapi_json() -> JSONResponse:
        if app.openapi_schema is None:
            app.openapi_schema = pages.describe(app, version())
        return JSONResponse(app.openapi_schema)

    app.include_router(described)
    app.routes.extend([*common_routes(), *pages.assets()])


@cache
def common_routes() -> list[BaseRoute]:
    """Return the routes, which all services of this process share.

    FastAPI prepares all of them at the first request, which takes a tenth of a second.
    """
    table = APIRouter(generate_unique_id_function=_name_of)
    for each in (system.root, pages.pages, oip.router, invocations.router):
        table.include_router(each)
    models = router(tags=["models"])
    for each in (
        predict.router,
        registry.router,
        contracts.router,
        exports.router,
        evaluations.router,
    ):
        models.include_router(each)
    for each in (
        system.api,
        access.router,
        datasets.router,
        runs.router,
        sweeps.router,
        batch.router,
        models,
    ):
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
    # The router found no route, so no route has checked the key.
    try:
        await authenticate(request)
    except ServiceError as refused:
        return problems.respond(request, refused)
    if error.status_code == 405:
        error.headers = {"Allow": ", ".join(sorted(_methods(request)))}
    return problems.respond(request, problems.from_framework(error, request.url.path))


def _methods(request: Request) -> set[str]:
    """Return the methods of all routes at this path; the router knows only the first route's."""
    found: set[str] = set()
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    for context in iter_route_contexts(request.app.routes):
        if context.endpoint is not None and context.path_regex.match(path):
            found |= context.methods or set()
    return found


async def _on_invalid(request: Request, error: RequestValidationError) -> Response:
    return problems.respond(request, validation.to_error(error.errors(), error.body))
