"""Uploads beside hostile ones, and uploads whose processes are killed, with real workers."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.datasets import upload
from service.datasets.upload import Received, Upload
from service.datasets.versions import Dataset
from service.storage.blobs import digest_of
from service.storage.database import reading
from tests.chaos import points
from tests.conftest import MakeDatabase
from tests.service.worker.workplace import Workplace, clear_orders, until, workplace_in
from tests.serving import TLS, RunService
from tests.warm import Parent

PATH = "/api/v1/datasets"
CSV = {"Content-Type": "text/csv"}
COLUMNS, ROWS = 10_000, 20  # of a file that takes minutes


def hostile() -> bytes:
    names = ",".join(f"c{index}" for index in range(COLUMNS))
    row = ",".join(str(index % 10) for index in range(COLUMNS))
    return "\n".join([names, *[row] * ROWS]).encode()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def client(run_service: RunService, folder: Path) -> Iterator[httpx.Client]:
    """Return a client of a service that has a worker, whose log is in the folder."""
    with (
        run_service(folder) as url,
        httpx.Client(base_url=url, timeout=60, verify=TLS) as client,
    ):
        yield client


def post(client: httpx.Client, content: bytes, wait: int) -> httpx.Response:
    return client.post(PATH, content=content, headers=CSV, params={"wait": wait})


def test_a_small_upload_does_not_wait_for_hostile_ones_whose_parsers_end_with_them(
    client: httpx.Client, folder: Path, warm: Parent
) -> None:
    hostiles = [post(client, hostile(), 0).headers["location"] for _ in range(2)]
    until(lambda: bool(warm.trainers()))
    began = time.monotonic()
    assert post(client, b"x,y\n1,2\n3,4\n5,6\n", 60).status_code == 201
    assert time.monotonic() - began < 10.0
    assert [client.get(place).json()["state"] for place in hostiles] == ["ingesting"] * 2
    for place in hostiles:
        assert client.delete(place).status_code == 204
    until(lambda: not warm.trainers())
    assert [client.get(place).status_code for place in hostiles] == [404, 404]
    log = (folder / "service.log").read_text()
    assert "never retrieved" not in log
    assert "Traceback" not in log


def test_who_waits_for_a_dataset_that_is_deleted_learns_that_it_is_gone(
    client: httpx.Client, folder: Path
) -> None:
    place = post(client, hostile(), 0).headers["location"]
    with httpx.Client(base_url=client.base_url, timeout=60, verify=TLS) as other:
        request = other.build_request("GET", place, params={"wait": 30})
        began = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(other.send, request)
            assert client.delete(place).status_code == 204
            assert waiting.result(30).status_code == 404
    assert time.monotonic() - began < 20
    assert "never retrieved" not in (folder / "service.log").read_text()


def test_without_a_worker_uploads_are_accepted_and_wait(
    warm: Parent, run_service: RunService, folder: Path
) -> None:
    with (
        run_service(folder, "--no-worker") as url,
        httpx.Client(base_url=url, timeout=60, verify=TLS) as client,
    ):
        answer = post(client, b"x,y\n1,2\n3,4\n", 1)
        assert (answer.status_code, answer.json()["state"]) == (202, "ingesting")
        worker = warm.start(folder, "worker")
        body = client.get(answer.headers["location"], params={"wait": 60}).json()
        assert (body["state"], body["rows"]) == ("ready", 2)
        worker.terminate()
        worker.wait(20)


# ---- killed -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def workplace(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    make_database: MakeDatabase,
    breakable: Parent,
) -> Iterator[Workplace]:
    folder = tmp_path_factory.mktemp("workplace")
    with workplace_in(make_database, request.param, folder, breakable) as workplace:
        yield workplace


def take_in(workplace: Workplace, data: bytes) -> str:
    path = workplace.folder / "received"
    path.write_bytes(data)
    digest, size = digest_of(path)
    sent = Upload("table", Received(path, digest, size, "text/csv"), {"header": "auto"}, "a")
    note = lambda _session, _dataset: None  # noqa: E731
    return upload.accept(workplace.engine, workplace.blobs(), sent, note).dataset_id


def state_of(workplace: Workplace, dataset_id: str) -> tuple[str, int]:
    with reading(workplace.engine) as session:
        dataset = session.get_one(Dataset, dataset_id)
        return dataset.state, dataset.version


@pytest.mark.slow
@pytest.mark.parametrize("point", points.PARSE)
def test_a_kill_costs_an_upload_nothing_but_time(
    workplace: Workplace, failpoints: Path, point: str
) -> None:
    workplace.staff(2)
    (failpoints / point).write_text("kill 1")
    try:
        dataset_id = take_in(workplace, f"x,{point}\n1,2\n3,4\n".encode())
        until(lambda: state_of(workplace, dataset_id) == ("ready", 1))
        # The version is visible before the worker reaches the last of these places.
        until((failpoints / f"{point}.times").exists)
    finally:
        clear_orders(failpoints)
