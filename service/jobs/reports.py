"""What a trainer reports, written down: each message is one fenced transaction."""

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
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
from service.jobs.launch import Child, Message
from service.runs import lifecycle, metrics
from service.tables import Checkpoint

LAST_WORDS = 2000  # bytes of a dead trainer's output that its error shows

log = structlog.get_logger("worker")


@dataclass
class Attempt:
    """One attempt of a run on this supervisor."""

    run_id: str
    number: int
    child: Child
    scratch: Path
    inbox: deque[Message] = field(default_factory=deque)
    #: a checkpoint, the first of the inbox, that is being stored beside all else
    storing: Future[None] | None = None
    #: until when the first message is not tried again
    retry_at: float = 0.0
    #: what the trainer was told to do, and when it is killed if it does not
    stop_reason: str | None = None
    kill_at: float | None = None
    #: whether its end has been written, so that the end of the process means nothing more
    is_settled: bool = False
    has_ended: bool = False
    #: seconds without a message, and after how many of them it is killed
    silent_s: float = 0.0
    stalled_s: float | None = None
    #: how often the kernel had killed for want of memory when this began
    memory_kills: int = field(default_factory=deaths.memory_kills)


def write(engine: Engine, blobs: BlobStore, attempt: Attempt, message: Message) -> None:
    """Write one message of a trainer; raise Fenced where the run has another owner."""
    run_id, number, kind = attempt.run_id, attempt.number, message["type"]
    reach(f"report.{kind}")
    if kind == "checkpoint":
        _write_checkpoint(engine, blobs, attempt, message)
        return
    reach(f"report.{kind}.begin")
    with writing(engine) as session:
        if kind == "started":
            lifecycle.started(session, run_id, number, {"device": message["device"]})
            _add_warnings(session, run_id, message["warnings"])
        elif kind == "metrics":
            summary = {name: message[name] for name in ("progress", "best") if message[name]}
            metrics.append(session, run_id, number, message["rows"], summary)
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


def write_death(engine: Engine, attempt: Attempt, code: int | None) -> None:
    """Write that the process ended without a last message."""
    words = _last_words(attempt.scratch / "output.log")
    log.warning("trainer died", run_id=attempt.run_id, exit_code=code, last_words=words)
    with writing(engine) as session:
        if attempt.stop_reason:  # killed because it did not obey in time
            lifecycle.stopped(session, attempt.run_id, attempt.number)
        else:
            death = deaths.explain(
                code,
                words,
                stalled_s=attempt.stalled_s,
                memory_kills=deaths.memory_kills() - attempt.memory_kills,
            )
            lifecycle.crashed(
                session,
                attempt.run_id,
                attempt.number,
                death.words,
                code=death.code,
            )


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
                session, attempt.run_id, attempt.number, [], {"progress": message["progress"]}
            )
            lifecycle.add_checkpoint(
                session, attempt.run_id, attempt.number, checkpoint, is_resumable=resumable
            )
            references.keep(session, held)
            reach("report.checkpoint.written")
    except BlobCorrupt as error:  # the file is not what the trainer wrote
        with writing(engine) as session:
            lifecycle.crashed(session, attempt.run_id, attempt.number, str(error))
        attempt.is_settled = True
        attempt.child.kill()
        return
    reach("report.checkpoint.committed")
    path.unlink(missing_ok=True)


def _checkpoint(attempt: Attempt, message: Message, held: references.Stored) -> Checkpoint:
    return Checkpoint(
        id=new_id("ckpt"),
        run_id=attempt.run_id,
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
        lifecycle.stopped(session, attempt.run_id, attempt.number)
        return
    run = queue.fence(session, attempt.run_id, attempt.number)
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
    _add_warnings(session, attempt.run_id, message["warnings"])
    lifecycle.succeed(session, attempt.run_id, attempt.number, values)


def _add_warnings(session: Session, run_id: str, warnings: list[dict[str, Any]]) -> None:
    if warnings:
        run = lifecycle.get(session, run_id)
        run.warnings = [*run.warnings, *(w for w in warnings if w not in run.warnings)]


def _last_words(path: Path) -> str:
    if not path.exists():
        return ""
    return path.read_bytes()[-LAST_WORDS:].decode(errors="replace").strip()
