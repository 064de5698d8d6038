"""A long curve is drawn from its significant rows, whatever the order of the writes."""

import math
import random
from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import Engine, select

from service.runs import lifecycle, metrics
from service.runs.tables import Metric, Run
from service.storage.database import create_database, reading, writing
from tests.engines import statements_of
from tests.service.rows import add_run

pytestmark = pytest.mark.both_databases

ROWS = 5000
POINTS = 40  # few enough that not all rows are read


def curve_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Return rows of two curves, one of which starts late, with a value that is not a number."""
    draw = random.Random(seed)  # noqa: S311  no secret
    rows: list[dict[str, Any]] = [
        {
            "seq": seq,
            "epoch": seq,
            "step": seq,
            "split": "validation" if seq > 1000 and seq % 3 == 0 else "train",
            "name": "loss",
            "value": draw.gauss(0, 1),
            "at_s": float(seq),
        }
        for seq in range(1, count + 1)
    ]
    rows[count // 2]["value"] = math.nan
    return rows


def started(engine: Engine) -> str:
    with writing(engine) as session:
        run_id = add_run(session).id
        run = lifecycle.claim(session, "w1", lease_s=600.0)
        assert run is not None
        lifecycle.started(session, run_id, run.attempt, {"device": "cpu"})
    return run_id


def append(
    engine: Engine, run_id: str, rows: list[dict[str, Any]], sizes: Iterable[int], attempt: int = 1
) -> None:
    place = 0
    for size in sizes:
        if batch := rows[place : place + size]:
            with writing(engine) as session:
                metrics.append(session, run_id, attempt, batch, {})
        place += size


def levels_of(engine: Engine, run_id: str) -> dict[int, int]:
    query = select(Metric.seq, Metric.level).where(
        Metric.run_id == run_id, Metric.superseded_by.is_(None)
    )
    with reading(engine) as session:
        return {row.seq: row.level for row in session.execute(query)}


def drawn(engine: Engine, run_id: str, after: int = 0) -> list[dict[str, Any]]:
    with reading(engine) as session:
        run = session.get(Run, run_id)
        assert run is not None
        assert metrics.level_for(run.metric_seq - after, POINTS) > 0
        query = metrics.Query(after, max_points=POINTS)
        page = metrics.page(session, run, query, is_terminal=False)
    assert page.downsampled
    assert page.next_after == run.metric_seq
    return page.rows


def check_telling(shown: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Check that ends, extremes and non-finite values are present, and little else."""
    seqs = [row["seq"] for row in shown]
    assert seqs == sorted(set(seqs))
    for split in ("train", "validation"):
        curve = [row for row in rows if row["split"] == split]
        finite = [row for row in curve if math.isfinite(row["value"])]
        wanted = {curve[0]["seq"], curve[-1]["seq"]}
        wanted |= {min(finite, key=lambda row: row["value"])["seq"]}
        wanted |= {max(finite, key=lambda row: row["value"])["seq"]}
        wanted |= {row["seq"] for row in curve if not math.isfinite(row["value"])}
        assert wanted <= set(seqs)
        assert sum(row["split"] == split for row in shown) <= POINTS + 2


def test_the_telling_rows_of_a_long_curve_are_drawn(engine: Engine) -> None:
    run_id, rows = started(engine), curve_rows(ROWS, 1)
    append(engine, run_id, rows, [997] * 6)
    check_telling(drawn(engine, run_id), rows)


def test_levels_do_not_depend_on_how_the_rows_came(engine: Engine) -> None:
    rows, draw = curve_rows(ROWS, 2), random.Random(3)  # noqa: S311  no secret
    whole, parts = started(engine), started(engine)
    append(engine, whole, rows, [ROWS])
    append(engine, parts, rows, [draw.choice((1, 7, 31, 32, 33, 500)) for _ in range(200)] + [ROWS])
    assert levels_of(engine, parts) == levels_of(engine, whole)


@pytest.mark.parametrize("after", [1, 1023, 1024, 2500, 4999])
def test_rows_that_a_new_attempt_replaced_are_not_drawn(engine: Engine, after: int) -> None:
    run_id, rows = started(engine), curve_rows(ROWS, 4)
    append(engine, run_id, rows, [ROWS])
    with writing(engine) as session:
        run = session.get(Run, run_id)
        assert run is not None
        run.attempt = 2
        session.flush()
        metrics.rewind(session, run, after, after)
    rows = [*rows[:after], *curve_rows(ROWS, 5)[after:]]
    append(engine, run_id, rows[after:], [300] * 17, attempt=2)
    shown = drawn(engine, run_id)
    check_telling(shown, rows)
    values = {row["seq"]: row["value"] for row in rows}
    assert all(row["value"] in {values[row["seq"]], "NaN"} for row in shown)


def test_only_rows_that_tell_and_the_last_ones_are_read(sqlite_url: str) -> None:
    """Without its index, or from the first row on, the query reads every row of the run."""
    engine = create_database(sqlite_url)
    run_id = started(engine)
    append(engine, run_id, curve_rows(ROWS, 6), [ROWS])
    with statements_of(engine) as asked:
        drawn(engine, run_id)
    (telling, telling_of), (last, last_of) = [each for each in asked if "FROM metrics" in each[0]]
    with reading(engine) as session:
        explain = f"EXPLAIN QUERY PLAN {telling}"
        plan = str(session.connection().exec_driver_sql(explain, telling_of).all())
    engine.dispose()
    assert "ix_metrics_level (run_id=? AND level=? AND seq>? AND seq<?)" in plan
    assert last.count("metrics.seq >") == 1
    assert last_of[1] == ROWS // 256 * 256


def test_few_rows_are_read_as_they_are() -> None:
    assert metrics.level_for(10_000, 4000) == 0
    assert metrics.level_for(1_000_000, 4000) == 2
    assert metrics.level_for(1_000_000, 2400) == 3
    assert metrics.level_for(10_000_000, 2400) == 4
