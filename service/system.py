"""The routes about the service itself: health, metrics, what it can train, and its keys."""

import importlib.metadata
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import Request, Response
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from descent import schemas
from descent.spec import ARCHITECTURES
from service import keys
from service.blobs import BlobStore
from service.database import check_schema, reading, time_of_day
from service.dependencies import (
    PageParams,
    PartsDep,
    ReadSession,
    WriteSession,
    cached,
    decode_cursor,
    encode_cursor,
    link_next,
    page_of,
)
from service.errors import Invalid, NotFound, ServiceError
from service.http import has_etag, open_route, router, shown_once
from service.tables import Key, Worker, utc_now
from service.telemetry import CONTENT_TYPE, Telemetry, run_states

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
def ready(parts: PartsDep, response: Response) -> schemas.Readiness:
    """Say whether the service can serve, part by part."""
    found = list(_parts(parts.engine, parts.blobs))
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
    responses={200: {"content": {"text/plain": {}}}},
)
def metrics(request: Request) -> Response:
    """Return the numbers of this process in Prometheus' text format."""
    telemetry: Telemetry = request.app.state.telemetry
    return Response(telemetry.text(), media_type=CONTENT_TYPE)


@api.get("/system", response_model=schemas.System, operation_id="get_system")
@has_etag
def system(
    parts: PartsDep, session: ReadSession, request: Request, response: Response
) -> schemas.System | Response:
    """Say what runs here."""
    found, states = workers(session), run_states(session)
    devices = {str(device): device for worker in found for device in worker.devices}
    body = schemas.System(
        version=version(),
        database="sqlite" if parts.engine.dialect.name == "sqlite" else "postgresql",
        devices=list(devices.values()),
        workers=found,
        queue=schemas.QueueInfo(queued=states.get("queued", 0), states=states),
        limits={name: getattr(parts.settings, name) for name in LIMITS},
    )
    return cached(request, response, body)


def version() -> str:
    try:
        return importlib.metadata.version("descent")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"  # run from a source tree that was never installed


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


# ---- keys -----------------------------------------------------------------------------------


@api.post("/keys", status_code=201)
@shown_once("secret")
def create_key(
    body: schemas.KeyCreate, session: WriteSession, response: Response
) -> schemas.KeyCreated:
    """Make an API key. Its secret is shown this once.

    A replay under the same `Idempotency-Key` has `"secret": null`, because no secret is stored:
    if the first answer was lost, delete the key that the replay names and make another.
    """
    key, secret = keys.create(session, body.name, _checked_end(body.expires_at))
    response.headers["Location"] = f"/api/v1/keys/{key.id}"
    return schemas.KeyCreated(**_wire(key).model_dump(), secret=secret)


def _checked_end(expires_at: datetime | None) -> datetime | None:
    """Return the end of a key in UTC, because SQLite forgets in which zone a time was given."""
    if expires_at is None:
        return None
    try:
        end = expires_at.astimezone(UTC)
    except OverflowError:
        raise Invalid(
            f"expires_at is no time in UTC, got {expires_at.isoformat()}.",
            errors=[{"pointer": "/expires_at", "code": "out_of_range", "detail": "It is too far."}],
        ) from None
    if end <= utc_now():
        raise Invalid(
            f"expires_at must lie in the future, got {expires_at.isoformat()}.",
            errors=[{"pointer": "/expires_at", "code": "in_the_past", "detail": "It is over."}],
        )
    return end


@api.get("/keys")
def list_keys(
    request: Request, response: Response, session: ReadSession, page: PageParams
) -> schemas.Page[schemas.Key]:
    """List the API keys, without their secrets."""
    query = select(Key).order_by(Key.id.desc()).limit(page.limit + 1)
    if page.after is not None:
        (last,) = decode_cursor("keys", page.after, str)
        query = query.where(Key.id < last)
    found = page_of(
        session.scalars(query).all(), page.limit, lambda key: encode_cursor("keys", [key.id])
    )
    link_next(request, response, found["next_cursor"])
    return schemas.Page(**found | {"data": [_wire(key) for key in found["data"]]})


@api.delete("/keys/{key_id}", status_code=204)
def delete_key(key_id: str, session: WriteSession) -> None:
    """Revoke an API key: within a second no process accepts it any more."""
    key = session.get(Key, key_id)
    if key is None:
        raise NotFound(f"There is no key {key_id[:60]!r}.")
    session.delete(key)


def _wire(key: Key) -> schemas.Key:
    return schemas.Key(
        id=key.id,
        name=key.name,
        prefix=key.prefix,
        expires_at=key.expires_at,
        created_at=key.created_at,
    )
