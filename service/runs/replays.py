"""The self-check of exact resume: steps that are made again after a crash give the same bits.

Compares the rows of a resumed attempt with those that they replace. Knows nothing of training.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from descent.codes import make_warning
from service.jobs import events
from service.runs.tables import Event, Metric, Run

POINT = ("epoch", "step", "split", "name")


def check(session: Session, run: Run, rows: Sequence[dict[str, Any]]) -> None:
    """Compare new rows, as they are stored, with earlier attempts' of the same number.

    The first difference of an attempt becomes an event and a warning of the run. The caller has
    locked the run. A first attempt costs nothing, later ones a seek for each attempt before.
    """
    if run.attempt == 1:
        return
    columns = [getattr(Metric, name) for name in ("seq", *POINT, "kind", "value")]
    replaced = session.execute(
        select(*columns)
        .where(Metric.run_id == run.id, Metric.attempt.in_(range(1, run.attempt)))
        .where(Metric.seq.between(rows[0]["seq"], rows[-1]["seq"]))
        .order_by(Metric.attempt)
    )
    newest = {row.seq: row._asdict() for row in replaced}
    for row in rows:
        was = newest.get(row["seq"])
        if was is not None and _differs(was, row):
            _tell(session, run, was, row)
            return


def _differs(was: dict[str, Any], row: dict[str, Any]) -> bool:
    if (was["split"] == "test") != (row["split"] == "test"):
        return False  # a budget of time may end two attempts at different epochs
    return _bits(was) != _bits(row)


def _bits(row: dict[str, Any]) -> list[Any]:
    # Adding zero takes the sign from a negative zero, which SQLite does not keep.
    value = None if row["value"] is None else (row["value"] + 0.0).hex()
    return [*(row[name] for name in POINT), row["kind"], value]


def _tell(session: Session, run: Run, was: dict[str, Any], row: dict[str, Any]) -> None:
    logs = events.of_kind(session, Event, run.id, "log")
    if any(
        log.attempt == run.attempt and log.data.get("code") == "resume_divergence" for log in logs
    ):
        return
    is_foreseen = any(each["code"] == "resume_inexact" for each in run.warnings)
    reason = "see resume_inexact" if is_foreseen else "though nothing around it is known to differ"
    line = (
        f"Attempt {run.attempt} made step {row['step']} again and got another {row['split']}"
        f" {row['name']}: it was {_shown(was)}, is {_shown(row)}; {reason}"
    )
    data = {"line": line, "code": "resume_divergence", "was": _point(was), "now": _point(row)}
    events.append(session, run.id, run.attempt, "log", data)
    run.warnings = [*run.warnings, make_warning("resume_divergence", line)]


def _shown(row: dict[str, Any]) -> str:
    if row["kind"] != "finite":
        return str(row["kind"])
    return f"{row['value']!r} at step {row['step']}"


def _point(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("seq", *POINT, "kind", "value")}
