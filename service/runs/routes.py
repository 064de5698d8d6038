"""The routes of runs: submit and validate, read, control, follow metrics and events, register."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import Depends, Query, Request, Response
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, Field
from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from descent import schemas
from descent.spec import LearningRateRange, RunConfig
from service.datasets.versions import DatasetVersion, ready_version
from service.http.resources import (
    BlobsDep,
    EngineDep,
    NewestFirst,
    OneOf,
    PageParams,
    ReadSession,
    SettingsDep,
    WriteSession,
    etag_of,
    json_response,
    json_unless_known,
    not_modified,
)
from service.http.strict_route import has_etag, not_idempotent
from service.http.strict_route import router as strict_router
from service.jobs.streams import EventsDep, prefers
from service.jobs.waiting import Wait, WatcherDep, when_changed
from service.registry import versions
from service.registry.routes import version_body
from service.registry.serving import ServingDep, describe, follow_change
from service.runs import lifecycle, metrics, representation
from service.runs.plan import Machine, Plan, make_plan
from service.runs.speeds import known_speeds
from service.runs.tables import Checkpoint, Run
from service.storage.blobs import BlobStore
from service.storage.database import reading

REPEATED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": schemas.Run,
        "description": "The request was made before, or its state is reached already.",
    }
}

RUNS = NewestFirst("runs", Run, Run.created_at, Run.id)
CHECKPOINTS = NewestFirst("checkpoints", Checkpoint, Checkpoint.created_at, Checkpoint.id)

router = strict_router("/runs", tags=["runs"])


# ---- parameters ---------------------------------------------------------------------------------


class RunFilter(BaseModel):
    """The filters of the list of runs."""

    state: list[schemas.RunState] = Field([], description="Only runs in one of these states.")
    dataset: str | None = Field(None, description="Only runs on the dataset with this id.")
    model: str | None = Field(None, description="Only runs that made a version of this model.")
    sweep: str | None = Field(None, description="Only the members of the sweep with this id.")
    tag: list[str] = Field([], description="Only runs with this tag: `name` or `name:value`.")

    def states(self) -> OneOf | None:
        return OneOf(Run.state, self.state) if self.state else None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        if self.dataset is not None:
            yield Run.dataset_id == self.dataset
        if self.model is not None:
            yield Run.model_name == self.model
        if self.sweep is not None:
            yield Run.sweep_id == self.sweep
        for text in self.tag:
            name, colon, value = text.partition(":")
            stored = Run.tags[name].as_string()
            yield stored == value if colon else stored.is_not(None)


class MetricsParams(BaseModel):
    """Selects rows of the curves, and their form."""

    after: int = Field(0, ge=0, lt=2**63, description="Only rows after this `seq`.")
    limit: int | None = Field(
        None, ge=1, le=metrics.MAX_ROWS, description="The maximum number of rows."
    )
    names: str = Field("", max_length=1024, description="Only these names, comma-separated.")
    splits: str = Field("", max_length=256, description="Only these splits, comma-separated.")
    max_points: int | None = Field(
        None,
        ge=2,
        le=100_000,
        description=(
            "Thin each curve (one name in one split) to about this number of rows; without"
            " `names` and `splits` an answer holds this number for every curve."
        ),
    )
    attempt: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description=(
            "The `attempt` of the previous answer: the new answer then lists all rows that were"
            " replaced since. Without it the row at `after` is assumed to be the live one."
        ),
    )
    layout: Literal["rows", "columns"] = "rows"

    def query(self) -> metrics.Query:
        return metrics.Query(
            self.after,
            self.limit,
            tuple(filter(None, self.names.split(","))),
            tuple(filter(None, self.splits.split(","))),
            self.max_points,
            self.attempt,
        )


@dataclass(frozen=True)
class RunLook:
    """Reads the body of a run and the number of its last event."""

    engine: EngineDep
    serving: ServingDep

    def __call__(self, run_id: str) -> tuple[dict[str, Any], int]:
        with reading(self.engine) as session:
            run = lifecycle.get(session, run_id)
            body = representation.run_body(session, run)
        if made := body["model"]:
            self.serving.expect_requests(made["name"], made["version"])
        return body, run.event_seq


# ---- submit -------------------------------------------------------------------------------------


@router.post("", status_code=202, response_model=schemas.Run, operation_id="submit_run")
def submit(config: RunConfig, session: WriteSession, settings: SettingsDep) -> Response:
    """Queue a run. Only `dataset` and `target` are required; `POST /runs/validate` previews it."""
    version, plan = _planned(session, config, Machine(settings.training_memory_bytes))
    submission = lifecycle.Submission(
        config=plan.config.model_dump(mode="json"),
        dataset_id=version.dataset_id,
        dataset_version=version.version,
        warnings=plan.warnings,
    )
    run = lifecycle.submit(session, submission)
    return _accepted(session, run)


@router.post(
    "/lr_range", status_code=202, response_model=schemas.Run, operation_id="test_learning_rates"
)
def test_learning_rates(
    config: RunConfig, session: WriteSession, settings: SettingsDep
) -> Response:
    """Queue a test of learning rates: a short run whose `evaluation.lr_range` suggests one.

    The body is the configuration of a run. Its learning rate is not used, and `register_as` is
    left out. `lr_range` may hold the least and the largest rate.
    """
    limits = config.lr_range or LearningRateRange()
    config = config.model_copy(update={"lr_range": limits, "register_as": None})
    return submit(config, session, settings)


@router.post("/validate", response_model=schemas.RunPlan, operation_id="validate_run")
@not_idempotent
def validate(config: RunConfig, session: ReadSession, settings: SettingsDep) -> Response:
    """Return the complete configuration, warnings and an estimate, without creating a run."""
    machine = Machine(settings.training_memory_bytes, known_speeds(session))
    _version, plan = _planned(session, config, machine)
    body = {
        "config": plan.config.model_dump(mode="json"),
        "warnings": plan.warnings,
        "estimate": vars(plan.estimate),
        "net": plan.net.to_json() if plan.net else {},
    }
    return json_response(body)


def _planned(session: Session, config: RunConfig, machine: Machine) -> tuple[DatasetVersion, Plan]:
    wanted = config.dataset_ref
    version = ready_version(session, wanted.id, wanted.version)
    plan = make_plan(config, version.columns, version.rows, machine)
    dataset = {"id": version.dataset_id, "version": version.version}
    plan.config = plan.config.model_copy(update={"dataset": wanted.model_copy(update=dataset)})
    return version, plan


def _accepted(session: Session, run: Run, status: int = 202) -> Response:
    """Answer with the run."""
    location = f"/api/v1/runs/{run.id}"
    return json_response(representation.run_body(session, run), status, {"Location": location})


# ---- read and change ----------------------------------------------------------------------------


@router.get("", response_model=schemas.Page[schemas.Run], operation_id="list_runs")
def list_runs(
    session: ReadSession,
    page: PageParams,
    request: Request,
    wanted: Annotated[RunFilter, Query()],
) -> Response:
    """List runs, newest first."""
    bodies = partial(representation.run_bodies, session)
    return RUNS.page(request, session, page, bodies, *wanted.conditions(), one_of=wanted.states())


@router.get("/{run_id}", response_model=schemas.Run, operation_id="get_run")
@has_etag
async def get_run(
    run_id: str,
    watcher: WatcherDep,
    look: Annotated[RunLook, Depends()],
    request: Request,
    wait: Wait = 0,
) -> Response:
    """Return a run; with `wait`, when its state changes or after that many seconds."""
    body = await when_changed(request, watcher, run_id, look, wait)
    return json_unless_known(request, body)


@router.patch("/{run_id}", response_model=schemas.Run, operation_id="rename_run")
def rename(run_id: str, patch: schemas.RunPatch, session: WriteSession) -> Response:
    """Change the name or the tags."""
    run = lifecycle.get(session, run_id)
    if "name" in patch.model_fields_set:
        run.name = patch.name
    if "tags" in patch.model_fields_set:
        run.tags = patch.tags or {}
    session.flush()
    return json_response(representation.run_body(session, run))


@router.delete("/{run_id}", status_code=204, operation_id="delete_run")
def delete(run_id: str, session: WriteSession) -> Response:
    """Delete a finished run with its metrics and checkpoints; its model versions stay."""
    lifecycle.delete(session, run_id)
    return Response(status_code=204)


# ---- control ------------------------------------------------------------------------------------


@router.post(
    "/{run_id}/cancel",
    status_code=202,
    response_model=schemas.Run,
    responses=REPEATED,
    operation_id="cancel_run",
)
def cancel(run_id: str, session: WriteSession) -> Response:
    """Cancel a run; its best checkpoint is kept."""
    return _requested(lifecycle.cancel, session, run_id)


@router.post(
    "/{run_id}/pause",
    status_code=202,
    response_model=schemas.Run,
    responses=REPEATED,
    operation_id="pause_run",
)
def pause(run_id: str, session: WriteSession) -> Response:
    """Stop a run after its current step; `resume` continues from there."""
    return _requested(lifecycle.pause, session, run_id)


@router.post(
    "/{run_id}/resume",
    status_code=202,
    response_model=schemas.Run,
    responses=REPEATED,
    operation_id="resume_run",
)
def resume(run_id: str, session: WriteSession) -> Response:
    """Queue a paused run again."""
    return _requested(lifecycle.resume, session, run_id)


@router.post(
    "/{run_id}/retry", status_code=202, response_model=schemas.Run, operation_id="retry_run"
)
def retry(run_id: str, session: WriteSession) -> Response:
    """Create a run from one that failed or was cancelled; it starts from its last checkpoint."""
    old = lifecycle.get(session, run_id)
    ready_version(session, old.dataset_id, old.dataset_version)
    return _accepted(session, lifecycle.retry(session, run_id))


def _requested(
    request: Callable[[Session, str], tuple[Run, bool]], session: Session, run_id: str
) -> Response:
    run, is_new = request(session, run_id)
    return _accepted(session, run, 202 if is_new else 200)


# ---- follow -------------------------------------------------------------------------------------


@router.get(
    "/{run_id}/metrics",
    response_model=schemas.MetricsPage,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
    operation_id="get_metrics",
)
@has_etag
def get_metrics(
    run_id: str,
    session: ReadSession,
    request: Request,
    params: Annotated[MetricsParams, Query()],
) -> Response:
    """Return the live metric rows after `after`, in order."""
    run = lifecycle.get(session, run_id)
    wants_csv = prefers(request, "text/csv")
    etag = etag_of(run.id, run.attempt, run.metric_seq, run.state, request.url.query, wants_csv)
    headers = {"ETag": etag, "Vary": "Accept"}
    if not_modified(request, etag):
        return Response(status_code=304, headers=headers)
    is_terminal = run.state in lifecycle.TERMINAL
    page = metrics.page(session, run, params.query(), is_terminal=is_terminal)
    if wants_csv:
        return Response(metrics.as_csv(page.rows), headers=headers, media_type="text/csv")
    body = vars(page) | {"data": page.rows}
    del body["rows"]
    if params.layout == "columns":
        body["data"] = metrics.as_columns(page.rows)
    return json_response(body, headers=headers)


@router.get(
    "/{run_id}/trajectory", response_model=schemas.Trajectory, operation_id="get_trajectory"
)
@has_etag
def get_trajectory(
    run_id: str,
    session: ReadSession,
    request: Request,
    after: Annotated[int, Query(ge=-1, lt=2**63, description="Frames after this epoch.")] = -1,
    limit: Annotated[int, Query(ge=1, le=metrics.MAX_FRAMES)] = metrics.MAX_FRAMES,
) -> Response:
    """Return all parameters of a small net after each epoch; a larger one has no frames.

    A new attempt replaces the frames that its checkpoint does not cover: if `attempt` changes
    between two pages, read again from the beginning.
    """
    run = lifecycle.get(session, run_id)
    etag = etag_of(run.id, run.attempt, run.metric_seq, run.state, request.url.query)
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    page = metrics.page_of_frames(session, run.id, after, limit)
    is_final = run.state in lifecycle.TERMINAL and page.next_after is None
    body = vars(page) | {"attempt": run.attempt, "is_final": is_final}
    return json_response(body, headers={"ETag": etag})


@router.get(
    "/{run_id}/events",
    response_model=schemas.Page[schemas.RunEvent],
    operation_id="list_events",
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        204: {"description": "The run ended and the client has all events."},
    },
)
async def list_events(run_id: str, wanted: EventsDep) -> Response:
    """Return a page of events or, with `Accept: text/event-stream`, stream them as they come."""
    return await wanted.answer(Run, representation.event_bodies, run_id)


@router.get("/{run_id}/log", operation_id="get_log", response_class=PlainTextResponse)
@has_etag
def get_log(run_id: str, session: ReadSession, request: Request) -> Response:
    """Return the run's log as text, one line per event."""
    run = lifecycle.get(session, run_id)
    etag = etag_of(run.id, run.event_seq)
    if not_modified(request, etag):
        return Response(status_code=304, headers={"ETag": etag})
    return PlainTextResponse(representation.log_text(session, run_id), headers={"ETag": etag})


# ---- checkpoints --------------------------------------------------------------------------------


@router.get(
    "/{run_id}/checkpoints",
    response_model=schemas.Page[schemas.Checkpoint],
    operation_id="list_checkpoints",
)
def list_checkpoints(
    run_id: str, session: ReadSession, page: PageParams, request: Request
) -> Response:
    """List the checkpoints of a run that still exist, newest first."""
    lifecycle.get(session, run_id)
    return CHECKPOINTS.page(
        request,
        session,
        page,
        lambda rows: list(map(representation.checkpoint_body, rows)),
        Checkpoint.run_id == run_id,
    )


@router.post(
    "/{run_id}/checkpoints/{checkpoint_id}/register",
    status_code=201,
    response_model=schemas.ModelVersion,
    operation_id="register_checkpoint",
    tags=["models"],
)
def register_checkpoint(
    response: Response,
    session: WriteSession,
    blobs: BlobsDep,
    serving: ServingDep,
    run_id: str,
    checkpoint_id: str,
    body: schemas.CheckpointRegister,
) -> schemas.ModelVersion:
    """Publish a checkpoint of a run as the next version of a model."""
    run = lifecycle.get(session, run_id)
    checkpoint = lifecycle.find_checkpoint(session, run, checkpoint_id)
    document = _document(session, blobs, run, checkpoint)
    row = lifecycle.register(session, run, checkpoint, body.model, document)
    follow_change(serving, session, body.model)
    response.headers["Location"] = f"/api/v1/models/{body.model}/versions/{row.version}"
    return version_body(row, {}, None)


def _document(
    session: Session, blobs: BlobStore, run: Run, checkpoint: Checkpoint
) -> dict[str, Any]:
    known = versions.version_of_checkpoint(session, checkpoint.id)
    if known is not None:
        return {name: getattr(known, name) for name in ("signature", "metrics", "parameters")}
    is_result = checkpoint.id == run.best_checkpoint_id and run.evaluation is not None
    metrics = run.evaluation if is_result else checkpoint.metrics
    return describe(blobs, checkpoint.sha256) | {"metrics": metrics}
