import math

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from service.errors import Fenced
from service.runs import lifecycle, metrics
from service.runs.tables import Checkpoint, Run
from service.storage.columns import new_id
from service.storage.database import writing
from tests.service.rows import add_run, metric_rows

pytestmark = pytest.mark.both_databases


def running(session: Session) -> Run:
    run_id = add_run(session).id
    run = lifecycle.claim(session, "w1", lease_s=20.0, now=0.0)
    assert run is not None
    lifecycle.started(session, run_id, run.attempt, {"device": "cpu"})
    return lifecycle.get(session, run_id)


def read(session: Session, run_id: str, query: metrics.Query | None = None) -> metrics.CurvePage:
    run = lifecycle.get(session, run_id)
    return metrics.page(session, run, query or metrics.Query(), is_terminal=False)


def resumed_from(session: Session, run: Run, seq: int) -> Run:
    """Lose the worker after a checkpoint at row `seq`, and claim the run again."""
    checkpoint = Checkpoint(
        id=new_id("ckpt"),
        run_id=run.id,
        attempt=run.attempt,
        epoch=seq,
        step=seq,
        metric_seq=seq,
        metrics={},
        sha256="1" * 64,
        bytes=1,
        is_best=False,
    )
    lifecycle.add_checkpoint(session, run.id, run.attempt, checkpoint, is_resumable=True)
    metrics.append(session, run.id, run.attempt, metric_rows(seq + 1, seq + 4, 2.0), {})
    lifecycle.rescue(session, run.id, run.attempt, now=1000.0)
    claimed = lifecycle.claim(session, "w2", lease_s=20.0, now=1000.0)
    assert claimed is not None
    return claimed


def test_rows_come_back_in_order(engine: Engine) -> None:
    with writing(engine) as session:
        run = running(session)
        metrics.append(session, run.id, 1, metric_rows(1, 3), {})
        metrics.append(session, run.id, 1, metric_rows(4, 6), {})
        page = read(session, run.id)
    assert [row["seq"] for row in page.rows] == [1, 2, 3, 4, 5, 6]
    assert page.next_after == 6


def test_rows_whose_commit_was_not_heard_of_are_stored_once(engine: Engine) -> None:
    with writing(engine) as session:
        run = running(session)
        metrics.append(session, run.id, 1, metric_rows(1, 3), {})
        metrics.append(session, run.id, 1, metric_rows(2, 5), {})
        assert [row["seq"] for row in read(session, run.id).rows] == [1, 2, 3, 4, 5]


def test_a_gap_is_refused(engine: Engine) -> None:
    with writing(engine) as session:
        run = running(session)
        with pytest.raises(Fenced):
            metrics.append(session, run.id, 1, metric_rows(2, 3), {})


@pytest.mark.parametrize(
    ("value", "shown"), [(math.nan, "NaN"), (math.inf, "Infinity"), (-math.inf, "-Infinity")]
)
def test_values_that_are_not_finite_keep_their_name(
    engine: Engine, value: float, shown: str
) -> None:
    with writing(engine) as session:
        run = running(session)
        metrics.append(session, run.id, 1, metric_rows(1, 1, value), {})
        assert read(session, run.id).rows[0]["value"] == shown
        assert lifecycle.get(session, run.id).latest == {"train": {"loss": shown}}


def test_a_resumed_attempt_replaces_the_rows_after_its_checkpoint(engine: Engine) -> None:
    with writing(engine) as session:
        run = running(session)
        metrics.append(session, run.id, 1, metric_rows(1, 3), {})
        run = resumed_from(session, run, 3)
        assert [row["seq"] for row in read(session, run.id).rows] == [1, 2, 3]
        metrics.append(session, run.id, 2, metric_rows(4, 5), {})
        rows = read(session, run.id).rows
    assert [(row["seq"], row["attempt"]) for row in rows] == [
        (1, 1),
        (2, 1),
        (3, 1),
        (4, 2),
        (5, 2),
    ]


def test_a_reader_with_replaced_rows_is_told_which_to_drop(engine: Engine) -> None:
    with writing(engine) as session:
        run = running(session)
        metrics.append(session, run.id, 1, metric_rows(1, 3), {})
        run = resumed_from(session, run, 3)
        metrics.append(session, run.id, 2, metric_rows(4, 9), {})
        page = read(session, run.id, metrics.Query(after=6, attempt=1))
        after = read(session, run.id, metrics.Query(after=page.next_after, attempt=page.attempt))
    assert page.rewinds == [{"attempt": 2, "after_seq": 3}]
    assert (page.rows, page.next_after, page.attempt) == ([], 3, 2)
    assert [row["seq"] for row in after.rows] == [4, 5, 6, 7, 8, 9]
    assert after.rewinds == []


def read_to_the_end(session: Session, run_id: str, after: int) -> list[int]:
    """Follow `next_after` like a client that ignores attempts; return the numbers of the rows."""
    seen: list[int] = []
    for _page in range(20):
        page = read(session, run_id, metrics.Query(after=after, limit=2))
        seen += [row["seq"] for row in page.rows]
        if not page.rows and page.next_after == after:
            return seen
        after = page.next_after
    pytest.fail(f"next_after leads in a circle: {seen}")


def test_a_reader_that_tells_no_attempt_comes_to_the_end(engine: Engine) -> None:
    with writing(engine) as session:
        run = running(session)
        metrics.append(session, run.id, 1, metric_rows(1, 3), {})
        run = resumed_from(session, run, 3)
        metrics.append(session, run.id, 2, metric_rows(4, 9), {})
        for after in (0, 2, 3, 5):
            assert read_to_the_end(session, run.id, after) == list(range(after + 1, 10))


def test_a_reader_that_tells_no_attempt_learns_that_its_last_row_is_gone(engine: Engine) -> None:
    with writing(engine) as session:
        run = running(session)
        metrics.append(session, run.id, 1, metric_rows(1, 3), {})
        run = resumed_from(session, run, 3)
        metrics.append(session, run.id, 2, metric_rows(4, 5), {})
        page = read(session, run.id, metrics.Query(after=7))
        rest = read_to_the_end(session, run.id, page.next_after)
    assert (page.rows, page.next_after) == ([], 3)
    assert page.rewinds == [{"attempt": 2, "after_seq": 3}]
    assert rest == [4, 5]


def test_a_reader_of_the_newest_attempt_is_told_of_no_rewind(engine: Engine) -> None:
    with writing(engine) as session:
        run = running(session)
        metrics.append(session, run.id, 1, metric_rows(1, 3), {})
        run = resumed_from(session, run, 3)
        metrics.append(session, run.id, 2, metric_rows(4, 9), {})
        page = read(session, run.id, metrics.Query(after=6, attempt=2))
    assert (page.rewinds, [row["seq"] for row in page.rows]) == ([], [7, 8, 9])


def test_pages_follow_each_other_without_a_gap(engine: Engine) -> None:
    with writing(engine) as session:
        run = running(session)
        metrics.append(session, run.id, 1, metric_rows(1, 10), {})
        seen: list[int] = []
        after = 0
        while len(seen) < 10:
            page = read(session, run.id, metrics.Query(after=after, limit=3))
            seen += [row["seq"] for row in page.rows]
            after = page.next_after
    assert seen == list(range(1, 11))


def test_a_page_of_other_names_still_moves_on(engine: Engine) -> None:
    with writing(engine) as session:
        run = running(session)
        metrics.append(session, run.id, 1, metric_rows(1, 3), {})
        page = read(session, run.id, metrics.Query(names=("accuracy",)))
    assert (page.rows, page.next_after) == ([], 3)


def test_thinning_keeps_ends_and_extremes() -> None:
    rows = metric_rows(1, 10_000)
    for row in rows:
        row["value"] = math.sin(row["seq"] / 500)
    rows[4321]["value"], rows[7777]["value"] = 99.0, -99.0
    kept = metrics.thin(rows, 100)
    assert len(kept) <= 100
    assert {1, 10_000, 4322, 7778} <= {row["seq"] for row in kept}


def test_thinning_keeps_values_that_are_not_finite() -> None:
    rows = metric_rows(1, 1000)
    rows[500]["value"] = "NaN"
    assert 501 in {row["seq"] for row in metrics.thin(rows, 10)}


def test_a_short_curve_is_not_thinned() -> None:
    rows = metric_rows(1, 50)
    assert metrics.thin(rows, 100) == rows


def test_columns_hold_the_same_as_rows() -> None:
    rows = [row | {"attempt": 1} for row in metric_rows(1, 2)]
    assert metrics.as_columns(rows)["seq"] == [1, 2]


def test_csv_has_a_header_and_a_line_per_row() -> None:
    rows = [row | {"attempt": 1} for row in metric_rows(1, 2)]
    lines = metrics.as_csv(rows).splitlines()
    assert lines[0] == "seq,attempt,epoch,step,split,name,value,at_s"
    assert len(lines) == 3
