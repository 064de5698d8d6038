"""The members of a sweep: their submission, and the value by which they are compared."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from service.runs import lifecycle
from service.runs.groups import group_of
from service.sweeps.messages import Member
from service.sweeps.tables import Sweep, Trial


def submit(session: Session, sweep: Sweep, first: int, members: Sequence[Member]) -> None:
    """Queue the runs of the trials from number `first` on, in the transaction of the caller."""
    numbered = list(enumerate(members, start=first))
    submissions = [_submission(sweep, number, member) for number, member in numbered]
    runs = lifecycle.submit_all(session, submissions)
    session.add_all(
        Trial(
            sweep_id=sweep.id,
            number=number,
            parameters=member.parameters,
            run_id=run.id,
            state="queued",
            epochs=0,
            rung=0,
        )
        for (number, member), run in zip(numbered, runs, strict=True)
    )
    session.flush()


def _submission(sweep: Sweep, number: int, member: Member) -> lifecycle.Submission:
    name = f"{sweep.name or sweep.id} · {number}"
    changes = {"name": name[-256:], "tags": sweep.tags, "budget": _budget(sweep, member)}
    config = member.config | changes
    return lifecycle.Submission(
        config=config,
        dataset_id=sweep.dataset_id,
        dataset_version=sweep.dataset_version,
        warnings=member.warnings,
        sweep_id=sweep.id,
        trial=number,
        group=group_of(config),
        pause_after=sweep.rungs[0] if sweep.rungs else None,
    )


def _budget(sweep: Sweep, member: Member) -> dict[str, Any] | None:
    """Return the smaller one of the budgets of time of the run and of the sweep."""
    own: dict[str, Any] | None = member.config.get("budget")
    limit = (sweep.budget or {}).get("time_s")
    if limit is None:
        return own
    return {"time_s": min(limit, own["time_s"]) if own else limit}


def value_of(
    metric: dict[str, str], best: dict[str, Any] | None, evaluation: dict[str, Any] | None
) -> float | None:
    """Return the metric of a run from its best epoch or from its evaluation, None if unknown."""
    name, split = metric["name"], metric["split"]
    if name == "loss":
        found = best["value"] if best and best["split"] == split else None
    else:
        found = ((evaluation or {}).get(split) or {}).get(name)
    return float(found) if isinstance(found, int | float) else None


def order_of(
    metric: dict[str, str], value: float | None, state: str, number: int
) -> tuple[bool, bool, float, int]:
    """Return the key that sorts trials: the best first, those that succeeded before others."""
    sign = -1 if metric["direction"] == "max" else 1
    return (value is None, state != "succeeded", sign * (value or 0.0), number)
