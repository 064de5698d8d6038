"""The routes about the service itself: health, metrics, what it can train."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from fastapi import Request, Response
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from descent import schemas
from descent.spec import ARCHITECTURES
from service.errors import ServiceError
from service.http.dependencies import BlobsDep, EngineDep, ReadSession, SettingsDep
from service.http.etags import cached
from service.http.strict_route import has_etag, open_route, router
from service.http.telemetry import CONTENT_TYPE, Telemetry
from service.jobs.tables import Worker
from service.runs.telemetry import run_states
from service.storage.blobs import BlobStore
from service.storage.database import check_schema, reading, time_of_day
from service.version import version

SEEN_WITHIN = timedelta(seconds=30)  # three times the interval at which a worker says it is there
#: the settings that limit what a client may send
LIMITS = (
    "max_json_bytes",
    "max_predict_bytes",
    "max_predict_rows",
    "max_upload_bytes",
    "max_gzip_ratio",
    "max_columns",
    "parse_memory_bytes",
    "parse_timeout_s",
)

root = router(tags=["service"])
api = router(tags=["service"])


@root.get("/healthz", operation_id="get_health")
@open_route
def health() -> schemas.Health:
    """Say that the process is alive."""
    return schemas.Health()


@root.get("/readyz", operation_id="get_readiness", responses={503: {"model": schemas.Readiness}})
@open_route
def ready(engine: EngineDep, blobs: BlobsDep, response: Response) -> schemas.Readiness:
    """Say whether the service can serve, part by part."""
    found = list(_parts(engine, blobs))
    is_ready = all(part.state == "ok" for part in found if part.required)
    response.status_code = 200 if is_ready else 503
    return schemas.Readiness(status="ready" if is_ready else "not_ready", parts=found)


def _parts(engine: Engine, blobs: BlobStore) -> Iterator[schemas.Part]:
    yield _database_part(engine)
    yield _blobs_part(blobs)
    yield _workers_part(engine)


def _database_part(engine: Engine) -> schemas.Part:
    try:
        check_schema(engine)
    except ServiceError as error:
        return schemas.Part(name="database", state="failed", required=True, detail=error.detail)
    return schemas.Part(name="database", state="ok", required=True)


def _blobs_part(blobs: BlobStore) -> schemas.Part:
    try:
        blobs.check()
    except ServiceError as error:
        return schemas.Part(name="blobs", state="failed", required=True, detail=error.detail)
    return schemas.Part(name="blobs", state="ok", required=True)


def _workers_part(engine: Engine) -> schemas.Part:
    # Not required: without a worker runs wait in the queue, while all else is served.
    try:
        with reading(engine) as session:
            found = workers(session)
    except ServiceError as error:
        return schemas.Part(name="workers", state="failed", required=False, detail=error.detail)
    if not found:
        detail = "No worker was heard of in the last 30 s: runs wait in the queue."
        return schemas.Part(name="workers", state="absent", required=False, detail=detail)
    warm = sum(worker.state == "ready" for worker in found)
    detail = f"{warm} of {len(found)} ready to train"
    state: Any = "ok" if warm else "warming"
    return schemas.Part(name="workers", state=state, required=False, detail=detail)


def workers(session: Session) -> list[schemas.WorkerInfo]:
    """Return the workers that were heard of lately."""
    since = time_of_day(session) - SEEN_WITHIN
    found = session.scalars(select(Worker).where(Worker.seen_at > since).order_by(Worker.id))
    return [
        schemas.WorkerInfo(
            id=worker.id,
            host=worker.host,
            pid=worker.pid,
            devices=[_device(device) for device in worker.devices],
            capacity=worker.capacity,
            state="ready" if worker.is_warm else "warming",
            started_at=worker.started_at,
            seen_at=worker.seen_at,
        )
        for worker in found
    ]


def _device(device: Any) -> dict[str, Any]:  # noqa: ANN401  what a worker wrote
    return device if isinstance(device, dict) else {"name": device}


@root.get(
    "/metrics",
    operation_id="get_prometheus_metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """Return the numbers of this process in Prometheus' text format."""
    telemetry: Telemetry = request.app.state.telemetry
    return Response(telemetry.text(), media_type=CONTENT_TYPE)


@api.get("/system", response_model=schemas.System, operation_id="get_system")
@has_etag
def system(
    engine: EngineDep,
    settings: SettingsDep,
    session: ReadSession,
    request: Request,
    response: Response,
) -> schemas.System | Response:
    """Say what runs here."""
    found, states = workers(session), run_states(session)
    devices = {str(device): device for worker in found for device in worker.devices}
    body = schemas.System(
        version=version(),
        database="sqlite" if engine.dialect.name == "sqlite" else "postgresql",
        devices=list(devices.values()),
        workers=found,
        queue=schemas.QueueInfo(queued=states.get("queued", 0), states=states),
        limits={name: getattr(settings, name) for name in LIMITS},
    )
    return cached(request, response, body)


@api.get("/architectures", operation_id="list_architectures")
def architectures() -> schemas.Page[schemas.Architecture]:
    """List the types of model that a run may ask for."""
    found = [
        schemas.Architecture(
            type=name,
            title=name.capitalize(),
            description=(model.__doc__ or "").strip(),
            json_schema=model.model_json_schema(),
        )
        for name, model in ARCHITECTURES.items()
    ]
    return schemas.Page(data=found, has_more=False)
