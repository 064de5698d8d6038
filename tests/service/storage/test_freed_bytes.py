"""Stored bytes over HTTP: DELETE frees them, and damage gives an error, never a wrong value."""

from typing import Any

import httpx
import pytest
from sqlalchemy import Engine

from service.settings import Settings
from service.storage.database import writing
from service.storage.references import collect
from tests.service.rows import add_run
from tests.storage import Place

pytestmark = pytest.mark.both_databases


def test_deleting_a_dataset_frees_its_bytes(
    settings: Settings, engine: Engine, place: Place, serve: Any
) -> None:
    client: httpx.Client = serve(settings.model_copy(update={"blob_url": place.url}))
    url = "/api/v1/datasets"
    csv = {"Content-Type": "text/csv"}
    made = client.post(url, content=b"x,y\n1,2\n3,4\n", headers=csv, params={"name": "d"})
    assert made.status_code == 201, made.text
    dataset = f"{url}/{made.json()['id']}"
    assert len(place.names()) == 2  # as received, and the typed columns
    assert collect(engine, place.open()) == []
    assert client.get(f"{dataset}/content").content == b"x,y\n1,2\n3,4\n"
    assert len(client.get(f"{dataset}/rows").json()["data"]) == 2
    assert client.delete(dataset).status_code == 204
    collect(engine, place.open())
    assert place.names() == set()


def test_a_deleted_dataset_that_runs_name_keeps_its_rows_but_not_its_bytes(
    settings: Settings, engine: Engine, place: Place, serve: Any
) -> None:
    client: httpx.Client = serve(settings.model_copy(update={"blob_url": place.url}))
    made = client.post(
        "/api/v1/datasets", content=b"x,y\n1,2\n3,4\n", headers={"Content-Type": "text/csv"}
    ).json()
    with writing(engine) as session:
        add_run(session, made["id"]).state = "failed"
    assert client.delete(f"/api/v1/datasets/{made['id']}").status_code == 204
    collect(engine, place.open())
    assert place.names() == set()


def test_damaged_bytes_of_a_dataset_are_an_error_and_never_rows(
    settings: Settings, place: Place, serve: Any
) -> None:
    client: httpx.Client = serve(settings.model_copy(update={"blob_url": place.url}))
    made = client.post(
        "/api/v1/datasets", content=b"x,y\n1,2\n3,4\n", headers={"Content-Type": "text/csv"}
    ).json()
    for sha256 in place.names():
        place.write(sha256, place.read(sha256)[:-1])
    for part in ("rows", "content"):
        answer = client.get(f"/api/v1/datasets/{made['id']}/{part}")
        assert (answer.status_code, answer.json()["code"]) == (409, "bytes_lost")


def test_a_service_whose_storage_is_away_says_so(
    settings: Settings, serve: Any, s3_url: str
) -> None:
    client: httpx.Client = serve(settings.model_copy(update={"blob_url": "s3://no-such-bucket"}))
    ready = client.get("/readyz")
    assert ready.status_code == 503
    answer = client.post(
        "/api/v1/datasets", content=b"x,y\n1,2\n3,4\n", headers={"Content-Type": "text/csv"}
    )
    assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
    assert answer.headers["Retry-After"]
