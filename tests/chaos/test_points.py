from fnmatch import fnmatchcase

from tests.chaos import points
from tests.chaos.histories import plan

LISTED = {
    *points.TRAINER,
    *points.SITES,
    *points.TRANSACTIONS,
    *points.ANYWHERE,
    *points.API,
    *points.UPLOAD,
    *points.RECOVERY,
    *points.PREDICTOR,
    *points.BATCH,
    *points.PROVER,
    *points.PROOF,
    *points.SWEEP,
    *points.SELDOM,
    "worker.bury",
}


def test_every_failpoint_of_the_code_is_in_a_list() -> None:
    assert {
        name for name in points.in_code() if not any(fnmatchcase(one, name) for one in LISTED)
    } == set()


def test_every_listed_failpoint_is_in_the_code() -> None:
    code = points.in_code()
    assert {one for one in LISTED if not any(fnmatchcase(one, name) for name in code)} == set()


def test_a_plan_kills_at_each_point_of_a_run_and_again_while_it_recovers() -> None:
    killed = {history.point for history in plan(3) if history.kind == "kill" and history.again}
    assert len(killed) >= 30
    assert killed == {
        *points.TRAINER,
        *points.SITES,
        *points.TRANSACTIONS,
        *points.ANYWHERE,
        *points.API,
    }


def test_a_seed_gives_the_same_histories_again() -> None:
    assert plan(7) == plan(7) != plan(8)
