"""The routes of sweeps: submit and validate, read, control, follow, delete."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response
from sqlalchemy.orm import Session

from descent import schemas
from descent.schemas import SweepRequest
from descent.schemas.sweeps import Tpe
from descent.spec import DatasetRef
from service.datasets.versions import ready_version
from service.errors import invalid_at
from service.http.resources import (
    EngineDep,
    NewestFirst,
    OneOf,
    PageParams,
    ReadSession,
    SettingsDep,
    WriteSession,
    json_response,
    json_unless_known,
)
from service.http.strict_route import has_etag, not_idempotent
from service.http.strict_route import router as strict_router
from service.jobs.streams import EventsDep
from service.jobs.waiting import Wait, WatcherDep, when_changed
from service.runs.plan import Machine
from service.runs.speeds import known_speeds
from service.settings import Settings
from service.storage.database import reading
from service.sweeps import lifecycle, representation
from service.sweeps.messages import MISSING
from service.sweeps.plan import SweepPlan, make_sweep_plan
from service.sweeps.tables import Sweep

SWEEPS = NewestFirst("sweeps", Sweep, Sweep.created_at, Sweep.id)
REPEATED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": schemas.Sweep,
        "description": "The request was made before, or its state is reached already.",
    }
}

router = strict_router("/sweeps", tags=["sweeps"])

SweepPath = Annotated[schemas.SweepId, Path(description="The id of a sweep.")]


@dataclass(frozen=True)
class SweepLook:
    """Reads the body of a sweep and the number of its last event."""

    engine: EngineDep

    def __call__(self, sweep_id: str) -> tuple[dict[str, Any], int]:
        with reading(self.engine) as session:
            sweep = lifecycle.get(session, sweep_id)
            return representation.sweep_body(session, sweep), sweep.event_seq


# ---- submit -------------------------------------------------------------------------------------


@router.post("", status_code=202, response_model=schemas.Sweep, operation_id="submit_sweep")
def submit(asked: SweepRequest, session: WriteSession, settings: SettingsDep) -> Response:
    """Queue a sweep and its first members, which are ordinary runs."""
    sweep = lifecycle.submit(session, _planned(session, asked, settings))
    return _accepted(session, sweep)


@router.post("/validate", response_model=schemas.SweepPlan, operation_id="validate_sweep")
@not_idempotent
def validate(asked: SweepRequest, session: ReadSession, settings: SettingsDep) -> Response:
    """Return the trials, warnings and an estimate of a sweep, without creating it."""
    return json_response(representation.plan_body(_planned(session, asked, settings)))


def _planned(session: Session, asked: SweepRequest, settings: Settings) -> SweepPlan:
    wanted = asked.base.dataset_ref
    version = ready_version(session, wanted.id, wanted.version)
    dataset = DatasetRef(id=version.dataset_id, version=version.version)
    machine = Machine(settings.training_memory_bytes, known_speeds(session))
    plan = make_sweep_plan(asked, dataset, version.columns, version.rows, machine)
    if isinstance(plan.strategy, Tpe) and find_spec("optuna") is None:
        raise invalid_at("/strategy", "sampler_unavailable", MISSING)
    return plan


def _accepted(session: Session, sweep: Sweep, status: int = 202) -> Response:
    """Answer with the sweep."""
    location = f"/api/v1/sweeps/{sweep.id}"
    return json_response(representation.sweep_body(session, sweep), status, {"Location": location})


# ---- read ---------------------------------------------------------------------------------------


@router.get("", response_model=schemas.Page[schemas.Sweep], operation_id="list_sweeps")
def list_sweeps(
    session: ReadSession,
    page: PageParams,
    request: Request,
    state: Annotated[
        list[schemas.RunState] | None, Query(description="Only sweeps in one of these states.")
    ] = None,
    dataset: Annotated[
        str | None, Query(description="Only sweeps on the dataset with this id.")
    ] = None,
) -> Response:
    """List sweeps without their leaderboards, newest first."""
    conditions = [] if dataset is None else [Sweep.dataset_id == dataset]
    states = OneOf(Sweep.state, state) if state else None
    bodies = partial(representation.sweep_bodies, session)
    return SWEEPS.page(request, session, page, bodies, *conditions, one_of=states)


@router.get("/{sweep_id}", response_model=schemas.Sweep, operation_id="get_sweep")
@has_etag
async def get_sweep(
    sweep_id: SweepPath,
    watcher: WatcherDep,
    look: Annotated[SweepLook, Depends()],
    request: Request,
    wait: Wait = 0,
) -> Response:
    """Return a sweep with its leaderboard; with `wait`, when its state changes or time is up."""
    body = await when_changed(request, watcher, sweep_id, look, wait)
    return json_unless_known(request, body)


@router.get(
    "/{sweep_id}/events",
    response_model=schemas.Page[schemas.SweepEvent],
    operation_id="list_sweep_events",
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        204: {"description": "The sweep ended and the client has all events."},
    },
)
async def list_events(sweep_id: SweepPath, wanted: EventsDep) -> Response:
    """Return a page of events or, with `Accept: text/event-stream`, stream them as they come."""
    return await wanted.answer(Sweep, representation.event_bodies, sweep_id)


# ---- control ------------------------------------------------------------------------------------


@router.post(
    "/{sweep_id}/cancel",
    status_code=202,
    response_model=schemas.Sweep,
    responses=REPEATED,
    operation_id="cancel_sweep",
)
def cancel(sweep_id: SweepPath, session: WriteSession) -> Response:
    """Cancel the members that have not ended; each keeps its best checkpoint."""
    return _requested(lifecycle.cancel, session, sweep_id)


@router.post(
    "/{sweep_id}/pause",
    status_code=202,
    response_model=schemas.Sweep,
    responses=REPEATED,
    operation_id="pause_sweep",
)
def pause(sweep_id: SweepPath, session: WriteSession) -> Response:
    """Pause the members that have not ended; `resume` continues them exactly."""
    return _requested(lifecycle.pause, session, sweep_id)


@router.post(
    "/{sweep_id}/resume",
    status_code=202,
    response_model=schemas.Sweep,
    responses=REPEATED,
    operation_id="resume_sweep",
)
def resume(sweep_id: SweepPath, session: WriteSession) -> Response:
    """Queue the members of a paused sweep again."""
    return _requested(lifecycle.resume, session, sweep_id)


def _requested(
    request: Callable[[Session, str], tuple[Sweep, bool]], session: Session, sweep_id: str
) -> Response:
    sweep, is_new = request(session, sweep_id)
    return _accepted(session, sweep, 202 if is_new else 200)


@router.delete("/{sweep_id}", status_code=204, operation_id="delete_sweep")
def delete(sweep_id: SweepPath, session: WriteSession) -> Response:
    """Delete a finished sweep with its members, their metrics and checkpoints.

    Their model versions stay.
    """
    lifecycle.delete(session, sweep_id)
    return Response(status_code=204)
