"""The parameters of small nets from epoch to epoch, stored and read. Knows no learning.

Frames are written in the transaction of the metric rows of their epoch, which has fenced the run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, insert, select
from sqlalchemy.orm import Session

from models.training.interface import Frame as NetFrame
from service.runs.tables import Frame, Trajectory

MAX_FRAMES = 500  # of one page


def begin(
    session: Session,
    run_id: str,
    subject: dict[str, Any] | None,
    frames: Sequence[NetFrame],
) -> None:
    """Say what the frames of an attempt are frames of; the newest attempt's word stands."""
    if subject is None:
        return
    session.merge(Trajectory(run_id=run_id, subject=subject))
    session.flush()
    append(session, run_id, frames)


def append(session: Session, run_id: str, frames: Sequence[NetFrame]) -> None:
    """Add frames; one that is there already (its commit was not heard of) is left out."""
    if not frames:
        return
    newest = session.scalar(select(func.max(Frame.epoch)).where(Frame.run_id == run_id))
    fresh = [frame for frame in frames if newest is None or frame.epoch > newest]
    if fresh:
        session.execute(insert(Frame), [_stored(frame) | {"run_id": run_id} for frame in fresh])


def rewind(session: Session, run_id: str, step: int) -> None:
    """Drop the frames after `step`: they are made again."""
    session.execute(delete(Frame).where(Frame.run_id == run_id, Frame.step > step))


@dataclass(frozen=True)
class Page:
    """Frames in order, and what they are frames of."""

    subject: dict[str, Any] | None
    epochs: list[int]
    steps: list[int]
    #: (frames, parameters), float32
    frames: list[NDArray[np.float32]]
    #: the epoch to read on from; None where these are all that there are by now
    next_after: int | None


def page(session: Session, run_id: str, after: int, limit: int) -> Page:
    """Return the frames of the epochs after `after`."""
    trajectory = session.get(Trajectory, run_id)
    found = session.scalars(
        select(Frame)
        .where(Frame.run_id == run_id, Frame.epoch > after)
        .order_by(Frame.epoch)
        .limit(limit + 1)
    ).all()
    shown = found[:limit]
    return Page(
        subject=trajectory.subject if trajectory else None,
        epochs=[frame.epoch for frame in shown],
        steps=[frame.step for frame in shown],
        frames=[np.frombuffer(frame.parameters, dtype="<f4") for frame in shown],
        next_after=shown[-1].epoch if len(found) > limit else None,
    )


def _stored(frame: NetFrame) -> dict[str, Any]:
    return {"epoch": frame.epoch, "step": frame.step, "parameters": frame.values}
