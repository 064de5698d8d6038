"""The directory resolves names from memory, and follows changes of any process."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from service.errors import NotFound
from service.predict.directory import Directory, Predictors
from service.registry import aliases, versions
from service.registry.aliases import Pointer, Pointing
from service.storage.blobs import LocalBlobs
from service.storage.database import writing
from tests.engines import statements_of
from tests.service import trained
from tests.service.registry.test_versions import allow
from tests.service.trained import Store, Trained

pytestmark = pytest.mark.both_databases

PREDICT = "/api/v1/models/scores/predict"
ROWS = {"rows": [{"Quiz": 10.0}]}


@pytest.fixture
def predictors(blobs: LocalBlobs) -> Predictors:
    return Predictors(blobs)


@pytest.fixture
def directory(engine: Engine, predictors: Predictors) -> Iterator[Directory]:
    """A directory that reads the database on request."""
    directory = Directory(engine, predictors)
    yield directory
    directory.close()


def point(engine: Engine, version: int, alias: str = "champion") -> None:
    """Move an alias as another process would."""
    with writing(engine) as session:
        aliases.point(session, Pointer("scores", alias), Pointing(version), allow)


def damage(folder: Path, run: Trained) -> None:
    path = folder / "data" / "blobs" / "sha256" / run.sha256[:2] / run.sha256
    path.chmod(0o600)
    path.write_bytes(b"damaged")


def test_what_is_known_is_answered_without_the_database(
    engine: Engine, directory: Directory, scores: Trained
) -> None:
    point(engine, 1)
    first = directory.of_model("scores"), directory.of_alias("scores", "champion")
    with statements_of(engine) as statements:
        assert (directory.of_model("scores"), directory.of_alias("scores", "champion")) == first
        assert directory.of_version("scores", 1) == first[0]
    assert statements == []


def test_what_does_not_exist_is_not_found(directory: Directory, scores: Trained) -> None:
    directory.of_model("scores")
    with pytest.raises(NotFound, match="no model 'nobody'"):
        directory.of_model("nobody")
    with pytest.raises(NotFound, match="no version 9"):
        directory.of_version("scores", 9)
    with pytest.raises(NotFound, match="no alias 'champion'"):
        directory.of_alias("scores", "champion")


def test_a_name_that_does_not_exist_is_not_kept(directory: Directory) -> None:
    with pytest.raises(NotFound):
        directory.of_model("nobody")
    assert len(directory) == 0


def test_a_look_takes_in_what_others_changed(
    engine: Engine, directory: Directory, scores: Trained
) -> None:
    point(engine, 1)
    directory.of_alias("scores", "champion")
    trained.publish(engine, scores, "scores")
    point(engine, 2)
    directory.look()
    assert directory.of_alias("scores", "champion").named["version"] == 2
    assert directory.of_model("scores").named["version"] == 2


def test_a_look_takes_in_that_a_version_is_gone(
    engine: Engine, directory: Directory, scores: Trained
) -> None:
    trained.publish(engine, scores, "scores")
    directory.of_version("scores", 2)
    with writing(engine) as session:
        versions.unregister(session, "scores", 2)
    directory.look()
    assert directory.known_version("scores", 2) is None
    assert directory.of_model("scores").named["version"] == 1


def test_a_model_that_was_deleted_and_made_again_has_its_new_bytes(
    engine: Engine, directory: Directory, scores: Trained, store: Store
) -> None:
    directory.of_version("scores", 1)
    other = store(trained.both())
    with writing(engine) as session:
        versions.unregister_model(session, "scores")
    trained.publish(engine, other, "scores")
    directory.look()
    assert directory.of_version("scores", 1).sha256 == other.sha256


def test_a_replacement_is_loaded_before_requests_are_sent_to_it(
    engine: Engine, directory: Directory, predictors: Predictors, scores: Trained, store: Store
) -> None:
    predictors.get(directory.of_model("scores").sha256)
    other = store(trained.both())
    trained.publish(engine, other, "scores")
    assert other.sha256 not in predictors
    directory.look()
    assert other.sha256 in predictors


def test_what_nobody_asked_for_is_not_loaded(
    engine: Engine, directory: Directory, predictors: Predictors, scores: Trained, store: Store
) -> None:
    directory.of_model("scores")  # known, but never used for a prediction
    trained.publish(engine, store(trained.both()), "scores")
    directory.look()
    assert len(predictors) == 0


def test_a_damaged_replacement_does_not_keep_the_old_version_answering(
    engine: Engine,
    directory: Directory,
    predictors: Predictors,
    scores: Trained,
    store: Store,
    tmp_path: Path,
) -> None:
    predictors.get(directory.of_model("scores").sha256)
    other = store(trained.both())
    damage(tmp_path, other)
    trained.publish(engine, other, "scores")
    directory.look()
    assert directory.of_model("scores").sha256 == other.sha256


def test_who_is_told_of_a_version_is_answered_by_it(
    engine: Engine, directory: Directory, scores: Trained
) -> None:
    directory.of_model("scores")
    trained.publish(engine, scores, "scores")
    directory.expect_requests("scores", 2)
    assert directory.of_model("scores").named["version"] == 2


def test_a_database_that_went_back_in_time_is_read_again(
    engine: Engine, directory: Directory, scores: Trained
) -> None:
    directory.of_model("scores")
    directory.look()
    with writing(engine) as session:
        session.connection().exec_driver_sql("DELETE FROM model_changes")
    directory.look()
    assert len(directory) == 0


def test_a_process_answers_by_its_own_change_at_once(
    client: httpx.Client, engine: Engine, scores: Trained, store: Store
) -> None:
    other = store(trained.scores())
    champion = "/api/v1/models/scores/aliases/champion"
    trained.publish(engine, other, "scores")
    etag = client.put(champion, json={"version": 1}).headers["etag"]
    for version in (2, 1, 2, 1, 2):
        moved = client.put(champion, json={"version": version}, headers={"If-Match": etag})
        etag = moved.headers["etag"]
        assert client.post(f"{champion}/predict", json=ROWS).json()["version"] == version
    client.delete(champion)
    assert client.post(f"{champion}/predict", json=ROWS).status_code == 404
    client.delete("/api/v1/models/scores/versions/2")
    assert client.post(PREDICT, json=ROWS).json()["version"] == 1
    assert client.post("/api/v1/models/scores/versions/2/predict", json=ROWS).status_code == 404
    client.delete("/api/v1/models/scores")
    assert client.post(PREDICT, json=ROWS).status_code == 404
