"""Parses as a kind of job: the input of the process, turns of callers, and the ends of a parse.

Small files have their own slot, so that they never wait behind large ones.
"""

from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session, aliased

from service.datasets import rejected
from service.datasets.messages import Parsed, ParseJob, ParseRefusal, TookLong
from service.datasets.rejected import Rejected
from service.datasets.sandbox import WORKBOOK_SHARE, Limits, Task
from service.datasets.versions import Dataset, DatasetVersion, Parse
from service.errors import BlobCorrupt, Fenced
from service.jobs import life, queue
from service.jobs.kind import InputUnavailable, Kind, Site, Tenure
from service.jobs.pipe import Failure, Heartbeat, Message, Obeyed
from service.storage.database import reading, row_count
from service.storage.references import HeldBlob

#: Seconds after which a file that seemed small leaves the slot of small files.
PATIENCE_S = 2.0

Messages = Annotated[
    Parsed | ParseRefusal | TookLong | Heartbeat | Obeyed | Failure, Field(discriminator="type")
]


class BytesLost(InputUnavailable):
    """The stored bytes of the file are lost: upload it again."""

    code = "bytes_lost"


def claim(
    session: Session, owner: str, lease_s: float, *, only_small: bool = False
) -> Parse | None:
    """Give the next parse to an owner; callers take turns, the longest wait first."""
    return life.claim(session, Parse, owner, lease_s=lease_s, choice=_turns(only_small=only_small))


@cache
def _turns(*, only_small: bool) -> queue.ClaimRule:
    other = aliased(Parse)
    same = other.caller == Parse.caller
    owned = select(func.count()).where(same, other.state.in_(queue.OWNED)).correlate(Parse)
    served = select(func.max(other.claimed_at)).where(same).correlate(Parse).scalar_subquery()
    return queue.ClaimRule(
        only=[Parse.is_small.is_(True)] if only_small else [],
        first=[owned.scalar_subquery(), served.is_not(None), served],
    )


def prepare(site: Site, job: Parse, scratch: Path, *, patience_s: float | None = None) -> ParseJob:
    """Return the job, with the bytes as a local file. Raises BytesLost."""
    with reading(site.engine) as session:
        dataset = session.get(Dataset, job.dataset_id)
    if dataset is None or dataset.sha256 is None:
        raise Fenced(f"the dataset of {job.id} is deleted")
    try:
        path = site.blobs.fetch(dataset.sha256, scratch)
    except BlobCorrupt as error:
        raise BytesLost from error
    limits = Limits(site.settings.parse_memory_bytes, site.settings.parse_timeout_s)
    task = Task(
        path=str(path),
        folder=str(scratch),
        media_type=dataset.media_type,
        options=job.options,
        max_columns=site.settings.max_columns,
        max_bytes=site.settings.max_upload_bytes,
        max_ratio=site.settings.max_gzip_ratio,
        workbook_bytes=int(limits.memory_bytes * WORKBOOK_SHARE),
    )
    return ParseJob(task=task, limits=limits, patience_s=patience_s, scratch=scratch)


def write(session: Session, tenure: Tenure, message: Message, held: HeldBlob | None) -> None:
    """Make the new version visible, or end the parse in another way."""
    job_id, attempt = tenure.job_id, tenure.attempt
    match message:
        case Parsed() if held is not None:
            _publish(session, queue.hold(session, Parse, job_id, attempt), message, held)
        case ParseRefusal():
            refused = Rejected(message.code, message.detail, message.errors, status=message.status)
            life.fail(session, job_id, attempt, rejected.as_error(refused).problem())
        case TookLong():
            queue.hold(session, Parse, job_id, attempt)
            session.execute(update(Parse).where(Parse.id == job_id).values(is_small=False))
            life.stopped(session, job_id, attempt)


def _publish(session: Session, parse: Parse, message: Parsed, held: HeldBlob) -> None:
    is_first = parse.version == 1
    values: dict[str, Any] = {"version": parse.version, "state": "ready"}
    if is_first and message.name:
        values["name"] = message.name
    changed = session.execute(
        update(Dataset)
        .where(Dataset.id == parse.dataset_id, Dataset.version == parse.version - 1)
        .where(Dataset.state == ("ingesting" if is_first else "ready"))
        .values(**values)
    )
    if row_count(changed) != 1:
        problem = rejected.version_conflict().problem()
        life.fail(session, parse.id, parse.attempt, problem)
        return
    version = DatasetVersion(
        dataset_id=parse.dataset_id,
        version=parse.version,
        options=parse.options,
        reading=message.reading,
        rows=message.rows,
        columns=message.columns,
        warnings=message.warnings,
        table_sha256=held.sha256,
    )
    session.add(version)
    life.succeed(session, parse.id, parse.attempt, {})


PARSES = Kind(
    table=Parse,
    module="service.datasets.parse",
    slots=lambda _settings: 1,
    claim=claim,
    prepare=prepare,
    messages=TypeAdapter(Messages),
    write=write,
)
#: The slot of small files. A file that takes too long goes back to the queue as a large one.
SMALL_PARSES = Kind(
    table=Parse,
    module=PARSES.module,
    slots=lambda _settings: 1,
    claim=partial(claim, only_small=True),
    prepare=partial(prepare, patience_s=PATIENCE_S),
    messages=PARSES.messages,
    write=write,
)
