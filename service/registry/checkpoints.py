"""The stored checkpoints of versions: what they say of themselves, and that damage is named."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog

from models.checkpoint import read_parameters
from models.errors import CheckpointCorrupt
from models.features.encoding import Features
from models.nets.closed_form import Line, describe_line
from service.errors import BlobCorrupt, Conflict
from service.storage.blobs import BlobStore, read_blob

logger = structlog.get_logger(__name__)


class ModelDamaged(Conflict):
    """The stored checkpoint is damaged and is not used: predict with another one or train again."""

    code = "checkpoint_corrupt"


@contextmanager
def damage_named() -> Iterator[None]:
    """Turn what is wrong with stored bytes into what a client is told."""
    try:
        yield
    except (BlobCorrupt, CheckpointCorrupt) as error:
        # The client cannot mend it; who runs the service must learn of it.
        logger.error("checkpoint_corrupt", reason=str(error))  # noqa: TRY400  told by its reason
        raise ModelDamaged from error


def describe(blobs: BlobStore, sha256: str) -> dict[str, Any]:
    """Return what a version tells of its checkpoint: `signature`, and `parameters` if linear."""
    with damage_named():
        tensors, document = read_parameters(read_blob(blobs, sha256))
        features = Features.from_json(document["features"])
    is_linear = len(document["net"]["layers"]) == 1
    line = Line(tensors["0.weight"], tensors["0.bias"]) if is_linear else None
    return {
        "signature": features.signature(),
        "parameters": None if line is None else _parameters(features, line),
    }


def _parameters(features: Features, line: Line) -> dict[str, Any]:
    # The training rows are not at hand, so there is no sum of squared errors to tell.
    found = {name: {"sse": None} | entry for name, entry in describe_line(features, line).items()}
    return found if len(found) > 1 else next(iter(found.values()))
