"""The input and the message of the process that suggests trials. Knows no database."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from service.jobs.pipe import Message

MISSING = (
    "The strategy tpe needs Optuna, which is not installed: run"
    " `pip install 'descent[server,sweeps]'` where the service runs, or choose the strategy random."
)


@dataclass(frozen=True)
class Member:
    """A trial before it is stored: its parameters, and the configuration of its run."""

    parameters: dict[str, Any]
    #: complete
    config: dict[str, Any]
    warnings: list[dict[str, Any]]


@dataclass(frozen=True)
class Misfit:
    """Parameters that make no run together, and the problem object that says why."""

    parameters: dict[str, Any]
    problem: dict[str, Any]


class EndedTrial(BaseModel):
    """A trial that has ended, and its metric; None if it has none."""

    parameters: dict[str, Any]
    value: float | None


class SuggestJob(BaseModel):
    """One attempt at a suggestion: the space, and all trials before it, in order."""

    run_id: str
    attempt: int
    #: the fields of the base that the request gave
    base: dict[str, Any]
    columns: list[dict[str, Any]]
    rows: int
    space: dict[str, dict[str, Any]]
    direction: Literal["min", "max"]
    seed: int
    trials: list[EndedTrial]
    count: int


class Suggested(Message):
    """The next trials, in order."""

    type: Literal["suggested"] = "suggested"
    is_last: ClassVar[bool] = True

    trials: list[Member | Misfit]
