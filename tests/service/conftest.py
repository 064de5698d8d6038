"""Published models for predictions."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from service.jobs.kind import Site
from service.registry import aliases
from service.registry.aliases import Pointer, Pointing
from service.settings import Settings
from service.storage.blobs import LocalBlobs
from service.storage.database import create_database, writing
from tests.service import trained
from tests.service.trained import Store, Trained
from tests.serving import RunService


@pytest.fixture
def site(settings: Settings, engine: Engine, blobs: LocalBlobs) -> Site:
    return Site(settings, engine, blobs)


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
    """The model `steep` with one version, whose answers soon overflow."""
    run = store(trained.steep())
    trained.publish(engine, run, "steep")
    return run


@pytest.fixture
def boats(engine: Engine, store: Store) -> Trained:
    """The model `boats` with one version."""
    run = store(trained.boats())
    trained.publish(engine, run, "boats")
    return run


@pytest.fixture(scope="session")
def served_url(
    run_service: RunService, sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Run the API as a process, with published models; the champion of `scores` is not the newest.

    Third-party clients use it, since they should meet the same server as in production.
    """
    folder = tmp_path_factory.mktemp("served")
    shutil.copyfile(sqlite_template, folder / "descent.sqlite3")
    engine = create_database(f"sqlite:///{folder / 'descent.sqlite3'}")
    kept = LocalBlobs(folder / "blobs")
    for model, make in trained.MODELS.items():
        trained.publish(engine, trained.store(engine, kept, folder, make()), model)
    trained.publish(engine, trained.store(engine, kept, folder, trained.steeper()), "scores")
    with writing(engine) as session:
        aliases.point(session, Pointer("scores", "champion"), Pointing(1), lambda _found: None)
    engine.dispose()
    with run_service(folder, "--no-worker", DESCENT_INVOCATIONS_MODEL="scores@champion") as url:
        yield url
