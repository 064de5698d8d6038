"""The input and the message of the process that suggests trials. Knows no database."""

from typing import Any, ClassVar, Literal

from pydantic import BaseModel

from service.jobs.pipe import Message

MISSING = (
    "The strategy tpe needs Optuna, which is not installed: run"
    " `pip install 'descent[server,sweeps]'` where the service runs, or choose the strategy random."
)


class EndedTrial(BaseModel):
    """A trial that has ended, and its metric; None if it has none."""

    parameters: dict[str, Any]
    value: float | None


class SuggestJob(BaseModel):
    """One attempt at a suggestion: the space, and all trials before it, in order."""

    run_id: str
    attempt: int
    space: dict[str, dict[str, Any]]
    direction: Literal["min", "max"]
    seed: int
    trials: list[EndedTrial]
    count: int


class Suggested(Message):
    """The parameters of the next trials, in order."""

    type: Literal["suggested"] = "suggested"
    is_last: ClassVar[bool] = True

    parameters: list[dict[str, Any]]
