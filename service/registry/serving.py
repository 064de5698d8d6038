"""The `Serving` interface, and reading the stored checkpoints of versions.

Through `Serving` the registry reports its changes to the code of this process that predicts.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Protocol

import structlog
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from models.errors import CheckpointCorrupt
from models.features.encoding import Features
from models.model import load
from models.nets.lines import Line, describe_line
from service.errors import BlobCorrupt, Conflict
from service.http.resources import after_commit
from service.storage.blobs import BlobStore, read_blob

logger = structlog.get_logger(__name__)


class Serving(Protocol):
    """Predicts with the versions of the registry, and follows its changes."""

    def follow(self, name: str) -> None:
        """Apply a change of a model that this process has just committed."""
        ...

    def expect_requests(self, name: str, version: int) -> None:
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


# ---- stored checkpoints --------------------------------------------------------------------------


class ModelDamaged(Conflict):
    """The stored checkpoint is damaged: predict with another one or train again."""

    code = "checkpoint_corrupt"


@contextmanager
def damage_named() -> Iterator[None]:
    """Turn errors of stored bytes into errors of the service."""
    try:
        yield
    except (BlobCorrupt, CheckpointCorrupt) as error:
        # The client cannot repair it: the log tells the operator.
        logger.error("checkpoint_corrupt", reason=str(error))  # noqa: TRY400  the reason is enough
        raise ModelDamaged from error


def describe(blobs: BlobStore, sha256: str) -> dict[str, Any]:
    """Return the `signature` of a checkpoint, and `parameters` if it is linear."""
    with damage_named():
        model = load(read_blob(blobs, sha256))
    line = model.line
    return {
        "signature": model.features.signature(),
        "parameters": None if line is None else _parameters(model.features, line),
    }


def _parameters(features: Features, line: Line) -> dict[str, Any]:
    # Without the training rows there is no sum of squared errors.
    found = {name: {"sse": None} | entry for name, entry in describe_line(features, line).items()}
    return found if len(found) > 1 else next(iter(found.values()))
