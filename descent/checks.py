"""What `descent doctor` finds, here and on the server's side of it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

#: `note`: nothing is wrong; `warning`: it works, but not well; `failed`: it does not work
State = Literal["ok", "note", "warning", "failed"]


class Check(BaseModel):
    """One thing that was looked at, and what to do where it is not well."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str
    state: State
    detail: str
    remedy: str | None = None
