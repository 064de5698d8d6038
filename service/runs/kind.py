"""Runs as a kind of job: the input of the training process, and how its messages are stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import structlog
from pydantic import Field, TypeAdapter
from sqlalchemy.orm import Session

from descent.spec import ColumnType
from service.datasets.messages import VersionReading
from service.datasets.versions import DatasetVersion, fetch_table, reading_of
from service.errors import BlobCorrupt
from service.jobs import queue
from service.jobs.kind import Kind, Site, Tenure, Together
from service.jobs.pipe import Failure, Obeyed
from service.runs import lifecycle, metrics, speeds
from service.runs.groups import count_fitting
from service.runs.messages import (
    CheckpointFile,
    LogLine,
    MetricRows,
    RungReached,
    TrainingBegan,
    TrainingEnded,
    TrainingGroup,
    TrainingHeartbeat,
    TrainingJob,
)
from service.runs.tables import Checkpoint, Run
from service.storage.columns import new_id
from service.storage.database import reading, writing
from service.storage.references import HeldBlob

log = structlog.get_logger("worker")


# ---- several runs in one process ----------------------------------------------------------------


def claim_companions(site: Site, session: Session, first: Run, owner: str) -> list[Run]:
    """Claim the runs that train in the process of `first`, as many as it has memory for."""

    def choose(waiting: Sequence[Run]) -> Sequence[Run]:
        version = session.get(DatasetVersion, (first.dataset_id, first.dataset_version))
        if version is None or not waiting:
            return []
        configs = [first.config, *(run.config for run in waiting)]
        most = site.settings.training_memory_bytes
        return waiting[: count_fitting(configs, version.columns, version.rows, most) - 1]

    lease_s = site.settings.lease_s
    return lifecycle.claim_companions(session, first, owner, choose, lease_s=lease_s)


# ---- the input of the process -------------------------------------------------------------------


def prepare(site: Site, run: Run, scratch: Path) -> TrainingJob:
    """Return the job of a claimed run, with its table and its checkpoint as local files.

    Raises InputUnavailable if the dataset was deleted. A damaged checkpoint is replaced by the
    previous one.
    """
    version, table = fetch_table(site, run.dataset_id, run.dataset_version, scratch)
    columns = {column["name"]: column["type"] for column in version.columns}
    return _job(site, run, scratch, Source(columns, reading_of(version), table))


def prepare_companion(site: Site, run: Run, scratch: Path, first: TrainingJob) -> TrainingJob:
    """Return the job of a run that trains in the process of `first`, on the same dataset."""
    return _job(site, run, scratch, Source(first.columns, first.reading, first.table))


@dataclass(frozen=True)
class Source:
    """The table of a run, as a local file."""

    #: column name → its type
    columns: dict[str, ColumnType]
    reading: VersionReading
    table: Path


def _job(site: Site, run: Run, scratch: Path, source: Source) -> TrainingJob:
    newest = None
    if run.resume_checkpoint_id is not None:
        with reading(site.engine) as session:
            newest = lifecycle.resume_checkpoint(session, run)
    checkpoint, resume = _fetch_checkpoint(site, run, newest, scratch)
    progress = run.progress or {}
    return TrainingJob(
        run_id=run.id,
        attempt=run.attempt,
        config=run.config,
        columns=source.columns,
        reading=source.reading,
        table=source.table,
        scratch=scratch,
        resume=resume,
        seq=lifecycle.covered_seq(run.id, checkpoint),
        # Time lost since the checkpoint counts too, because a budget limits all time spent.
        elapsed_s=progress.get("elapsed_s", 0.0),
        saving_s=progress.get("saving_s", 0.0),
        checkpoint_s=site.settings.checkpoint_s,
        engine=None if site.settings.engine == "auto" else site.settings.engine,
        pause_after=run.pause_after,
        memory_bytes=site.settings.training_memory_bytes,
    )


def _fetch_checkpoint(
    site: Site, run: Run, checkpoint: Checkpoint | None, scratch: Path
) -> tuple[Checkpoint | None, Path | None]:
    """Return the newest undamaged checkpoint and its file; None if there is none."""
    while checkpoint is not None:
        try:
            return checkpoint, site.blobs.fetch(checkpoint.sha256, scratch)
        except BlobCorrupt as error:
            log.error("checkpoint_corrupt", run_id=run.id, reason=str(error))  # noqa: TRY400  a traceback would add nothing to the reason
            with writing(site.engine) as session:
                checkpoint = lifecycle.fall_back(session, run.id, run.attempt, checkpoint)
    return None, None


# ---- the messages of the process ----------------------------------------------------------------

Messages = Annotated[
    TrainingBegan
    | MetricRows
    | TrainingHeartbeat
    | CheckpointFile
    | LogLine
    | RungReached
    | TrainingEnded
    | Obeyed
    | Failure,
    Field(discriminator="type"),
]


def write(session: Session, tenure: Tenure, message: Messages, held: HeldBlob | None) -> None:
    """Store a message of a training process in the session's transaction."""
    run_id, attempt = tenure.job_id, tenure.attempt
    match message:
        case TrainingBegan():
            found = {"device": message.device, "engine": message.engine}
            lifecycle.started(session, run_id, attempt, found)
            log.info("training began", run_id=run_id, **found)
            _add_warnings(session, run_id, message.warnings)
            metrics.begin_trajectory(session, run_id, message.subject, message.frames)
        case MetricRows():
            best = vars(message.best) if message.best else None
            summary = {"progress": vars(message.progress)} | ({"best": best} if best else {})
            rows = [vars(row) for row in message.rows]
            metrics.append(session, run_id, attempt, rows, summary)
            metrics.append_frames(session, run_id, message.frames)
        case TrainingHeartbeat():
            metrics.append(session, run_id, attempt, [], {"progress": vars(message.progress)})
        case CheckpointFile() if held is not None:
            _write_checkpoint(session, tenure, message, held)
        case LogLine():
            lifecycle.log(session, run_id, attempt, message.line)
        case RungReached():
            lifecycle.rest(session, run_id, attempt)
        case TrainingEnded():
            _write_end(session, tenure, message)


def _write_checkpoint(
    session: Session, tenure: Tenure, message: CheckpointFile, held: HeldBlob
) -> None:
    run_id, attempt = tenure.job_id, tenure.attempt
    checkpoint = Checkpoint(
        id=new_id("ckpt"),
        run_id=run_id,
        attempt=attempt,
        epoch=message.epoch,
        step=message.step,
        metric_seq=message.seq,
        metrics=message.metrics,
        metrics_epoch=message.metrics_epoch,
        sha256=held.sha256,
        bytes=held.bytes,
        is_best=message.is_best,
    )
    lifecycle.add_checkpoint(
        session,
        run_id,
        attempt,
        checkpoint,
        is_resumable=message.resumable,
        progress=vars(message.progress) if message.progress else None,
    )


def _write_end(session: Session, tenure: Tenure, message: TrainingEnded) -> None:
    """Store the end of the training: a model version if `register_as` is set, and `succeeded`."""
    run = queue.hold(session, Run, tenure.job_id, tenure.attempt)
    values: dict[str, Any] = {"evaluation": message.evaluation, "state_reason": message.reason}
    name = run.config.get("register_as")
    if name and run.best_checkpoint_id:
        checkpoint = session.get_one(Checkpoint, run.best_checkpoint_id)
        document = {
            "signature": message.signature,
            "metrics": message.evaluation,
            "parameters": message.parameters,
        }
        version = lifecycle.register(session, run, checkpoint, name, document)
        values |= {"model_name": name, "model_version": version.version}
    if run.sweep_id:  # whether it is the best member shows when the sweep ends
        values["outcome"] = {"signature": message.signature, "parameters": message.parameters}
    _add_warnings(session, run.id, message.warnings)
    if message.speed is not None:
        speeds.note(session, message.speed)
    lifecycle.succeed(session, run.id, tenure.attempt, values)


def _add_warnings(session: Session, run_id: str, warnings: list[dict[str, Any]]) -> None:
    if warnings:
        run = lifecycle.get(session, run_id)
        run.warnings = [*run.warnings, *(w for w in warnings if w not in run.warnings)]


RUNS = Kind(
    table=Run,
    module="service.runs.train",
    slots=lambda settings: settings.workers,
    claim=lambda session, owner, lease_s: lifecycle.claim(session, owner, lease_s=lease_s),
    prepare=prepare,
    messages=TypeAdapter(Messages),
    write=write,
    device=lambda run: run.config.get("device"),
    together=Together(
        claim=claim_companions,
        prepare=prepare_companion,
        join=lambda jobs: TrainingGroup(jobs=list(jobs)),
    ),
)
