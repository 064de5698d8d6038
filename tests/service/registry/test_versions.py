"""Each number of a version is used once, also by concurrent requests and after a delete."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine

from service.errors import Conflict, NotFound
from service.registry import aliases, versions
from service.registry.aliases import Pointer, Pointing
from service.registry.tables import Alias
from service.runs import lifecycle
from service.storage.database import reading, writing
from tests.service import trained
from tests.service.trained import Trained

pytestmark = pytest.mark.both_databases


def allow(_found: Alias | None) -> None:
    return None


def test_versions_count_up(engine: Engine, scores: Trained) -> None:
    assert trained.publish(engine, scores, "scores") == 2
    assert trained.publish(engine, scores, "other") == 1


def test_runs_that_register_at_once_get_a_number_each(engine: Engine, scores: Trained) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: trained.publish(engine, scores, "busy"), range(12)))
    assert sorted(made) == list(range(1, 13))


def test_a_deleted_number_is_never_given_again(engine: Engine, scores: Trained) -> None:
    trained.publish(engine, scores, "scores")
    with writing(engine) as session:
        versions.unregister(session, "scores", 2)
    assert trained.publish(engine, scores, "scores") == 3


def test_the_latest_version_predicts_for_the_model(engine: Engine, scores: Trained) -> None:
    trained.publish(engine, scores, "scores")
    with reading(engine) as session:
        target = versions.target_of_model(session, "scores")
    assert target == versions.Target(scores.sha256, {"model": "scores", "version": 2})


def test_a_model_without_versions_says_so(engine: Engine, scores: Trained) -> None:
    with writing(engine) as session:
        versions.unregister(session, "scores", 1)
    with reading(engine) as session, pytest.raises(NotFound, match="has no version"):
        versions.target_of_model(session, "scores")


def test_an_alias_keeps_its_version_from_deletion(engine: Engine, scores: Trained) -> None:
    with writing(engine) as session:
        aliases.point(session, Pointer("scores", "champion"), Pointing(1), allow)
    with writing(engine) as session, pytest.raises(Conflict, match="champion"):
        versions.unregister(session, "scores", 1)


def test_a_model_takes_its_versions_and_aliases_with_it(engine: Engine, scores: Trained) -> None:
    with writing(engine) as session:
        aliases.point(session, Pointer("scores", "champion"), Pointing(1), allow)
    with writing(engine) as session:
        versions.unregister_model(session, "scores")
    with reading(engine) as session, pytest.raises(NotFound, match="no model 'scores'"):
        versions.target_of_alias(session, "scores", "champion")


def test_a_run_predicts_with_its_best_checkpoint(engine: Engine, scores: Trained) -> None:
    with reading(engine) as session:
        target = lifecycle.target_of(session, scores.run_id)
    assert target.sha256 == scores.sha256
    named = {"run": scores.run_id, "checkpoint": scores.checkpoint_id}
    assert target.named == {"model": None, "version": None} | named


def test_a_run_that_goes_on_predicts_with_its_last_checkpoint(
    engine: Engine, scores: Trained
) -> None:
    with writing(engine) as session:
        run = lifecycle.get(session, scores.run_id)
        run.best_checkpoint_id, run.resume_checkpoint_id = None, scores.checkpoint_id
    with reading(engine) as session:
        assert lifecycle.target_of(session, scores.run_id).sha256 == scores.sha256
