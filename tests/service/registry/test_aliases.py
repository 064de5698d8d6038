"""Aliases distribute requests, move only to loaded versions, and roll back."""

from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine

from tests.service import trained
from tests.service.trained import Store, Trained

pytestmark = pytest.mark.both_databases

SCORES = "/api/v1/models/scores"
CHAMPION = f"{SCORES}/aliases/champion"
ROWS = {"rows": [{"Quiz": 10.0}]}


@pytest.fixture
def four(engine: Engine, scores: Trained) -> Trained:
    """The model `scores` with four versions."""
    for _ in range(3):
        trained.publish(engine, scores, "scores")
    return scores


def move(client: httpx.Client, version: int, **others: object) -> httpx.Response:
    """Move the alias as a client that has just read it."""
    found = client.get(CHAMPION)
    headers = {"If-Match": found.headers["etag"]} if found.status_code == 200 else {}
    return client.put(CHAMPION, json={"version": version, **others}, headers=headers)


def state(answer: httpx.Response) -> tuple[int, object, object]:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    return body["version"], body["canary"], body["shadow"]


def damage(folder: Path, run: Trained) -> None:
    path = folder / "data" / "blobs" / "sha256" / run.sha256[:2] / run.sha256
    path.chmod(0o600)
    path.write_bytes(b"damaged")


# ---- canary and shadow ---------------------------------------------------------------------------


def test_a_canary_answers_its_share_of_the_requests(client: httpx.Client, four: Trained) -> None:
    move(client, 1, canary={"version": 2, "percent": 20})
    asked = [client.post(f"{CHAMPION}/predict", json=ROWS).json()["version"] for _ in range(100)]
    assert set(asked) == {1, 2}
    assert 18 <= asked.count(2) <= 22


def test_an_alias_tells_its_canary_and_its_shadow(client: httpx.Client, four: Trained) -> None:
    move(client, 1, canary={"version": 2, "percent": 2.5}, shadow={"version": 3})
    assert state(client.get(CHAMPION)) == (1, {"version": 2, "percent": 2.5}, {"version": 3})


def test_a_move_that_names_no_canary_ends_it(client: httpx.Client, four: Trained) -> None:
    move(client, 1, canary={"version": 2, "percent": 50}, shadow={"version": 3})
    assert state(move(client, 1)) == (1, None, None)


@pytest.mark.parametrize(
    "body",
    [
        {"version": 1, "canary": {"version": 1, "percent": 5}},
        {"version": 1, "shadow": {"version": 1}},
        {"version": 1, "canary": {"version": 2, "percent": 0}},
        {"version": 1, "canary": {"version": 2, "percent": 100}},
        {"version": 1, "canary": {"version": 2, "percent": -1}},
        {"version": 1, "canary": {"version": 2}},
        {"version": 1, "canary": {"version": 2, "percent": "5"}},
        {"version": 1, "shadow": {"version": 2, "percent": 5}},
    ],
)
def test_a_canary_that_makes_no_sense_is_invalid(
    client: httpx.Client, four: Trained, body: dict[str, object]
) -> None:
    assert client.put(CHAMPION, json=body).status_code == 422
    assert client.get(CHAMPION).status_code == 404


@pytest.mark.parametrize(
    "others", [{"canary": {"version": 9, "percent": 5}}, {"shadow": {"version": 9}}]
)
def test_a_canary_that_does_not_exist_is_not_found(
    client: httpx.Client, four: Trained, others: dict[str, object]
) -> None:
    answer = move(client, 1, **others)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "9" in answer.json()["detail"]


def test_a_version_is_kept_while_it_is_a_canary_or_a_shadow(
    client: httpx.Client, four: Trained
) -> None:
    move(client, 1, canary={"version": 2, "percent": 5}, shadow={"version": 3})
    for number in (1, 2, 3):
        answer = client.delete(f"{SCORES}/versions/{number}")
        assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
    assert client.delete(f"{SCORES}/versions/4").status_code == 204


# ---- the switch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("asked_before", [1, 2])
def test_an_alias_is_not_moved_to_damaged_bytes(
    client: httpx.Client,
    engine: Engine,
    scores: Trained,
    store: Store,
    tmp_path: Path,
    asked_before: int,
) -> None:
    other = store(trained.both())
    trained.publish(engine, other, "scores")
    move(client, 1)
    # A version that is already in memory must be checked too.
    client.post(f"{SCORES}/versions/{asked_before}/predict", json=ROWS)
    damage(tmp_path, other)
    for body in (
        {"version": 2},
        {"version": 1, "canary": {"version": 2, "percent": 5}},
        {"version": 1, "shadow": {"version": 2}},
    ):
        answer = move(client, **body)
        assert (answer.status_code, answer.json()["code"]) == (409, "checkpoint_corrupt")
    assert state(client.get(CHAMPION)) == (1, None, None)


# ---- rollback ------------------------------------------------------------------------------------


def back(client: httpx.Client) -> httpx.Response:
    return client.post(f"{CHAMPION}/rollback")


def test_a_rollback_goes_back_and_further_back(client: httpx.Client, four: Trained) -> None:
    for version in (1, 2, 3):
        move(client, version)
    assert state(back(client))[0] == 2
    assert client.post(f"{CHAMPION}/predict", json=ROWS).json()["version"] == 2
    assert state(back(client))[0] == 1
    answer = back(client)
    assert (answer.status_code, answer.json()["code"]) == (409, "nothing_to_roll_back")
    assert state(client.get(CHAMPION))[0] == 1


def test_a_move_after_a_rollback_goes_back_to_where_the_rollback_led(
    client: httpx.Client, four: Trained
) -> None:
    for version in (1, 2, 3):
        move(client, version)
    back(client)
    move(client, 4)
    assert [state(back(client))[0] for _ in range(2)] == [2, 1]


def test_a_rollback_takes_the_canary_away_first(client: httpx.Client, four: Trained) -> None:
    move(client, 1)
    move(client, 2)
    move(client, 2, canary={"version": 3, "percent": 5})
    move(client, 2, canary={"version": 3, "percent": 50})
    assert state(back(client)) == (2, None, None)
    assert state(back(client)) == (1, None, None)


def test_a_rollback_brings_no_canary_back(client: httpx.Client, four: Trained) -> None:
    move(client, 1)
    move(client, 1, canary={"version": 2, "percent": 50})
    move(client, 2)
    assert state(back(client)) == (1, None, None)
    assert back(client).status_code == 409


def test_a_rollback_to_a_version_that_was_deleted_is_refused(
    client: httpx.Client, four: Trained
) -> None:
    move(client, 1)
    move(client, 2)
    client.delete(f"{SCORES}/versions/1")
    answer = back(client)
    assert (answer.status_code, answer.json()["code"]) == (409, "version_deleted")
    assert state(client.get(CHAMPION))[0] == 2


def test_a_rollback_to_damaged_bytes_is_refused(
    client: httpx.Client, engine: Engine, scores: Trained, store: Store, tmp_path: Path
) -> None:
    trained.publish(engine, store(trained.both()), "scores")
    move(client, 1)
    move(client, 2)
    damage(tmp_path, scores)
    answer = back(client)
    assert (answer.status_code, answer.json()["code"]) == (409, "checkpoint_corrupt")
    assert state(client.get(CHAMPION))[0] == 2


def test_a_rollback_heeds_if_match_and_is_done_once(client: httpx.Client, four: Trained) -> None:
    for version in (1, 2, 3):
        move(client, version)
    old = {"If-Match": '"old"'}
    assert client.post(f"{CHAMPION}/rollback", headers=old).status_code == 412
    once = {"Idempotency-Key": "once", "If-Match": client.get(CHAMPION).headers["etag"]}
    first = client.post(f"{CHAMPION}/rollback", headers=once)
    again = client.post(f"{CHAMPION}/rollback", headers=once)
    assert state(first) == state(again) == (2, None, None)
    assert again.headers["idempotency-replayed"] == "true"
    assert state(client.get(CHAMPION))[0] == 2


def test_there_is_nothing_to_roll_back_where_there_is_no_alias(
    client: httpx.Client, four: Trained
) -> None:
    assert back(client).status_code == 404
    assert client.get(f"{CHAMPION}/history").status_code == 404


# ---- log lines -----------------------------------------------------------------------------------


def test_the_history_tells_every_move_newest_first(client: httpx.Client, four: Trained) -> None:
    move(client, 1)
    move(client, 2, canary={"version": 3, "percent": 5})
    move(client, 2, canary={"version": 3, "percent": 5})  # changes nothing
    back(client)
    body = client.get(f"{CHAMPION}/history").json()
    told = [(each["revision"], each["how"], each["version"]) for each in body["data"]]
    assert told == [(3, "rollback", 1), (2, "put", 2), (1, "put", 1)]
    assert body["data"][1]["canary"] == {"version": 3, "percent": 5}
    assert {each["key_id"] for each in body["data"]} == {None}
    first = client.get(f"{CHAMPION}/history", params={"limit": 2}).json()
    rest = client.get(f"{CHAMPION}/history", params={"limit": 2, "after": first["next_cursor"]})
    assert first["data"] + rest.json()["data"] == body["data"]


def test_the_history_names_the_key_that_moved(client: httpx.Client, four: Trained) -> None:
    key = client.post("/api/v1/keys", json={"name": "deployer"}).json()
    client.headers["Authorization"] = f"Bearer {key['secret']}"
    move(client, 1)
    assert client.get(f"{CHAMPION}/history").json()["data"][0]["key_id"] == key["id"]


def test_an_alias_that_is_made_again_has_no_history(client: httpx.Client, four: Trained) -> None:
    move(client, 1)
    move(client, 2)
    client.delete(CHAMPION)
    move(client, 3)
    assert len(client.get(f"{CHAMPION}/history").json()["data"]) == 1
    assert back(client).status_code == 409


def test_aliases_are_listed_newest_first_page_by_page(client: httpx.Client, four: Trained) -> None:
    for alias in ("champion", "staging"):
        client.put(f"{SCORES}/aliases/{alias}", json={"version": 1})
    first = client.get(f"{SCORES}/aliases", params={"limit": 1})
    assert [each["alias"] for each in first.json()["data"]] == ["staging"]
    after = first.json()["next_cursor"]
    second = client.get(f"{SCORES}/aliases", params={"limit": 1, "after": after}).json()
    assert ([each["alias"] for each in second["data"]], second["has_more"]) == (["champion"], False)
    assert client.get("/api/v1/models/nobody/aliases").status_code == 404
