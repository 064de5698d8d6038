"""The messages between a process and its supervisor: the base class, and those of all kinds.

Each kind of job adds its own. A message is one line of JSON, validated where it arrives.
"""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from descent.codes import ErrorCode
from models.training.interface import StopReason


class Message(BaseModel):
    """A message; `type` tells the classes of a union apart."""

    # A loss may be NaN or infinite, for which JSON has no word: Python's own spelling is used.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")

    #: whether the process sends nothing after it
    is_last: ClassVar[bool] = False

    type: str


class StopOrder(Message):
    """The only order of a supervisor: stop, and keep the place unless it is a cancel."""

    type: Literal["stop"] = "stop"
    reason: StopReason


class Began(Message):
    """The process has what it needs and begins to compute."""

    type: Literal["started"] = "started"


class Heartbeat(Message):
    """The process makes progress but has nothing else to report."""

    type: Literal["alive"] = "alive"


class Obeyed(Message):
    """The process has stopped because of an order, and has saved its place if that was wanted."""

    type: Literal["stopped"] = "stopped"
    is_last: ClassVar[bool] = True


class Failure(Message):
    """The job cannot be done, and why."""

    type: Literal["failed"] = "failed"
    is_last: ClassVar[bool] = True

    code: ErrorCode
    detail: str
    #: which memory ran out: host or device
    where: str | None = None


class FileMessage(Message):
    """A message that brings a file of the scratch folder, which goes into the storage."""

    path: Path
    #: of the file; None where the process did not compute it
    sha256: str | None
