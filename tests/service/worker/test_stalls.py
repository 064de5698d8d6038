"""Stalled trainers, as real processes."""

import array
import fcntl
import os
import re
import signal
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import select

from service.jobs import events
from service.runs.kind import RUNS
from service.runs.messages import TrainingJob
from service.runs.tables import Event
from service.storage.database import reading
from service.worker.launch import LocalLauncher
from service.worker.supervisor import STACK_S
from tests.conftest import MakeDatabase
from tests.service.worker.test_supervisor import LONG, ask, started_epochs
from tests.service.worker.workplace import TICK, Workplace, until, workplace_in
from tests.warm import Parent

pytestmark = pytest.mark.slow

SENDING = re.compile(r'/pipe\.py", line \d+ in send\n')
STALL_S = 3  # seconds; a trainer on a busy machine starts within them


@pytest.fixture(scope="module")
def workplace(
    tmp_path_factory: pytest.TempPathFactory, make_database: MakeDatabase, warm: Parent
) -> Iterator[Workplace]:
    """Return a workplace whose worker waits a few seconds for a message of a process."""
    folder = tmp_path_factory.mktemp("workplace")
    with workplace_in(make_database, "sqlite", folder, warm, STALL_S=str(STALL_S)) as place:
        place.staff(1)
        until(lambda: not warm.trainers())  # of services of other tests
        yield place


def test_a_trainer_that_stands_still_is_tried_once_more_and_then_given_up(
    workplace: Workplace,
) -> None:
    run_id = workplace.submit(workplace.add_dataset(), epochs=LONG)

    def trains_or_has_failed() -> bool:
        state = workplace.run(run_id).state
        return state == "failed" or (state == "running" and bool(workplace.warm.trainers()))

    stops = 0
    while workplace.run(run_id).state != "failed":
        until(trains_or_has_failed)
        for pid in workplace.warm.trainers():
            os.kill(pid, signal.SIGSTOP)
            stops += 1
        until(lambda: workplace.run(run_id).state in {"queued", "failed"})
    # On a busy machine, an attempt with a checkpoint before its stop restarts the count.
    assert stops >= 2
    run = workplace.wait_for(run_id, "failed")
    assert run.error is not None
    assert (run.error["code"], run.state_reason) == ("stalled", "stalled")
    assert f"no sign of progress for {STALL_S} s" in run.error["detail"]
    with reading(workplace.engine) as session:
        states = [event.data for event in events.of_kind(session, Event, run_id, "state")]
    assert [data["reason"] for data in states if "reason" in data] == ["stalled"] * stops


def test_a_long_epoch_is_no_stall(workplace: Workplace) -> None:
    network = {"type": "mlp", "hidden": [1000, 1000]}
    dataset = workplace.add_dataset(rows=60_000)  # its one epoch would take far longer than this
    run_id = workplace.submit(dataset, epochs=1, batch_size=1, model=network)
    workplace.wait_for(run_id, "running")
    began, steps = time.monotonic(), set()

    def is_old_enough() -> bool:
        steps.add((workplace.run(run_id).progress or {}).get("step"))
        return time.monotonic() - began > STALL_S + STACK_S + 1

    until(is_old_enough)
    run = workplace.run(run_id)
    assert (run.state, run.attempt, run.metric_seq) == ("running", 1, 0)
    assert len(steps) > 2
    ask(workplace, run_id, "cancel")
    workplace.wait_for(run_id, "cancelled")


def test_a_cancelled_run_whose_trainer_stands_still_is_cancelled(workplace: Workplace) -> None:
    run_id = workplace.submit(workplace.add_dataset(), epochs=LONG)
    until(lambda: started_epochs(workplace, run_id) > 0)
    os.kill(workplace.warm.trainers()[0], signal.SIGSTOP)
    ask(workplace, run_id, "cancel")
    workplace.wait_for(run_id, "cancelled", timeout_s=20)
    with reading(workplace.engine) as session:
        ends = select(Event.data).where(Event.job_id == run_id, Event.kind == "end")
        assert session.scalars(ends).all() == [{"state": "cancelled"}]


def test_a_trainer_that_hangs_shows_where(tmp_path: Path) -> None:
    table = tmp_path / "table.parquet"
    pq.write_table(pa.table({"x": [1.0, 2.0, 3.0], "y": [1.0, 3.0, 2.0]}), table)
    job = TrainingJob(
        run_id="run_1",
        attempt=1,
        config={
            "dataset": "ds_1",
            "target": "y",
            "features": ["x"],
            "task": "regression",
            "loss": "mse",
            "early_stopping": None,
            "epochs": LONG,
        },
        columns={"x": "number", "y": "number"},
        table=table,
        scratch=tmp_path,
        resume=None,
        seq=0,
        elapsed_s=0.0,
        saving_s=0.0,
        checkpoint_s=0.0,
    )
    launcher = LocalLauncher([RUNS.module])
    child = launcher.start(RUNS.module, job, tmp_path)
    words = tmp_path / "output.log"

    def shows() -> bool:
        # No process reads its messages, so it stalls while it sends one. The test does not signal
        # it earlier: a signal in the middle of an import may end the process.
        if has_filled(child.fileno()):
            child.show_stack()
        return SENDING.search(words.read_text()) is not None

    until(words.exists)
    try:
        until(shows)
    finally:
        child.kill()
        status = child.exit_code()
        launcher.close()
    assert status == -signal.SIGKILL


def has_filled(pipe: int) -> bool:
    """Whether the pipe has bytes to read and has no more of them a moment later."""
    before = waiting(pipe)
    threading.Event().wait(10 * TICK)
    return 0 < before == waiting(pipe)


def waiting(pipe: int) -> int:
    """Return the number of unread bytes."""
    count = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, count)
    return count[0]
