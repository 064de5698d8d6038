"""The order of the queue and the leases of keys use the clock of the database, not of a machine."""

import ast
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import Engine

from service import system
from service.http import strict_route
from service.jobs import life, queue
from service.runs import lifecycle
from service.storage import database
from service.storage.database import time_of_day, writing
from service.worker import supervisor
from tests.service.rows import add_run

pytestmark = pytest.mark.both_databases

#: the clocks of the machine
WALL = {"utc_now", "now", "time", "today", "utcnow"}


def calls_in(module: ModuleType, function: str) -> set[str]:
    """Return the names of all functions that a function calls."""
    tree = ast.parse(Path(str(module.__file__)).read_text())
    (node,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == function)
    names = (call.func for call in ast.walk(node) if isinstance(call, ast.Call))
    return {name.attr if isinstance(name, ast.Attribute) else ast.unparse(name) for name in names}


@pytest.mark.parametrize(
    ("module", "function"),
    [
        (life, "enqueue_all"),
        (life, "finish"),
        (life, "started"),
        (life, "_waiting"),
        (queue, "claim_several"),
        (lifecycle, "resume"),
        (strict_route, "begin_claim"),
        (supervisor, "_show"),
        (system, "workers"),
    ],
)
def test_a_time_that_others_compare_is_of_the_database(module: ModuleType, function: str) -> None:
    called = calls_in(module, function)
    assert "time_of_day" in called
    assert not called & WALL


@pytest.mark.parametrize("function", ["_begin_claim", "_store", "_mine"])
def test_no_decision_about_a_key_asks_the_clock_of_the_machine(function: str) -> None:
    assert not calls_in(strict_route, function) & WALL


def test_only_the_database_module_chooses_between_the_clocks() -> None:
    assert "utc_now" in calls_in(database, "time_of_day")


def test_the_times_of_a_run_lie_between_two_looks_at_the_clock_of_the_database(
    engine: Engine,
) -> None:
    with writing(engine) as session:
        before = time_of_day(session)
        run_id = add_run(session).id
    with writing(engine) as session:
        lifecycle.claim(session, "w1", lease_s=20.0)
        lifecycle.started(session, run_id, 1, {})
        lifecycle.succeed(session, run_id, 1, {})
        run, after = lifecycle.get(session, run_id), time_of_day(session)
    times = [before, run.created_at, run.queued_at, run.claimed_at, run.started_at]
    times += [run.finished_at, after]
    assert times == sorted(times, key=lambda time: time or before)


def test_a_run_that_is_resumed_goes_to_the_end_of_the_queue(engine: Engine) -> None:
    with writing(engine) as session:
        first = add_run(session).id
        lifecycle.claim(session, "w1", lease_s=20.0)
        lifecycle.started(session, first, 1, {})
        lifecycle.pause(session, first)
        lifecycle.stopped(session, first, 1)
        second = add_run(session).id
        lifecycle.resume(session, first)
    with writing(engine) as session:
        claimed = [lifecycle.claim(session, "w1", lease_s=20.0) for _ in range(2)]
        assert [run.id if run else None for run in claimed] == [second, first]
