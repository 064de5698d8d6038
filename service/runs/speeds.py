"""How fast each machine trains, learned from its finished runs; estimates of time use it."""

import math
import socket
from collections.abc import Mapping
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from models.training.interface import Speed
from service.runs.tables import TrainingSpeed
from service.storage.database import time_of_day

#: The weight of a new run. A run on a busy machine makes a few estimates too long, not all.
NEWEST = 0.4
#: Ratios beyond this are no speed of a machine: it slept, or its clock jumped.
BEYOND = 1000.0
KEPT = timedelta(days=180)  # since the last run of that kind


def note(session: Session, speed: Speed) -> None:
    """Add a finished run of this machine to what is known of it."""
    if not 1 / BEYOND <= speed.ratio <= BEYOND:
        return
    host, now = socket.gethostname(), time_of_day(session)
    known = session.get(TrainingSpeed, (host, speed.shape))
    if known is None:
        row = TrainingSpeed(host=host, shape=speed.shape, ratio=speed.ratio, noted_at=now)
        session.add(row)
    else:
        # Ratios are averaged as logarithms: 1/3 and 3 together are 1.
        step = NEWEST * math.log(speed.ratio / known.ratio)
        known.ratio, known.noted_at = known.ratio * math.exp(step), now
    session.execute(delete(TrainingSpeed).where(TrainingSpeed.noted_at < now - KEPT))


def known_speeds(session: Session) -> Mapping[str, float]:
    """Return the ratio of each kind of training: that of this machine, else of another one."""
    own = socket.gethostname()
    rows = session.scalars(select(TrainingSpeed).order_by(TrainingSpeed.noted_at)).all()
    return {row.shape: row.ratio for row in sorted(rows, key=lambda row: row.host == own)}
