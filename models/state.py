"""Where a training stands: with the tensors beside it, all that resuming needs.

Knows no torch.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from models.errors import NotResumable
from models.events import Best
from models.schedules import PlateauState


@dataclass
class State:
    """The numbers of a training that change; stored as JSON, exactly."""

    #: Epochs done.
    epoch: int = 0
    #: Batches done of the epoch after them.
    batch: int = 0
    step: int = 0
    #: The last metric row given.
    seq: int = 0
    best: Best | None = None
    #: The figures of the best epoch, by split and name.
    best_metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    plateau: PlateauState = field(default_factory=PlateauState)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "State":
        try:
            best = document["best"]
            nested = {
                "best": None if best is None else Best(**best),
                "plateau": PlateauState(**document["plateau"]),
            }
            return cls(**{**document, **nested})
        except (KeyError, TypeError) as error:
            raise NotResumable(f"the checkpoint's state cannot be read: {error}") from error
