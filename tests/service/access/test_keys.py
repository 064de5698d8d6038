"""API keys: valid and revoked keys, and the storage of secrets."""

import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import Engine, text

from service.access import keys
from service.access.keys import KeyRing, check_reachable, is_well_formed, new_secret
from service.errors import Unauthorized
from service.settings import Settings
from service.storage.database import writing
from tests.serving import Serve

pytestmark = pytest.mark.both_databases

SETTING = "setting-key-of-the-test"


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def make_key(client: httpx.Client, name: str = "laptop", **body: str) -> dict[str, str]:
    answer = client.post("/api/v1/keys", json={"name": name} | body)
    assert answer.status_code == 201, answer.text
    made: dict[str, str] = answer.json()
    return made


def test_a_secret_carries_a_checksum_that_finds_typos() -> None:
    secret = new_secret()
    assert re.fullmatch(r"dsc_[0-9A-Za-z]{36}", secret)
    assert is_well_formed(secret)
    wrong = secret[:10] + ("a" if secret[10] != "a" else "b") + secret[11:]
    assert not is_well_formed(wrong)
    assert not is_well_formed(secret + "x")
    assert not is_well_formed("ü" * 40)


def test_without_any_key_a_service_on_loopback_is_open(client: httpx.Client) -> None:
    assert client.get("/api/v1/keys").status_code == 200


def test_a_wrong_key_is_refused_even_where_none_is_needed(client: httpx.Client) -> None:
    answer = client.get("/api/v1/keys", headers=bearer("nonsense"))
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")


def test_the_first_key_closes_the_service(client: httpx.Client, engine: Engine) -> None:
    made = make_key(client)
    ring = KeyRing(engine, Settings())  # another process, which has an empty cache
    with pytest.raises(Unauthorized):
        ring.caller(None)
    assert ring.caller(made["secret"]) == made["id"]
    assert client.get("/api/v1/keys", headers=bearer(made["secret"])).status_code == 200


def test_only_the_hash_of_a_secret_is_stored(client: httpx.Client, engine: Engine) -> None:
    secret = make_key(client)["secret"]
    with engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM keys")).one()
    assert secret not in str(row)
    assert secret[8:] not in str(row)


def test_a_secret_is_shown_once(client: httpx.Client) -> None:
    made = make_key(client)
    listed = client.get("/api/v1/keys", headers=bearer(made["secret"]))
    assert made["secret"] not in listed.text
    assert listed.json()["data"] == [{k: v for k, v in made.items() if k != "secret"}]


def test_a_request_for_a_key_that_is_sent_again_makes_none_and_keeps_no_secret(
    settings: Settings, serve: Serve, engine: Engine
) -> None:
    client = serve(settings.model_copy(update={"api_key": Settings(api_key=SETTING).api_key}))
    headers = bearer(SETTING) | {"Idempotency-Key": "once"}
    first, again = (
        client.post("/api/v1/keys", json={"name": "laptop"}, headers=headers) for _ in range(2)
    )
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
    assert again.json() == first.json() | {"secret": None}
    assert again.headers["Location"] == first.headers["Location"]
    with engine.connect() as connection:
        (stored,) = connection.execute(text("SELECT * FROM idempotency_keys")).all()
        assert connection.execute(text("SELECT count(*) FROM keys")).scalar_one() == 1
    assert first.json()["secret"] not in str(stored)
    assert client.get("/api/v1/keys", headers=bearer(first.json()["secret"])).status_code == 200


def test_a_deleted_key_stops_working_within_a_second(client: httpx.Client) -> None:
    admin = make_key(client)
    other = client.post("/api/v1/keys", json={"name": "b"}, headers=bearer(admin["secret"])).json()
    assert client.get("/api/v1/keys", headers=bearer(other["secret"])).status_code == 200
    path = f"/api/v1/keys/{other['id']}"
    assert client.delete(path, headers=bearer(admin["secret"])).status_code == 204
    deadline = datetime.now(UTC) + timedelta(seconds=1)
    while client.get("/api/v1/keys", headers=bearer(other["secret"])).status_code == 200:
        assert datetime.now(UTC) < deadline
    assert client.delete(path, headers=bearer(admin["secret"])).status_code == 404


def test_an_expired_key_is_refused_and_says_when_it_ended(engine: Engine) -> None:
    with writing(engine) as session:
        _key, secret = keys.create(session, "old", datetime(2026, 1, 2, tzinfo=UTC))
    with pytest.raises(Unauthorized, match="expired at 2026-01-02"):
        KeyRing(engine, Settings()).caller(secret)


def test_a_key_cannot_be_made_in_the_past_or_without_a_zone(client: httpx.Client) -> None:
    for expires_at in ("2001-01-01T00:00:00Z", "2101-01-01T00:00:00", "soon", 4133980800):
        body = {"name": "x", "expires_at": expires_at}
        answer = client.post("/api/v1/keys", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/expires_at"


def test_the_key_of_the_settings_is_always_valid(settings: Settings, serve: Serve) -> None:
    client = serve(settings.model_copy(update={"api_key": Settings(api_key=SETTING).api_key}))
    assert client.get("/api/v1/keys").status_code == 401
    assert client.get("/api/v1/keys", headers=bearer(SETTING)).status_code == 200
    assert client.get("/api/v1/keys", headers=bearer(SETTING + "x")).status_code == 401


def test_an_authorization_header_that_cannot_be_read_is_refused(client: httpx.Client) -> None:
    for header in ("Basic abc", "Bearer", "bearer", "dsc_x", ""):
        answer = client.get("/api/v1/keys", headers={"Authorization": header})
        assert answer.status_code == 401


def test_a_public_address_needs_a_key(engine: Engine, settings: Settings) -> None:
    public = settings.model_copy(update={"host": "0.0.0.0"})  # noqa: S104  never bound
    with pytest.raises(ValueError, match="python -m service keys create"):
        check_reachable(engine, public)
    with writing(engine) as session:
        keys.create(session, "first")
    check_reachable(engine, public)


def test_keys_are_listed_newest_first_in_pages(client: httpx.Client) -> None:
    first = make_key(client, "0")
    secret = bearer(first["secret"])
    for number in range(1, 5):
        client.post("/api/v1/keys", json={"name": str(number)}, headers=secret)
    names, url = [], "/api/v1/keys?limit=2"
    while url:
        answer = client.get(url, headers=secret)
        names += [key["name"] for key in answer.json()["data"]]
        url = answer.links["next"]["url"] if "next" in answer.links else ""
    assert sorted(names) == ["0", "1", "2", "3", "4"]
    assert names[-1] == "0"


def test_the_end_of_a_key_is_kept_in_utc(client: httpx.Client) -> None:
    made = make_key(client, expires_at="2101-01-01T10:00:00+14:00")
    assert made["expires_at"] == "2100-12-31T20:00:00Z"
    listed = client.get("/api/v1/keys", headers=bearer(made["secret"])).json()["data"]
    assert [key["expires_at"] for key in listed] == ["2100-12-31T20:00:00Z"]


def test_an_end_that_is_no_time_in_utc_is_invalid(client: httpx.Client) -> None:
    body = {"name": "x", "expires_at": "9999-12-31T23:59:59-14:00"}
    answer = client.post("/api/v1/keys", json=body)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/expires_at"
