"""Messages that arrive together share a transaction, and leave the inbox with its commit."""

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, func, select

from models.training.interface import MetricRow, Progress
from service.errors import Fenced, StorageUnavailable
from service.jobs.kind import Site, Tenure
from service.jobs.pipe import Message
from service.runs import lifecycle
from service.runs.kind import RUNS
from service.runs.messages import (
    CheckpointFile,
    LogLine,
    MetricRows,
    TrainingBegan,
    TrainingEnded,
)
from service.runs.tables import Checkpoint, Metric, Run
from service.settings import Settings
from service.storage.blobs import LocalBlobs
from service.storage.database import reading, writing
from service.storage.references import BlobPin
from service.worker import attempts
from service.worker.attempts import Attempt, Process
from tests.service.rows import add_run, everything_of
from tests.service.worker.test_storing import Slow, Told

pytestmark = pytest.mark.both_databases

DONE = Progress(2, 2, 2, 2, 1.0, 0.0, 0.1, 0.0)
BEGAN = TrainingBegan(device="cpu", engine="chunked", warnings=[], subject=None, frames=[])
ENDED = TrainingEnded(
    reason=None, evaluation={"train": {}}, parameters=None, warnings=[], signature=None
)


@pytest.fixture
def site(settings: Settings, engine: Engine, tmp_path: Path) -> Site:
    return Site(settings, engine, LocalBlobs(tmp_path / "blobs"))


@pytest.fixture
def attempt(engine: Engine, tmp_path: Path) -> Attempt:
    """The first attempt of a run, which has sent nothing yet."""
    return begin(engine, tmp_path)


def begin(engine: Engine, folder: Path) -> Attempt:
    with writing(engine) as session:
        add_run(session)
        claimed = lifecycle.claim(session, "worker", lease_s=60)
    assert claimed is not None
    return Attempt(Process(RUNS, Told(), folder), Tenure(claimed.id, 1), folder)


def rows(first: int, last: int) -> MetricRows:
    made = [MetricRow(n, n, n, "train", "loss", 1 / n, 0.01) for n in range(first, last + 1)]
    return MetricRows(rows=made, frames=[], progress=DONE, best=None)


def checkpoint(folder: Path, seq: int) -> CheckpointFile:
    path = folder / f"checkpoint-{seq}"
    path.write_text(f"state {seq}")
    return CheckpointFile(
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        bytes=path.stat().st_size,
        epoch=seq,
        step=seq,
        seq=seq,
        metrics={},
        metrics_epoch=seq,
        is_best=True,
        resumable=True,
        progress=DONE,
    )


def write(site: Site, attempt: Attempt, *messages: Message) -> None:
    attempt.inbox.extend(messages)
    attempts.write(site, attempt, list(attempt.inbox))


def run_of(engine: Engine, attempt: Attempt) -> Run:
    with reading(engine) as session:
        return session.get_one(Run, attempt.tenure.job_id)


def count(engine: Engine, table: type[Metric | Checkpoint | BlobPin]) -> int:
    with reading(engine) as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_a_run_whose_messages_arrive_together_ends_within_two_commits(
    site: Site, engine: Engine, attempt: Attempt, tmp_path: Path
) -> None:
    commits: list[object] = []
    event.listen(engine, "commit", commits.append)
    write(site, attempt, BEGAN, rows(1, 2), checkpoint(tmp_path, 2), ENDED)
    assert len(commits) == 2
    run = run_of(engine, attempt)
    assert (run.state, run.metric_seq, run.latest) == ("succeeded", 2, {"train": {"loss": 0.5}})
    assert (count(engine, Checkpoint), count(engine, BlobPin)) == (1, 0)
    assert attempt.is_settled
    assert not attempt.inbox


def test_messages_together_leave_the_same_rows_as_one_by_one(
    site: Site, engine: Engine, attempt: Attempt, tmp_path: Path
) -> None:
    messages = [BEGAN, LogLine(line="a note"), rows(1, 3), rows(4, 4)]
    for message in messages:
        write(site, attempt, message)
    write(site, attempt, checkpoint(tmp_path, 4))
    write(site, attempt, ENDED)
    other = begin(engine, tmp_path)
    write(site, other, *messages, checkpoint(tmp_path, 4), ENDED)
    apart, together = (
        [len(table) for table in everything_of(engine, each.tenure.job_id)]
        for each in (attempt, other)
    )
    assert apart == together
    ends = [run_of(engine, each) for each in (attempt, other)]
    assert ends[0].event_seq == ends[1].event_seq
    assert ends[0].state == ends[1].state == "succeeded"


def test_a_refused_message_leaves_nothing_of_those_that_came_with_it(
    site: Site, engine: Engine, attempt: Attempt
) -> None:
    before = everything_of(engine, attempt.tenure.job_id)
    with pytest.raises(Fenced):
        write(site, attempt, BEGAN, rows(1, 2), rows(5, 6))  # rows 3 and 4 are missing
    assert everything_of(engine, attempt.tenure.job_id) == before
    assert len(attempt.inbox) == 3


def test_a_store_that_fails_keeps_the_rows_and_lets_the_file_be_sent_again(
    site: Site, engine: Engine, attempt: Attempt, tmp_path: Path
) -> None:
    saved = checkpoint(tmp_path, 2)
    away = Slow(site.blobs, fails=StorageUnavailable())
    with pytest.raises(StorageUnavailable):
        write(Site(site.settings, engine, away), attempt, BEGAN, rows(1, 2), saved, ENDED)
    assert run_of(engine, attempt).metric_seq == 2
    assert list(attempt.inbox) == [saved, ENDED]
    assert (count(engine, Checkpoint), count(engine, BlobPin)) == (0, 0)
    write(site, attempt)
    assert run_of(engine, attempt).state == "succeeded"
    assert (count(engine, Metric), count(engine, Checkpoint)) == (2, 1)


def test_a_file_that_changed_after_its_message_is_the_death_of_its_process(
    site: Site, engine: Engine, attempt: Attempt, tmp_path: Path
) -> None:
    saved = checkpoint(tmp_path, 2)
    saved.path.write_text("other bytes")
    write(site, attempt, BEGAN, rows(1, 2), saved, ENDED)
    assert run_of(engine, attempt).state_reason == "crashed"
    assert (count(engine, Checkpoint), count(engine, BlobPin)) == (0, 0)
    assert attempt.is_settled
