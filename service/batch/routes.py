"""The routes of batch predictions: submit, read, cancel and delete."""

from functools import partial
from typing import Annotated, Any

from fastapi import Path, Query, Request, Response
from sqlalchemy import Engine

from descent import schemas
from descent.schemas import BatchPredictionRequest
from service.batch import lifecycle
from service.batch.lifecycle import BatchPrediction, make_order
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
from service.http.strict_route import has_etag
from service.http.strict_route import router as strict_router
from service.jobs import life
from service.jobs.waiting import Wait, WatcherDep, when_changed
from service.storage.database import reading

BATCHES = NewestFirst(
    "batch_predictions", BatchPrediction, BatchPrediction.created_at, BatchPrediction.id
)

router = strict_router("/batch_predictions", tags=["batch predictions"])

BatchId = Annotated[schemas.BatchId, Path(description="The id of a batch prediction.")]


@router.post(
    "", status_code=202, response_model=schemas.BatchPrediction, operation_id="submit_batch"
)
def submit(asked: BatchPredictionRequest, session: WriteSession, settings: SettingsDep) -> Response:
    """Queue predictions for all rows of a dataset; they become a new dataset."""
    order = make_order(session, asked, settings.max_columns)
    return _accepted(lifecycle.submit(session, order))


def _accepted(job: BatchPrediction, status: int = 202) -> Response:
    """Answer with the job."""
    location = f"/api/v1/batch_predictions/{job.id}"
    return json_response(_body(job), status, {"Location": location})


@router.get("", response_model=schemas.Page[schemas.BatchPrediction], operation_id="list_batches")
def list_batches(
    session: ReadSession,
    page: PageParams,
    request: Request,
    state: Annotated[
        list[schemas.RunState] | None,
        Query(description="Only batch predictions in one of these states."),
    ] = None,
    model: Annotated[
        str | None, Query(description="Only batch predictions by the model of this name.")
    ] = None,
    dataset: Annotated[
        str | None, Query(description="Only batch predictions for the dataset with this id.")
    ] = None,
) -> Response:
    """List batch predictions, newest first."""
    conditions = []
    if model is not None:
        conditions.append(BatchPrediction.model_name == model)
    if dataset is not None:
        conditions.append(BatchPrediction.dataset_id == dataset)
    states = OneOf(BatchPrediction.state, state) if state else None
    return BATCHES.page(
        request, session, page, lambda jobs: list(map(_body, jobs)), *conditions, one_of=states
    )


@router.get("/{batch_id}", response_model=schemas.BatchPrediction, operation_id="get_batch")
@has_etag
async def get_batch(
    batch_id: BatchId,
    watcher: WatcherDep,
    engine: EngineDep,
    request: Request,
    wait: Wait = 0,
) -> Response:
    """Return a batch prediction; with `wait`, as soon as its state changes or the time is up."""
    body = await when_changed(request, watcher, batch_id, partial(_look, engine), wait)
    return json_unless_known(request, body)


def _look(engine: Engine, batch_id: str) -> tuple[dict[str, Any], int]:
    with reading(engine) as session:
        job = life.get(session, BatchPrediction, batch_id)
        return _body(job), job.event_seq


@router.post(
    "/{batch_id}/cancel",
    status_code=202,
    response_model=schemas.BatchPrediction,
    responses={
        200: {
            "model": schemas.BatchPrediction,
            "description": "It is already cancelled, or being cancelled.",
        }
    },
    operation_id="cancel_batch",
)
def cancel(batch_id: BatchId, session: WriteSession) -> Response:
    """End a batch prediction; all its results are discarded."""
    job, is_new = life.cancel(session, BatchPrediction, batch_id)
    return _accepted(job, 202 if is_new else 200)


@router.delete("/{batch_id}", status_code=204, operation_id="delete_batch")
def delete(batch_id: BatchId, session: WriteSession) -> Response:
    """Remove a batch prediction that has ended; its result, a dataset, stays."""
    session.delete(life.lock_ended(session, BatchPrediction, batch_id))
    session.flush()
    return Response(status_code=204)


def _body(job: BatchPrediction) -> dict[str, Any]:
    progress = job.progress or {}
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "state_reason": job.state_reason,
        "attempt": job.attempt,
        "model": {"name": job.model_name, "version": job.model_version, "alias": job.alias},
        "dataset": {"id": job.dataset_id, "version": job.dataset_version},
        "on_problem": job.on_problem,
        "result": {"id": job.result_id, "version": 1} if job.result_id else None,
        "added_columns": [
            {name: column.get(name) for name in ("name", "holds", "target", "class", "level")}
            for column in job.added
        ],
        "ignored_columns": job.ignored,
        "progress": progress,
        "rows": progress.get("rows"),
        **job.counts,
        "error": job.error,
        "not_before": job.waits_until if job.state == "queued" else None,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
    }
