"""The tables of what a run leaves beside its curves: how a small net's parameters moved."""

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from service.columns import Json, Table
from service.tables import Id


class Trajectory(Table):
    """What the frames of a run are frames of; see `models.trajectory`."""

    __tablename__ = "trajectories"

    run_id: Mapped[str] = mapped_column(
        Id, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True
    )
    subject: Mapped[Json]


class Frame(Table):
    """All parameters of a small net after an epoch, as float32."""

    __tablename__ = "frames"

    run_id: Mapped[str] = mapped_column(
        Id, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True
    )
    epoch: Mapped[int] = mapped_column(primary_key=True)
    step: Mapped[int]
    parameters: Mapped[bytes]
