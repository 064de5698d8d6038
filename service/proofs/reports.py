"""What the process of a proof reports, written down: each message fenced."""

import structlog
from sqlalchemy import Engine

from models.failpoints import reach
from service.blobs import BlobStore
from service.database import writing
from service.jobs import deaths, life
from service.jobs.pipe import Message
from service.jobs.work import Attempt
from service.proofs import lifecycle

log = structlog.get_logger("worker")


def write(engine: Engine, _blobs: BlobStore, attempt: Attempt, message: Message) -> None:
    """Write one message; raise Fenced where the proof has another owner."""
    kind, job_id, number = message["type"], attempt.job_id, attempt.number
    if kind == "alive":
        return
    reach(f"proof.{kind}")
    with writing(engine) as session:
        if kind == "finished":  # without a verdict: it was told to stop
            life.stopped(session, job_id, number)
        elif kind == "compared":
            failure = message["failure"]
            problem = failure and deaths.problem("proof_failed", failure)
            lifecycle.conclude(session, job_id, number, message["details"], problem)
        else:
            problem = deaths.problem(message["code"], message["detail"])
            life.fail(session, job_id, number, problem)
        reach(f"proof.{kind}.written")
    reach(f"proof.{kind}.committed")
    attempt.is_settled = True
    log.info("attempt ended", job_id=job_id, attempt=number, how=kind)
