"""What the process of a batch prediction reports, written down: each message fenced."""

from pathlib import Path

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from models.failpoints import reach
from service import references
from service.batch import lifecycle
from service.blobs import BlobStore
from service.database import writing
from service.errors import BlobCorrupt
from service.jobs import deaths, life
from service.jobs.pipe import Message
from service.jobs.work import Attempt

log = structlog.get_logger("worker")


def write(engine: Engine, blobs: BlobStore, attempt: Attempt, message: Message) -> None:
    """Write one message; raise Fenced where the job has another owner."""
    kind = message["type"]
    if kind == "alive":
        return
    reach(f"batch.{kind}")
    if "path" in message:
        _store(engine, blobs, attempt, message)
    else:
        with writing(engine) as session:
            _write(session, attempt, message)
            reach(f"batch.{kind}.written")
    reach(f"batch.{kind}.committed")
    if kind in {"finished", "failed"}:
        attempt.is_settled = True
        log.info("attempt ended", job_id=attempt.job_id, attempt=attempt.number, how=kind)


def _write(session: Session, attempt: Attempt, message: Message) -> None:
    job_id, number = attempt.job_id, attempt.number
    if message["type"] == "started":
        life.started(session, job_id, number, {})
    elif message["type"] == "finished":  # without a result: it was told to stop
        life.stopped(session, job_id, number)
    else:
        problem = deaths.problem(message["code"], message["detail"])
        life.fail(session, job_id, number, problem)


def _store(engine: Engine, blobs: BlobStore, attempt: Attempt, message: Message) -> None:
    """Store a chunk or the result, then make it visible in one fenced transaction."""
    job_id, number, kind = attempt.job_id, attempt.number, message["type"]
    path = Path(message["path"])
    try:
        with (
            references.stored(engine, blobs, path, message["sha256"]) as held,
            writing(engine) as session,
        ):
            reach(f"batch.{kind}.begin")
            if kind == "chunk":
                chunk = lifecycle.Chunk(message["number"], message["rows"], message["counts"])
                lifecycle.add_chunk(session, job_id, number, chunk, held)
            else:
                lifecycle.succeed(session, job_id, number, message["columns"], held)
            reach(f"batch.{kind}.written")
    except BlobCorrupt as error:  # the file is not what the process wrote
        with writing(engine) as session:
            life.crashed(session, job_id, number, str(error))
        attempt.is_settled = True
        attempt.child.kill()
        return
    path.unlink(missing_ok=True)
