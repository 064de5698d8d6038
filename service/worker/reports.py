"""Writes the messages of processes: each is one fenced transaction, whatever the kind of job."""

import structlog
from sqlalchemy.orm import Session

from models.failpoints import reach
from service.errors import BlobCorrupt
from service.jobs import deaths, life
from service.jobs.kind import Site, Tenure
from service.jobs.messages import Began, Failure, FileMessage, Heartbeat, Message, Obeyed
from service.storage import references
from service.storage.database import writing
from service.worker.attempts import Attempt

log = structlog.get_logger("worker")


def write(site: Site, attempt: Attempt, message: Message) -> None:
    """Write a message; raise Fenced where the job has another owner."""
    if type(message) is Heartbeat:
        return
    point = f"{attempt.kind.table.prefix}.{message.type}"
    reach(point)
    if isinstance(message, FileMessage):
        if not _store(site, attempt, message, point):
            return
    else:
        with writing(site.engine) as session:
            reach(f"{point}.begin")
            if type(message) in {Began, Obeyed, Failure}:
                _write_common(session, attempt.tenure, message)
            else:
                attempt.kind.write(session, attempt.tenure, message, None)
            reach(f"{point}.written")
    reach(f"{point}.committed")
    if message.is_last:
        attempt.is_settled = True
        tenure = attempt.tenure
        log.info("attempt ended", job_id=tenure.job_id, attempt=tenure.attempt, how=message.type)


def _write_common(session: Session, tenure: Tenure, message: Message) -> None:
    job_id, number = tenure.job_id, tenure.attempt
    match message:
        case Began():
            life.started(session, job_id, number, {})
        case Obeyed():
            life.stopped(session, job_id, number)
        case Failure():
            problem = deaths.problem(message.code, message.detail, where=message.where)
            life.fail(session, job_id, number, problem)


def _store(site: Site, attempt: Attempt, message: FileMessage, point: str) -> bool:
    """Store the file, then make it visible in one transaction; return whether it was whole."""
    tenure = attempt.tenure
    try:
        with (
            references.stored(site.engine, site.blobs, message.path, message.sha256) as held,
            writing(site.engine) as session,
        ):
            reach(f"{point}.begin")
            attempt.kind.write(session, tenure, message, held)
            references.keep(session, held)
            reach(f"{point}.written")
    except BlobCorrupt as error:  # the file is not what the process wrote
        with writing(site.engine) as session:
            life.crashed(session, tenure.job_id, tenure.attempt, str(error))
        attempt.is_settled = True
        attempt.child.kill()
        return False
    message.path.unlink(missing_ok=True)
    return True
