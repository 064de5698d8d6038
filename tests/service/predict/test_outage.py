"""PostgreSQL dies during predictions: loaded models still answer."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine

from service.registry import aliases
from service.registry.aliases import Pointer, Pointing
from service.settings import Settings
from service.storage.blobs import LocalBlobs
from service.storage.database import create_database, migrate, writing
from tests.postgres import OwnServer, own_server
from tests.service import trained
from tests.service.registry.test_versions import allow
from tests.serving import app_of, serving

pytestmark = pytest.mark.slow

KEY = "a key of the environment"
MODEL = "/api/v1/models/scores"
CHAMPION = f"{MODEL}/aliases/champion/predict"
ROWS = {"rows": [{"Quiz": 10.0}]}


@pytest.fixture
def server() -> Iterator[OwnServer]:
    with own_server() as server:
        yield server


@pytest.fixture
def own_engine(server: OwnServer) -> Iterator[Engine]:
    engine = create_database(server.url)
    migrate(engine)
    yield engine
    engine.dispose()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < deadline


def test_what_is_warm_predicts_while_the_database_is_away(
    server: OwnServer, own_engine: Engine, tmp_path: Path
) -> None:
    blobs = LocalBlobs(tmp_path / "blobs")
    run = trained.store(own_engine, blobs, tmp_path, trained.scores())
    for _ in range(2):
        trained.publish(own_engine, run, "scores")
    point(own_engine, 1)
    settings = Settings(data_dir=tmp_path, database_url=server.url, api_key=SecretStr(KEY))
    headers = {"Authorization": f"Bearer {KEY}"}
    with (
        serving(app_of(settings)) as url,
        httpx.Client(base_url=url, timeout=30, headers=headers) as client,
    ):

        def champion() -> int:
            answer = client.post(CHAMPION, json=ROWS)
            assert answer.status_code == 200, answer.text
            return int(answer.json()["version"])

        assert champion() == 1
        server.kill()
        # Longer than a change takes to be live: the reads of the database fail meanwhile.
        away = time.monotonic() + 2
        while time.monotonic() < away:
            assert champion() == 1
        unknown = client.post("/api/v1/models/nobody/predict", json=ROWS)
        assert (unknown.status_code, unknown.json()["code"]) == (503, "database_unavailable")
        server.start()
        own_engine.dispose()
        point(own_engine, 2)
        until(lambda: champion() == 2)


def point(engine: Engine, version: int) -> None:
    with writing(engine) as session:
        aliases.point(session, Pointer("scores", "champion"), Pointing(version), allow)
