"""Published models to ask."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

from service.blobs import LocalBlobs
from tests.service.inference import trained
from tests.service.inference.trained import Store, Trained


@pytest.fixture
def store(engine: Engine, blobs: LocalBlobs, tmp_path: Path) -> Store:
    return lambda saved: trained.store(engine, blobs, tmp_path, saved)


@pytest.fixture
def scores(engine: Engine, store: Store) -> Trained:
    """The model `scores` with one version."""
    run = store(trained.scores())
    trained.publish(engine, run, "scores", parameters=trained.SCORES_PARAMETERS)
    return run


@pytest.fixture
def steep(engine: Engine, store: Store) -> Trained:
    """The model `steep` with one version, whose answers soon are no numbers."""
    run = store(trained.steep())
    trained.publish(engine, run, "steep")
    return run


@pytest.fixture
def boats(engine: Engine, store: Store) -> Trained:
    """The model `boats` with one version."""
    run = store(trained.boats())
    trained.publish(engine, run, "boats")
    return run
