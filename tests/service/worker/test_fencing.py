"""Every durable write of a worker takes the attempt, and an ended attempt is refused."""

import ast
import inspect
from collections.abc import Callable, Iterator
from types import ModuleType

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from service.batch import kind as batch_kind
from service.errors import Fenced
from service.jobs import life
from service.proofs import kind as proof_kind
from service.runs import kind as run_kind
from service.runs import lifecycle, metrics
from service.runs.tables import Run
from service.storage.database import writing
from service.worker import attempts, supervisor
from tests.service.rows import add_run, checkpoint_at, everything_of, metric_rows
from tests.service.runs.test_lifecycle import LEASE, start

pytestmark = pytest.mark.both_databases

#: functions that a worker calls without an attempt, with the reason
UNFENCED = {
    "lifecycle.claim": "makes the attempt",
    "lifecycle.claim_companions": "makes the attempts",
    "life.claim": "makes the attempt",
    "queue.beat": "takes all attempts of its owner",
    "queue.expire_now": "voids the leases of an owner that the kernel says is dead",
    "lifecycle.register": "writes for a run that its caller has fenced and hands over",
    "metrics.begin_trajectory": "follows `lifecycle.started`, which fences its transaction",
    "metrics.append_frames": "follows `metrics.append`, which fences its transaction",
}
READS = (
    "get",
    "resume_checkpoint",
    "covered_seq",
    "chunks_of",
    "waiting",
    "states",
    "expired",
    "problem",
    "explain",
    "memory_kills",
)
WRITERS = ("life", "lifecycle", "metrics", "queue")


def called_by_workers() -> Iterator[tuple[str, Callable[..., object]]]:
    """Yield each function that writes to jobs and that the worker or a kind of job calls."""
    for module in (supervisor, attempts, run_kind, batch_kind, proof_kind):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in WRITERS
            ):
                owner: ModuleType = getattr(module, node.func.value.id)
                name = f"{node.func.value.id}.{node.func.attr}"
                yield name, getattr(owner, node.func.attr)


def test_each_write_helper_of_a_worker_takes_the_attempt() -> None:
    called = list(called_by_workers())
    known = {"metrics.append", "lifecycle.add_checkpoint", "lifecycle.succeed"}
    assert known | {"lifecycle.add_chunk", "life.succeed", "life.stopped", "life.crashed"} <= {
        name for name, _ in called
    }
    for name, function in called:
        is_write = not isinstance(function, type) and name.partition(".")[2] not in READS
        if is_write and name not in UNFENCED:
            assert "attempt" in inspect.signature(function).parameters, name


STALE: dict[str, Callable[[Session, Run], object]] = {
    "metric rows": lambda s, run: metrics.append(s, run.id, 1, metric_rows(1, 1), {}),
    "a checkpoint": lambda s, run: lifecycle.add_checkpoint(
        s, run.id, 1, checkpoint_at(run, 0), is_resumable=True
    ),
    "a line of the log": lambda s, run: lifecycle.log(s, run.id, 1, "late"),
    "the start": lambda s, run: lifecycle.started(s, run.id, 1, {}),
    "a success": lambda s, run: lifecycle.succeed(s, run.id, 1, {}),
    "a failure": lambda s, run: lifecycle.fail(s, run.id, 1, life.problem("diverged", "x")),
    "a stop": lambda s, run: lifecycle.stopped(s, run.id, 1),
    "a crash": lambda s, run: lifecycle.crashed(s, run.id, 1, "x"),
}


@pytest.mark.parametrize("what", STALE)
def test_a_late_write_is_refused_and_changes_nothing(engine: Engine, what: str) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id, now=0.0)
        lifecycle.rescue(session, run.id, 1, now=LEASE + 1)
        run = start(session, run.id, owner="w2", now=LEASE + 2)
    before = everything_of(engine, run.id)
    with pytest.raises(Fenced), writing(engine) as session:
        STALE[what](session, run)
    assert everything_of(engine, run.id) == before


def test_an_owner_whose_run_has_ended_is_refused(engine: Engine) -> None:
    with writing(engine) as session:
        run = start(session, add_run(session).id, now=0.0)
        lifecycle.succeed(session, run.id, 1, {})
    with pytest.raises(Fenced), writing(engine) as session:
        metrics.append(session, run.id, 1, metric_rows(1, 1), {})
