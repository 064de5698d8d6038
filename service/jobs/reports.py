"""What a trainer reports, written down: each message is one fenced transaction."""

from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models.failpoints import reach
from service import references
from service.blobs import BlobStore
from service.database import writing
from service.errors import BlobCorrupt
from service.ids import new_id
from service.inference import registry
from service.jobs import deaths, queue
from service.jobs.pipe import Message
from service.jobs.work import Attempt
from service.runs import lifecycle, metrics, trajectories
from service.tables import Checkpoint

log = structlog.get_logger("worker")


def write(engine: Engine, blobs: BlobStore, attempt: Attempt, message: Message) -> None:
    """Write one message of a trainer; raise Fenced where the run has another owner."""
    run_id, number, kind = attempt.job_id, attempt.number, message["type"]
    frames = message.get("frames", [])  # of a small net only
    reach(f"report.{kind}")
    if kind == "checkpoint":
        _write_checkpoint(engine, blobs, attempt, message)
        return
    reach(f"report.{kind}.begin")
    with writing(engine) as session:
        if kind == "started":
            lifecycle.started(session, run_id, number, {"device": message["device"]})
            _add_warnings(session, run_id, message["warnings"])
            trajectories.begin(session, run_id, message.get("subject"), frames)
        elif kind == "metrics":
            summary = {name: message[name] for name in ("progress", "best") if message[name]}
            metrics.append(session, run_id, number, message["rows"], summary)
            trajectories.append(session, run_id, frames)
        elif kind == "alive":
            metrics.append(session, run_id, number, [], {"progress": message["progress"]})
        elif kind == "log":
            lifecycle.log(session, run_id, number, message["line"])
        elif kind == "finished":
            _finish(session, attempt, message)
        elif kind == "failed":
            where = message.get("where")
            problem = deaths.problem(message["code"], message["detail"], where=where)
            lifecycle.fail(session, run_id, number, problem)
        reach(f"report.{kind}.written")
    reach(f"report.{kind}.committed")
    if kind in {"finished", "failed"}:
        attempt.is_settled = True
        log.info("attempt ended", run_id=run_id, attempt=number, how=kind)


def _write_checkpoint(engine: Engine, blobs: BlobStore, attempt: Attempt, message: Message) -> None:
    """Store the bytes of a checkpoint, then make them visible in one fenced transaction."""
    path = Path(message["path"])
    try:
        with (
            references.stored(engine, blobs, path, message["sha256"]) as held,
            writing(engine) as session,
        ):
            reach("report.checkpoint.begin")
            checkpoint = _checkpoint(attempt, message, held)
            resumable = message["resumable"]
            metrics.append(
                session, attempt.job_id, attempt.number, [], {"progress": message["progress"]}
            )
            lifecycle.add_checkpoint(
                session, attempt.job_id, attempt.number, checkpoint, is_resumable=resumable
            )
            references.keep(session, held)
            reach("report.checkpoint.written")
    except BlobCorrupt as error:  # the file is not what the trainer wrote
        with writing(engine) as session:
            lifecycle.crashed(session, attempt.job_id, attempt.number, str(error))
        attempt.is_settled = True
        attempt.child.kill()
        return
    reach("report.checkpoint.committed")
    path.unlink(missing_ok=True)


def _checkpoint(attempt: Attempt, message: Message, held: references.Stored) -> Checkpoint:
    return Checkpoint(
        id=new_id("ckpt"),
        run_id=attempt.job_id,
        attempt=attempt.number,
        epoch=message["epoch"],
        step=message["step"],
        metric_seq=message["seq"],
        metrics=message["metrics"],
        metrics_epoch=message["metrics_epoch"],
        sha256=held.sha256,
        bytes=held.bytes,
        is_best=message["is_best"],
    )


def _finish(session: Session, attempt: Attempt, message: Message) -> None:
    """Write the end of the work: a model and `succeeded`, or what a stop led to."""
    if message["reason"] in {"cancel", "pause", "handback"}:
        lifecycle.stopped(session, attempt.job_id, attempt.number)
        return
    run = queue.fence(session, attempt.job_id, attempt.number)
    values: dict[str, Any] = {
        "evaluation": message["evaluation"],
        "state_reason": message["reason"],
    }
    name = run.config.get("register_as")
    if name and run.best_checkpoint_id:
        checkpoint = session.get_one(Checkpoint, run.best_checkpoint_id)
        version = registry.register(
            session,
            run=run,
            checkpoint=checkpoint,
            model=name,
            document={
                "signature": message["signature"],
                "metrics": message["evaluation"],
                "parameters": message["parameters"],
            },
        )
        values |= {"model_name": name, "model_version": version.version}
    _add_warnings(session, attempt.job_id, message["warnings"])
    lifecycle.succeed(session, attempt.job_id, attempt.number, values)


def _add_warnings(session: Session, run_id: str, warnings: list[dict[str, Any]]) -> None:
    if warnings:
        run = lifecycle.get(session, run_id)
        run.warnings = [*run.warnings, *(w for w in warnings if w not in run.warnings)]
