"""A repeated request does its work once, whatever happens in between."""

import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from anyio.to_thread import run_sync
from fastapi import Request, Response
from sqlalchemy import Engine, event, func, select
from sqlalchemy.exc import OperationalError

from descent.fields import Strict
from service.errors import Conflict, Invalid, NotFound
from service.http import strict_route
from service.http.resources import EngineDep, WriteSession
from service.http.strict_route import (
    KEPT,
    LEASE,
    Claim,
    IdempotencyKey,
    StoredResponse,
    begin_upload,
    keep_response,
    not_idempotent,
    router,
    streams_body,
)
from service.registry.tables import Model
from service.settings import Settings
from service.storage.columns import new_id, utc_now
from service.storage.database import reading, writing
from tests.serving import app_of, serving

pytestmark = pytest.mark.both_databases


class Body(Strict):
    """The body of the probe."""

    name: str = "m"


class Gate:
    """Blocks the route `/slow` until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()


gate = Gate()
probes = router("/probe")


def add_model(session: Any) -> str:
    name = new_id("m")
    session.add(Model(name=name))
    return name


@probes.post("/work", status_code=201)
def work(body: Body, session: WriteSession, response: Response) -> dict[str, str]:
    name = add_model(session)
    response.headers["Location"] = f"/models/{name}"
    return {"made": name}


@probes.post("/slow")
def slow(body: Body, session: WriteSession) -> dict[str, str]:
    name = add_model(session)
    return {"made": name}


@probes.post("/held")
def held(body: Body, engine: EngineDep) -> dict[str, str]:
    gate.entered.set()
    assert gate.opened.wait(30)
    with writing(engine) as session:
        return {"made": add_model(session)}


@probes.post("/refused")
def refused(body: Body, session: WriteSession) -> None:
    add_model(session)
    session.flush()
    raise NotFound("there is nothing")


@probes.post("/lost")
def lost(body: Body, session: WriteSession) -> dict[str, str]:
    name = add_model(session)

    def lose(_connection: object) -> None:
        raise OperationalError("COMMIT", {}, Exception("the server closed the connection"))

    # On this connection only: the service's own threads commit meanwhile.
    event.listen(session.connection(), "commit", lose, once=True)
    return {"made": name}


@probes.post("/upload")
@streams_body
async def upload(request: Request, engine: EngineDep) -> Response:
    data = b"".join([chunk async for chunk in request.stream()])
    if (replayed := await begin_upload(request, data.hex())) is not None:
        return replayed
    with writing(engine) as session:
        return Response(add_model(session), 201)


@probes.post("/accepted")
@streams_body
async def accepted(request: Request, engine: EngineDep) -> Response:
    data = b"".join([chunk async for chunk in request.stream()])
    if (replayed := await begin_upload(request, data.hex())) is not None:
        return replayed
    with writing(engine) as session:
        name = add_model(session)
        keep_response(request, session, Response(f"{name} is being read", 202))
    gate.entered.set()
    await run_sync(gate.opened.wait, 30)
    return Response(f"{name} is ready", 201)


@probes.post("/ignores")
@not_idempotent
def ignores(body: Body, session: WriteSession) -> dict[str, str]:
    return {"made": add_model(session)}


@pytest.fixture
def probe(settings: Settings) -> Iterator[httpx.Client]:
    app = app_of(settings)
    app.include_router(probes)
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as client:
        yield client


def post(probe: httpx.Client, path: str, key: str, name: str = "m") -> httpx.Response:
    return probe.post(f"/probe/{path}", json={"name": name}, headers={"Idempotency-Key": key})


def models(engine: Engine) -> int:
    with reading(engine) as session:
        return session.execute(select(func.count()).select_from(Model)).scalar_one()


def test_the_same_request_gets_the_stored_response(probe: httpx.Client, engine: Engine) -> None:
    first, second = post(probe, "work", "a"), post(probe, "work", "a")
    assert first.status_code == second.status_code == 201
    assert first.json() == second.json()
    assert first.headers["Location"] == second.headers["Location"]
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert models(engine) == 1


def test_another_request_under_the_same_key_is_refused(probe: httpx.Client, engine: Engine) -> None:
    post(probe, "work", "a")
    for other in (post(probe, "work", "a", name="n"), post(probe, "slow", "a")):
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert models(engine) == 1


def test_other_keys_and_no_key_do_the_work_again(probe: httpx.Client, engine: Engine) -> None:
    post(probe, "work", "a")
    post(probe, "work", "b")
    probe.post("/probe/work", json={})
    assert models(engine) == 3


def test_a_request_in_flight_is_a_conflict_to_try_again(
    probe: httpx.Client, engine: Engine
) -> None:
    gate.entered.clear()
    gate.opened.clear()
    answers: list[httpx.Response] = []
    first = threading.Thread(target=lambda: answers.append(post(probe, "held", "a")))
    first.start()
    assert gate.entered.wait(30)
    second = post(probe, "held", "a")
    assert (second.status_code, second.json()["code"]) == (409, "in_flight")
    assert int(second.headers["Retry-After"]) >= 1
    gate.opened.set()
    first.join()
    assert post(probe, "held", "a").json() == answers[0].json()
    assert models(engine) == 1


def test_a_request_that_failed_frees_its_key_and_leaves_nothing(
    probe: httpx.Client, engine: Engine
) -> None:
    for _ in range(2):
        answer = post(probe, "refused", "a")
        assert answer.status_code == 404
    assert models(engine) == 0


def test_a_failed_commit_loses_work_and_response_together(
    probe: httpx.Client, engine: Engine
) -> None:
    assert post(probe, "lost", "a").status_code == 503
    assert models(engine) == 0
    again = post(probe, "work", "a")
    assert again.status_code == 201
    assert "Idempotency-Replayed" not in again.headers


def test_an_upload_is_told_by_its_bytes(probe: httpx.Client, engine: Engine) -> None:
    headers = {"Idempotency-Key": "a"}
    first = probe.post("/probe/upload", content=b"12", headers=headers)
    second = probe.post("/probe/upload", content=b"12", headers=headers)
    other = probe.post("/probe/upload", content=b"34", headers=headers)
    assert (first.status_code, first.text) == (201, second.text)
    assert (second.headers["Idempotency-Replayed"], other.status_code) == ("true", 422)
    assert models(engine) == 1


def test_an_upload_that_was_accepted_is_not_accepted_again_while_it_is_read(
    probe: httpx.Client, engine: Engine
) -> None:
    gate.entered.clear()
    gate.opened.clear()
    answers: list[httpx.Response] = []

    def send() -> httpx.Response:
        return probe.post("/probe/accepted", content=b"12", headers={"Idempotency-Key": "a"})

    first = threading.Thread(target=lambda: answers.append(send()))
    first.start()
    assert gate.entered.wait(30)
    meanwhile = send()
    assert (meanwhile.status_code, "is being read" in meanwhile.text) == (202, True)
    gate.opened.set()
    first.join()
    later = send()
    assert (later.status_code, later.text) == (201, answers[0].text)
    assert models(engine) == 1


def test_what_changes_nothing_ignores_the_key(probe: httpx.Client, engine: Engine) -> None:
    assert post(probe, "ignores", "a").json() != post(probe, "ignores", "a").json()


def test_a_key_that_is_none_is_refused(probe: httpx.Client) -> None:
    for key in ("", "x" * 256, "a b"):
        answer = post(probe, "work", key)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_idempotency_key")


def add_and_store(engine: Engine, claim: Claim) -> None:
    with writing(engine) as session:
        session.add(Model(name="late"))
        claim.store(session, StoredResponse(200, {}, ""))


def begin(engine: Engine, fingerprint: str = "f", **when: Any) -> Claim | StoredResponse:
    return strict_route.begin_claim(engine, "open", "k", fingerprint, **when)


def test_an_expired_lease_frees_the_key(engine: Engine) -> None:
    now = utc_now()
    assert isinstance(begin(engine, now=now), Claim)
    with pytest.raises(Conflict):
        begin(engine, now=now + LEASE / 2)
    assert isinstance(begin(engine, now=now + LEASE), Claim)


def test_a_request_that_lost_its_lease_cannot_store_its_response(engine: Engine) -> None:
    now = utc_now()
    first = begin(engine, now=now)
    begin(engine, now=now + LEASE)
    assert isinstance(first, Claim)
    with pytest.raises(Conflict, match="took so long"):
        add_and_store(engine, first)
    assert models(engine) == 0


def test_a_response_is_kept_for_a_day(engine: Engine) -> None:
    now = utc_now()
    claim = begin(engine, now=now)
    assert isinstance(claim, Claim)
    claim.store(None, StoredResponse(201, {"location": "/x"}, "{}"))
    late = now + KEPT - timedelta(seconds=1)
    assert begin(engine, now=late) == StoredResponse(201, {"location": "/x"}, "{}")
    with pytest.raises(Invalid):
        begin(engine, "other", now=late)
    assert isinstance(begin(engine, "other", now=now + KEPT), Claim)
    with reading(engine) as session:
        assert session.execute(select(func.count()).select_from(IdempotencyKey)).scalar_one() == 1


def test_bodies_that_mean_the_same_have_one_fingerprint() -> None:
    assert strict_route.canonical({"a": 1, "b": [2]}) == strict_route.canonical({"b": [2], "a": 1})
