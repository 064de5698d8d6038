"""Models that are trained once for all tests and never changed; and the model `scores`."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from service.storage.blobs import LocalBlobs
from tests.service import trained
from tests.service.proofs import proved
from tests.service.proofs.proved import CLASSES, Proved
from tests.service.trained import Trained


@pytest.fixture(scope="session")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    """A regression model."""
    return proved.train(folder_of(tmp_path_factory))


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Proved:
    """A classifier of three classes."""
    return proved.train(folder_of(tmp_path_factory), **CLASSES)


def folder_of(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("proved")


@pytest.fixture
def scores(engine: Engine, blobs: LocalBlobs, tmp_path: Path) -> Trained:
    """The model `scores` in a service without a worker; its version 1 counts as verified."""
    run = trained.store(engine, blobs, tmp_path, trained.scores())
    trained.publish(engine, run, "scores")
    return run
