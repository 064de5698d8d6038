"""The routes about the service itself: health, readiness, metrics, system and architectures."""

import contextlib
import shutil
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from typing import Any

from fastapi import Request, Response
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from descent import schemas
from models.architectures import ARCHITECTURES
from service.errors import ServiceError, StorageFull, StorageUnavailable
from service.http.middleware import CONTENT_TYPE, Telemetry
from service.http.resources import (
    EngineDep,
    Found,
    PageParams,
    Probe,
    Probes,
    ProbesDep,
    ReadSession,
    SettingsDep,
    cached,
    decode_cursor,
    encode_cursor,
    page_response,
)
from service.http.strict_route import has_etag, open_route, router
from service.jobs.kind import Worker
from service.runs.tables import Run
from service.settings import MIB, Settings, version
from service.storage.blobs import BlobStore
from service.storage.database import check_schema, reading, time_of_day

SEEN_WITHIN = timedelta(seconds=30)  # three heartbeats of a worker
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


# `async`, because plain functions wait for a free thread, and uploads can occupy all of them.
@root.get("/healthz", operation_id="get_health")
@open_route
async def health() -> schemas.Health:
    """Answer as long as the process is alive."""
    return schemas.Health()


@root.get("/readyz", operation_id="get_readiness", responses={503: {"model": schemas.Readiness}})
@open_route
async def ready(probes: ProbesDep, response: Response) -> schemas.Readiness:
    """Return whether the service can serve, part by part."""
    found = await probes.parts()
    is_ready = all(part.state == "ok" for part in found if part.required)
    response.status_code = 200 if is_ready else 503
    return schemas.Readiness(status="ready" if is_ready else "not_ready", parts=found)


def probes_of(settings: Settings, engine: Engine, blobs: BlobStore) -> Probes:
    """Return the probes of all parts.

    The engine must not be that of the requests, which can use all of its connections.
    """
    # No worker is required: without one, jobs wait in the queue, and all other requests work.
    return Probes(
        Probe("database", "The database", required=True, look=partial(_look_at_database, engine)),
        Probe("blobs", "The blob store", required=True, look=partial(_look_at_blobs, blobs)),
        Probe("disk", "The disk", required=True, look=partial(_look_at_disk, settings)),
        Probe("workers", "The database", required=False, look=partial(_look_at_workers, engine)),
    )


def _look_at_database(engine: Engine) -> Found:
    check_schema(engine)
    return "ok", None


def _look_at_blobs(blobs: BlobStore) -> Found:
    blobs.check()
    return "ok", None


def _look_at_disk(settings: Settings) -> Found:
    for folder in filter(None, (settings.data_dir.absolute(), settings.blob_dir)):
        try:
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise StorageUnavailable(f"{folder} cannot be read: {error.strerror}.") from error
        if free < settings.ready_disk_bytes:
            raise StorageFull(
                f"{folder} has {free // MIB} MiB of free space, less than the"
                f" {settings.ready_disk_bytes // MIB} of DESCENT_READY_DISK_BYTES: free some."
            )
    return "ok", None


def _look_at_workers(engine: Engine) -> Found:
    with reading(engine) as session:
        found = workers(session)
    if not found:
        return "absent", "No worker has sent a heartbeat in the last 30 s: runs wait in the queue."
    warm = sum(worker.state == "ready" for worker in found)
    return "ok" if warm else "warming", f"{warm} of {len(found)} ready to train"


def workers(session: Session) -> list[schemas.WorkerInfo]:
    """Return the workers with a recent heartbeat."""
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


def _device(device: object) -> dict[str, Any]:
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


def run_states(session: Session) -> dict[str, int]:
    """Return how many runs are in each state."""
    rows = session.execute(select(Run.state, func.count()).group_by(Run.state))
    return {state: number for state, number in rows}  # noqa: C416  a Row is no plain pair to mypy


class RunCounts(Collector):
    """Runs by state, counted at each request for the metrics."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> list[Metric]:
        return []  # otherwise the registry would count at the start of the process

    def collect(self) -> Iterator[Metric]:
        runs = GaugeMetricFamily("descent_runs", "Runs by state.", labels=["state"])
        queue = GaugeMetricFamily("descent_queue_length", "Runs that wait for a worker.")
        with contextlib.suppress(ServiceError), reading(self._engine) as session:
            states = run_states(session)
            for state, number in states.items():
                runs.add_metric([state], number)
            queue.add_metric([], states.get("queued", 0))
        yield runs
        yield queue


@api.get("/system", response_model=schemas.System, operation_id="get_system")
@has_etag
def system(
    engine: EngineDep,
    settings: SettingsDep,
    session: ReadSession,
    request: Request,
    response: Response,
) -> schemas.System | Response:
    """Return the version, workers, devices, queue and limits of the service."""
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


@api.get(
    "/architectures",
    response_model=schemas.Page[schemas.Architecture],
    operation_id="list_architectures",
)
def architectures(page: PageParams, request: Request) -> Response:
    """List the types of model that a run can train."""
    names, start = list(ARCHITECTURES), 0
    if page.after is not None:
        (start,) = decode_cursor("architectures", page.after, int)
    return page_response(
        request,
        names[start : start + page.limit + 1],
        page,
        lambda last: encode_cursor("architectures", [names.index(last) + 1]),
        lambda shown: list(map(_architecture, shown)),
    )


def _architecture(name: str) -> schemas.Architecture:
    architecture = ARCHITECTURES[name]
    schema = architecture.model_json_schema()
    return schemas.Architecture(
        type=name,
        title=architecture.title,
        description=schema["description"],
        json_schema=schema,
    )
