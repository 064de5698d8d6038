"""The part of this process that answers predictions, as far as the registry needs it."""

from typing import Annotated, Protocol

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from service.http.dependencies import after_commit


class Serving(Protocol):
    """Answers by what the registry holds, and follows its changes."""

    def follow(self, name: str) -> None:
        """Take in a change of a model that this process has just committed."""
        ...

    def told(self, name: str, version: int) -> None:
        """Take note that a client learns of this version: it will be asked for next."""
        ...

    def warm(self, sha256: str) -> None:
        """Load a checkpoint after its bytes were checked. Raises ModelDamaged."""
        ...


def serving(request: Request) -> Serving:
    found: Serving = request.app.state.serving
    return found


ServingDep = Annotated[Serving, Depends(serving)]


def follow_change(serving: Serving, session: Session, model: str) -> None:
    """Have this process answer by a change of a model as soon as it is committed."""
    after_commit(session, lambda: serving.follow(model))
