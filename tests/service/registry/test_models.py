"""Models, versions, aliases and artifacts over HTTP."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import Engine

from service.runs import lifecycle
from service.settings import Settings
from service.storage.database import writing
from tests.service import trained
from tests.service.trained import Store, Trained
from tests.serving import Serve

pytestmark = pytest.mark.both_databases

MODELS = "/api/v1/models"
SCORES = f"{MODELS}/scores"
CHAMPION = f"{SCORES}/aliases/champion"


def test_a_model_tells_its_latest_version_and_aliases(
    client: httpx.Client, engine: Engine, scores: Trained
) -> None:
    trained.publish(engine, scores, "scores")
    client.put(CHAMPION, json={"version": 1})
    body = client.get(SCORES).json()
    assert (body["name"], body["latest_version"]) == ("scores", 2)
    assert body["aliases"] == {"champion": 1}


def test_models_are_listed_newest_first_page_by_page(
    client: httpx.Client, engine: Engine, scores: Trained
) -> None:
    trained.publish(engine, scores, "later")
    first = client.get(MODELS, params={"limit": 1})
    assert [model["name"] for model in first.json()["data"]] == ["later"]
    assert 'rel="next"' in first.headers["link"]
    after = first.json()["next_cursor"]
    second = client.get(MODELS, params={"limit": 1, "after": after}).json()
    assert [model["name"] for model in second["data"]] == ["scores"]
    assert second["has_more"] is False


def test_versions_are_listed_newest_first_page_by_page(
    client: httpx.Client, engine: Engine, scores: Trained
) -> None:
    trained.publish(engine, scores, "scores")
    first = client.get(f"{SCORES}/versions", params={"limit": 1}).json()
    assert [version["version"] for version in first["data"]] == [2]
    after = first["next_cursor"]
    second = client.get(f"{SCORES}/versions", params={"limit": 1, "after": after}).json()
    assert [version["version"] for version in second["data"]] == [1]


def test_the_cursor_of_another_list_is_refused(
    client: httpx.Client, engine: Engine, scores: Trained
) -> None:
    trained.publish(engine, scores, "scores")
    after = client.get(f"{SCORES}/versions", params={"limit": 1}).json()["next_cursor"]
    answer = client.get(MODELS, params={"after": after})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_cursor")


def test_a_version_tells_its_lineage_and_is_cached(client: httpx.Client, scores: Trained) -> None:
    answer = client.get(f"{SCORES}/versions/1")
    body = answer.json()
    assert (body["run_id"], body["checkpoint_id"]) == (scores.run_id, scores.checkpoint_id)
    assert body["dataset"]["version"] == 1
    again = client.get(f"{SCORES}/versions/1", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_what_is_not_there_is_not_found(client: httpx.Client, scores: Trained) -> None:
    for path in ("nobody", "scores/versions/9", "nobody/versions", "scores/aliases/champion"):
        answer = client.get(f"{MODELS}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


def test_a_number_that_no_version_can_have_is_invalid(
    client: httpx.Client, scores: Trained
) -> None:
    for number in ("0", "x", "9" * 30):
        assert client.get(f"{SCORES}/versions/{number}").status_code == 422


def test_an_alias_is_made_and_moved_with_its_etag(
    client: httpx.Client, engine: Engine, scores: Trained
) -> None:
    trained.publish(engine, scores, "scores")
    made = client.put(CHAMPION, json={"version": 1})
    assert (made.status_code, made.json()["version"]) == (201, 1)
    assert client.get(CHAMPION).headers["etag"] == made.headers["etag"]
    moved = client.put(CHAMPION, json={"version": 2}, headers={"If-Match": made.headers["etag"]})
    assert (moved.status_code, moved.json()["version"]) == (200, 2)
    assert client.get(CHAMPION).json()["version"] == 2


def test_an_alias_is_not_moved_without_if_match(client: httpx.Client, scores: Trained) -> None:
    client.put(CHAMPION, json={"version": 1})
    answer = client.put(CHAMPION, json={"version": 1})
    assert (answer.status_code, answer.json()["code"]) == (428, "precondition_required")


def test_an_alias_that_was_moved_meanwhile_is_not_moved(
    client: httpx.Client, engine: Engine, scores: Trained
) -> None:
    trained.publish(engine, scores, "scores")
    old = {"If-Match": client.put(CHAMPION, json={"version": 1}).headers["etag"]}
    client.put(CHAMPION, json={"version": 2}, headers=old)
    answer = client.put(CHAMPION, json={"version": 1}, headers=old)
    assert (answer.status_code, answer.json()["code"]) == (412, "precondition_failed")


def test_of_moves_at_the_same_time_one_wins(
    client: httpx.Client, engine: Engine, scores: Trained
) -> None:
    trained.publish(engine, scores, "scores")
    old = {"If-Match": client.put(CHAMPION, json={"version": 1}).headers["etag"]}
    with ThreadPoolExecutor(6) as pool:
        moves = [
            pool.submit(client.put, CHAMPION, json={"version": 2}, headers=old) for _ in range(6)
        ]
        statuses = sorted(move.result().status_code for move in moves)
    assert statuses == [200, 412, 412, 412, 412, 412]


def test_an_etag_of_a_deleted_alias_is_no_longer_good(
    client: httpx.Client, scores: Trained
) -> None:
    old = {"If-Match": client.put(CHAMPION, json={"version": 1}).headers["etag"]}
    assert client.delete(CHAMPION, headers=old).status_code == 204
    assert client.put(CHAMPION, json={"version": 1}, headers=old).status_code == 412
    client.put(CHAMPION, json={"version": 1})
    assert client.delete(CHAMPION, headers=old).status_code == 412


def test_an_alias_to_a_version_that_is_not_there_is_not_made(
    client: httpx.Client, scores: Trained
) -> None:
    assert client.put(CHAMPION, json={"version": 9}).status_code == 404
    assert client.put(CHAMPION, json={"version": 0}).status_code == 422


def test_a_version_tells_what_its_columns_are_worth(
    client: httpx.Client, engine: Engine, scores: Trained
) -> None:
    importance = {
        "split": "validation",
        "metric": "r2",
        "rows": 3,
        "shuffles": 5,
        "columns": [{"column": "Quiz", "mean": 1.5, "std": 0.1}],
    }
    metrics = {"train": {"r2": 1.0}, "importance": importance}
    trained.publish(engine, scores, "scores", metrics=metrics)
    body = client.get(f"{SCORES}/versions/2").json()
    assert body["importance"] == importance
    assert body["metrics"] == {"train": {"r2": 1.0}}
    assert client.get(f"{SCORES}/versions/1").json()["importance"] is None


def test_a_version_with_an_alias_is_not_deleted(client: httpx.Client, scores: Trained) -> None:
    client.put(CHAMPION, json={"version": 1})
    answer = client.delete(f"{SCORES}/versions/1")
    assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
    assert answer.json()["aliases"] == ["champion"]
    client.delete(CHAMPION)
    assert client.delete(f"{SCORES}/versions/1").status_code == 204
    assert client.get(f"{SCORES}/versions/1").status_code == 404


def test_a_model_is_deleted_with_all_that_it_has(client: httpx.Client, scores: Trained) -> None:
    client.put(CHAMPION, json={"version": 1})
    assert client.delete(SCORES).status_code == 204
    assert client.get(SCORES).status_code == 404
    assert client.delete(SCORES).status_code == 404


def test_a_linear_model_shows_its_parameters(client: httpx.Client, scores: Trained) -> None:
    body = client.get(f"{SCORES}/versions/1/parameters").json()
    assert body == trained.SCORES_PARAMETERS


def test_a_model_that_is_not_linear_has_no_parameters(client: httpx.Client, boats: Trained) -> None:
    answer = client.get(f"{MODELS}/boats/versions/1/parameters")
    assert (answer.status_code, answer.json()["code"]) == (409, "not_linear")


def test_a_checkpoint_becomes_a_version(client: httpx.Client, store: Store) -> None:
    run = store(trained.scores())
    path = f"/api/v1/runs/{run.run_id}/checkpoints/{run.checkpoint_id}/register"
    made = client.post(path, json={"model": "copy"})
    assert made.status_code == 201
    assert made.headers["location"] == f"{MODELS}/copy/versions/1"
    (quiz,) = made.json()["signature"]["inputs"]
    assert (quiz["name"], quiz["min"], quiz["max"], quiz["missing_as"]) == (
        "Quiz",
        2.5,
        12.5,
        "mean",
    )
    assert quiz["clip"] == {"min": 2.5 - 1e7, "max": 12.5 + 1e7}
    parameters = client.get(f"{MODELS}/copy/versions/1/parameters").json()
    assert parameters == {"weights": {"Quiz": 1.25}, "bias": 0.5, "sse": None}


def test_parameters_of_classes_are_keyed_by_class(client: httpx.Client, store: Store) -> None:
    run = store(trained.boats())
    path = f"/api/v1/runs/{run.run_id}/checkpoints/{run.checkpoint_id}/register"
    made = client.post(path, json={"model": "copy"})
    categories = made.json()["signature"]["inputs"][1]["categories"]
    assert {"value": "Southampton", "count": 3} in categories
    parameters = client.get(f"{MODELS}/copy/versions/1/parameters").json()
    assert list(parameters) == ["=no", "yes"]
    assert "Port=Cherbourg" in parameters["yes"]["weights"]


def test_a_checkpoint_is_registered_once_for_each_key(
    client: httpx.Client, scores: Trained
) -> None:
    path = f"/api/v1/runs/{scores.run_id}/checkpoints/{scores.checkpoint_id}/register"
    key = {"Idempotency-Key": "once"}
    made = client.post(path, json={"model": "copy"}, headers=key)
    again = client.post(path, json={"model": "copy"}, headers=key)
    assert again.headers["idempotency-replayed"] == "true"
    assert again.json() == made.json()
    assert client.get(f"{MODELS}/copy").json()["latest_version"] == 1
    shown = client.get(f"{MODELS}/copy/versions/1/parameters").json()
    assert shown == trained.SCORES_PARAMETERS, "what another version of it knows is kept"


def test_a_checkpoint_of_another_run_is_not_registered(
    client: httpx.Client, scores: Trained, boats: Trained
) -> None:
    path = f"/api/v1/runs/{scores.run_id}/checkpoints/{boats.checkpoint_id}/register"
    assert client.post(path, json={"model": "copy"}).status_code == 404
    assert client.get(f"{MODELS}/copy").status_code == 404


def test_versions_of_a_run_survive_its_checkpoints(
    client: httpx.Client, engine: Engine, scores: Trained
) -> None:
    with writing(engine) as session:
        run = lifecycle.get(session, scores.run_id)
        run.best_checkpoint_id = None
        session.delete(lifecycle.find_checkpoint(session, run, scores.checkpoint_id))
    answer = client.post(f"{SCORES}/predict", json={"rows": [{"Quiz": 10}]})
    assert answer.json()["predictions"] == [{"value": 13.0}]


def test_under_a_prefix_the_location_of_a_version_carries_it_once(
    settings: Settings, serve: Serve, scores: Trained
) -> None:
    client = serve(settings.model_copy(update={"root_path": "/descent"}))
    path = f"/api/v1/runs/{scores.run_id}/checkpoints/{scores.checkpoint_id}/register"
    answer = client.post(path, json={"model": "scores"})
    assert answer.headers["location"] == "/descent/api/v1/models/scores/versions/2"


def test_a_checkpoint_says_which_epoch_predicts(client: httpx.Client, scores: Trained) -> None:
    (body,) = client.get(f"/api/v1/runs/{scores.run_id}/checkpoints").json()["data"]
    assert (body["metrics_epoch"], body["metrics"]) == (1, {"train": {"loss": 1.0}})
