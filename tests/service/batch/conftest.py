"""A published model in a service without a worker."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from models.features.encoding import Features
from service.storage.blobs import LocalBlobs
from tests.service import trained


@pytest.fixture
def boats_without_a_worker(engine: Engine, blobs: LocalBlobs, tmp_path: Path) -> str:
    """Publish the model `boats` in the service of `client`."""
    saved = trained.boats()
    run = trained.store(engine, blobs, tmp_path, saved)
    signature = Features.from_json(saved["document"]["features"]).signature()
    trained.publish(engine, run, "boats", signature=signature)
    return "boats"
