"""Leases do not use the wall clock: a wrong wall clock has no effect on them."""

import ast
import os
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from service import system
from service.jobs import queue
from service.jobs.kind import Worker
from service.runs import lifecycle
from service.runs.tables import Run
from service.storage import database
from service.storage.columns import utc_now
from service.storage.database import reading, writing
from tests.service.rows import add_dataset, add_run
from tests.service.worker.workplace import Workplace, until
from tests.warm import Parent

pytestmark = [pytest.mark.slow, pytest.mark.both_databases]

LEASE = 20.0
#: functions that a decision about leases must not call
WALL = {"utc_now", "now", "time", "today", "utcnow"}
AHEAD = 7200  # seconds
#: a library that sets the wall clock of its process ahead by AHEAD
SHIM = """
#define _GNU_SOURCE
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    long failed = syscall(SYS_clock_gettime, id, at);
    if (!failed && id == CLOCK_REALTIME) at->tv_sec += AHEAD;
    return (int)failed;
}
"""


@pytest.fixture(scope="module")
def ahead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    """Start a process like `warm` whose clock is ahead, as are the clocks of its forks."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to move a clock with")
    folder = tmp_path_factory.mktemp("ahead")
    source, shim = folder / "shim.c", folder / "shim.so"
    source.write_text(SHIM)
    order: list[Path | str] = [compiler, "-shared", "-fPIC", f"-DAHEAD={AHEAD}", "-o", shim, source]
    subprocess.run(order, check=True)
    parent = Parent(os.environ | {"LD_PRELOAD": str(shim)}, folder / "log")
    yield parent
    parent.end()


def calls_in(path: str, function: str) -> set[str]:
    tree = ast.parse(Path(path).read_text())
    (node,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function)
    names = (call.func for call in ast.walk(node) if isinstance(call, ast.Call))
    return {name.attr if isinstance(name, ast.Attribute) else ast.unparse(name) for name in names}


@pytest.mark.parametrize(
    "function", ["beat", "hold", "expired", "take_expired", "expire_now", "_is_expired"]
)
def test_no_decision_about_a_lease_asks_the_wall_clock(function: str) -> None:
    assert not calls_in(queue.__file__, function) & WALL


def test_the_clock_of_leases_is_not_the_wall_clock() -> None:
    assert not calls_in(database.__file__, "clock") & WALL


@pytest.mark.parametrize("hours", [-1, 1])
def test_stamps_that_are_an_hour_off_change_no_lease(engine: Engine, hours: int) -> None:
    with writing(engine) as session:
        dataset = add_dataset(session)
        held, waiting = (add_run(session, dataset).id for _ in range(2))
        lifecycle.claim(session, "w1", lease_s=LEASE, now=0.0)
        moved = utc_now() + timedelta(hours=hours)
        stamps = {"created_at": moved, "queued_at": moved, "claimed_at": moved}
        session.execute(update(Run).values(**stamps))
    with reading(engine) as session:
        assert queue.expired(session, [Run], now=LEASE - 1) == []
        assert queue.expired(session, [Run], now=LEASE + 1) == [(held, 1)]
        assert queue.waiting(session, [Run], now=0.0) == [Run]
    with writing(engine) as session:
        claimed = lifecycle.claim(session, "w2", lease_s=LEASE, now=0.0)
        assert (claimed.id if claimed else None) == waiting


def test_workers_whose_clocks_are_two_hours_apart_take_over_from_each_other(
    engine: Engine, tmp_path: Path, warm: Parent, ahead: Parent
) -> None:
    settings = {"CHECKPOINT_S": "0.5"}
    place = Workplace(engine, tmp_path, warm, settings=settings)
    other = Workplace(engine, tmp_path, ahead, settings=settings)
    try:
        place.staff(1)
        other.staff(1)
        with reading(engine) as session:
            early = session.scalars(select(Worker).where(Worker.pid == other.workers[0].pid)).one()
            assert early.started_at - utc_now() > timedelta(seconds=AHEAD - 600)
            if engine.dialect.name == "postgresql":  # else all are on one machine
                assert len(system.workers(session)) == 2
        long = place.submit(place.add_dataset(), epochs=200_000)
        until(lambda: place.run(long).resume_checkpoint_id is not None)
        assert (place.run(long).attempt, place.run(long).state) == (1, "running")
        owner = int(str(place.run(long).owner).rsplit("-", 2)[1])
        workers = place.workers + other.workers
        next(worker for worker in workers if worker.pid == owner).kill()
        until(lambda: place.run(long).attempt == 2 and place.run(long).state == "running")
        with writing(engine) as session:
            lifecycle.cancel(session, long)
        place.wait_for(long, "cancelled")
    finally:
        place.dismiss()
        other.dismiss()
