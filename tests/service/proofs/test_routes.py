"""Export verifications over HTTP, and moves of aliases that wait for them; without a worker."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, update

from service.registry import routes
from service.registry.routes import PROOF_WAIT_S
from service.registry.tables import Proof
from service.storage.database import POOL_SIZE, writing
from tests.service import trained
from tests.service.registry.test_proofs import DETAILS, WRONG, end
from tests.service.trained import Trained

SCORES = "/api/v1/models/scores"
CHAMPION = f"{SCORES}/aliases/champion"


@pytest.fixture
def pending(engine: Engine, scores: Trained) -> str:
    """The address of version 2 of `scores`, which is pending; version 1 is verified."""
    return f"{SCORES}/versions/{trained.publish(engine, scores, 'scores', is_proved=False)}"


def told(client: httpx.Client, version: str) -> tuple[Any, Any, Any]:
    body = client.get(version).raise_for_status().json()
    return body["proof"], body["proof_details"], body["proof_error"]


def refused(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert (answer.status_code, body["code"]) == (409, "proof_not_passed"), body
    return body


def test_a_version_tells_its_proof(client: httpx.Client, engine: Engine, pending: str) -> None:
    etag = client.get(pending).headers["etag"]
    assert told(client, pending) == ("pending", None, None)
    end(engine, None)
    verdict, details, error = told(client, pending)
    assert (verdict, error) == ("passed", None)
    assert details.pop("finished_at") is not None
    assert details == DETAILS | {"left_out": {}}
    assert client.get(pending, headers={"If-None-Match": etag}).status_code == 200


def test_a_version_tells_why_it_failed(client: httpx.Client, engine: Engine, pending: str) -> None:
    end(engine, WRONG)
    verdict, details, error = told(client, pending)
    assert (verdict, details["largest"], error) == ("failed", 0.5, WRONG)
    versions = client.get(f"{SCORES}/versions").json()["data"]
    assert [version["proof"] for version in versions] == ["failed", "passed"]


def test_a_version_that_is_not_proved_is_asked_all_the_same(
    client: httpx.Client, pending: str
) -> None:
    answer = client.post(f"{pending}/predict", json={"rows": [{"Quiz": 10.0}]})
    assert answer.json()["predictions"] == [{"value": 13.0}]


def test_a_move_to_what_has_failed_is_refused_at_once(
    client: httpx.Client, engine: Engine, pending: str
) -> None:
    end(engine, WRONG)
    began = time.monotonic()
    answer = client.put(CHAMPION, json={"version": 2})
    assert WRONG["detail"] in refused(answer)["detail"]
    assert "retry-after" not in answer.headers
    assert time.monotonic() - began < PROOF_WAIT_S / 2
    assert client.get(CHAMPION).status_code == 404


def test_a_move_waits_for_a_proof_but_not_for_ever(client: httpx.Client, pending: str) -> None:
    began = time.monotonic()
    answer = client.put(CHAMPION, json={"version": 2})
    assert refused(answer)["proof"] == "pending"
    assert answer.headers["retry-after"] == "1"
    assert PROOF_WAIT_S < time.monotonic() - began < 3 * PROOF_WAIT_S


def test_moves_that_wait_hold_no_connection_and_nobody_up(
    client: httpx.Client, engine: Engine, pending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the steps meanwhile take longer than the usual wait of a move.
    monkeypatch.setattr(routes, "PROOF_WAIT_S", 60.0)
    body = {"version": 1, "canary": {"version": 2, "percent": 5}}
    count = POOL_SIZE + 10
    with ThreadPoolExecutor(count) as threads:
        asked = [
            threads.submit(client.put, f"{SCORES}/aliases/a{place}", json=body)
            for place in range(count)
        ]
        began = time.monotonic()
        while time.monotonic() - began < 1.0:
            assert client.get(pending).status_code == 200
            with writing(engine):  # SQLite has one writer: no waiting move may be it
                pass
        assert not any(answer.done() for answer in asked)
        end(engine, None)
        assert {answer.result().status_code for answer in asked} == {201}


def test_a_rollback_waits_for_a_proof_too(
    client: httpx.Client, engine: Engine, pending: str
) -> None:
    end(engine, None)
    first = client.put(CHAMPION, json={"version": 2})
    client.put(CHAMPION, json={"version": 1}, headers={"If-Match": first.headers["etag"]})
    with writing(engine) as session:  # the service never does this
        again = update(Proof).where(Proof.model_version == 2)
        session.execute(again.values(state="queued", details=None))
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(client.post, f"{CHAMPION}/rollback")
        end(engine, WRONG)
        refused(asked.result())
    assert client.get(CHAMPION).json()["version"] == 1


def test_a_version_that_goes_while_a_move_waits_is_not_found(
    client: httpx.Client, pending: str
) -> None:
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(client.put, CHAMPION, json={"version": 2})
        assert client.delete(pending).status_code == 204
        assert asked.result().status_code == 404
