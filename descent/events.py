"""What happens to a run, as its followers hear of it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    """Something that happened to a run; `data` of `metrics` holds the new `rows` of the curves."""

    id: int
    kind: str
    data: dict[str, Any]
