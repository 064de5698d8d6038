"""The interface through which the registry tells the predicting part of this process of changes."""

from typing import Annotated, Protocol

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from service.http.dependencies import after_commit


class Serving(Protocol):
    """Predicts with the versions of the registry, and follows its changes."""

    def follow(self, name: str) -> None:
        """Apply a change of a model that this process has just committed."""
        ...

    def told(self, name: str, version: int) -> None:
        """Note that a client now knows this version, so that it is loaded before it is used."""
        ...

    def warm(self, sha256: str) -> None:
        """Verify and load a checkpoint. Raises ModelDamaged."""
        ...


def serving(request: Request) -> Serving:
    found: Serving = request.app.state.serving
    return found


ServingDep = Annotated[Serving, Depends(serving)]


def follow_change(serving: Serving, session: Session, model: str) -> None:
    """Apply a change of a model in this process as soon as it is committed."""
    after_commit(session, lambda: serving.follow(model))
