"""Limits of the server against raw-socket clients, while the server answers other clients."""

import contextlib
import json
import resource
import select
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.http.server import IDLE_S, max_connections
from service.settings import Settings
from service.storage.blobs import LocalBlobs
from service.storage.database import create_database
from tests.service import trained
from tests.serving import RunService, connected, start_service, stop, url_of
from tests.warm import until

MIB = 1024 * 1024
ENDLESS = 40 * MIB  # bytes that a client tries to send
TIMEOUT_S = 1.0  # of heads and of bodies in these tests
ENDS_S = TIMEOUT_S + 4.0  # seconds within which a slow connection is closed
PROMPT_S = 1.0  # seconds within which other clients get their answers meanwhile
FILES = 256  # the limit of open files of a process in these tests
PREDICT = "/api/v1/models/scores/predict"
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /api/v1/keys HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def folder(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data folder of the service that most tests share."""
    return with_a_model(tmp_path_factory.mktemp("limits"), sqlite_template)


@pytest.fixture
def own_folder(sqlite_template: Path, tmp_path: Path) -> Path:
    """Return a data folder for a service of one test: two services may not share one."""
    return with_a_model(tmp_path, sqlite_template)


def with_a_model(folder: Path, sqlite_template: Path) -> Path:
    """Return the folder, with a database and a published model."""
    shutil.copyfile(sqlite_template, folder / "descent.sqlite3")
    engine = create_database(f"sqlite:///{folder / 'descent.sqlite3'}")
    stored = trained.store(engine, LocalBlobs(folder / "blobs"), folder, trained.scores())
    trained.publish(engine, stored, "scores")
    engine.dispose()
    return folder


@pytest.fixture(scope="module")
def url(run_service: RunService, folder: Path) -> Iterator[httpx.URL]:
    """Run the API as a process with short time limits; return its URL."""
    limits = {"DESCENT_HEAD_TIMEOUT_S": str(TIMEOUT_S), "DESCENT_BODY_TIMEOUT_S": str(TIMEOUT_S)}
    with run_service(folder, "--no-worker", **limits) as url:
        yield httpx.URL(url)


def answer(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """Return the status and the body of the last answer before a connection ends."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    head, _, body = received.rpartition(b"HTTP/1.1 ")[2].partition(b"\r\n\r\n")
    return int(head.split()[0]), json.loads(body)


def send_endlessly(url: httpx.URL, start: bytes) -> tuple[int, dict[str, str], int]:
    """Send much after a start; return how the connection ends, and the bytes that were sent."""
    sent = 0
    with connected(url) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(start)
            while sent < ENDLESS:
                sent += connection.send(b"x" * 65536)
        return *answer(connection), sent


def prompt(url: httpx.URL, attack: Callable[[], object]) -> float:
    """Predict and check the health during an attack; return the longest time to an answer."""
    longest = 0.0
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=url) as client:
        client.post(PREDICT, json={"rows": [{"Quiz": 10}]})  # the first one loads the model
        asks: list[Callable[[], httpx.Response]] = [
            lambda: client.post(PREDICT, json={"rows": [{"Quiz": 10}]}),
            lambda: client.get("/healthz"),
            lambda: httpx.get(url.join("/healthz")),
        ]
        attacking = pool.submit(attack)
        while True:
            is_last = attacking.done()
            for ask in asks:
                began = time.monotonic()
                assert ask().status_code == 200
                longest = max(longest, time.monotonic() - began)
            if is_last:
                attacking.result()
                return longest


@pytest.mark.parametrize(
    "start",
    [
        b"GET /healthz HTTP/1.1\r\nX: ",  # one header without an end
        b"GET /",
        b"GET /healthz HTTP/1.1\r\nX",
        CHUNKED + b"2\r\n{}\r\n0\r\nX: ",  # a trailer without an end
        CHUNKED + b"2;",  # an extension of a chunk
    ],
)
def test_a_head_and_trailers_without_an_end_are_refused_and_predictions_go_on(
    url: httpx.URL, start: bytes
) -> None:
    found: list[tuple[int, dict[str, str], int]] = []

    def attack() -> None:
        with ThreadPoolExecutor(4) as pool:
            found.extend(pool.map(lambda _: send_endlessly(url, start), range(20)))

    assert prompt(url, attack) < PROMPT_S
    assert {(status, problem["code"]) for status, problem, _ in found} == {(431, "head_too_large")}
    assert max(sent for *_, sent in found) < 16 * MIB  # most of it waits in the kernel


def test_many_headers_without_an_end_are_refused(url: httpx.URL) -> None:
    with connected(url) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET /healthz HTTP/1.1\r\n")
            for _ in range(ENDLESS // 65536):
                connection.sendall(b"X: yyyyyyyyyyyy\r\n" * 4096)
        assert answer(connection)[0] == 431


def test_many_trailers_are_refused_and_none_becomes_a_header(url: httpx.URL) -> None:
    start = b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    with connected(url) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(start + b"0\r\n")
            for _ in range(ENDLESS // 65536):
                connection.sendall(b"Host: elsewhere\r\n" * 4096)
        received = connection.recv(65536)
    assert received.split()[1] in {b"405", b"431"}


def test_line_breaks_without_an_end_are_refused(url: httpx.URL) -> None:
    with connected(url) as connection:
        with contextlib.suppress(ConnectionError):
            for _ in range(ENDLESS // 65536):
                connection.sendall(b"\r\n" * 32768)
        assert answer(connection)[0] == 431


@pytest.mark.parametrize(("length", "status"), [(60_000, 200), (70_000, 431), (300_000, 431)])
def test_a_head_up_to_the_limit_is_read_and_a_longer_one_is_not(
    url: httpx.URL, length: int, status: int
) -> None:
    with connected(url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: ")
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"x" * length + b"\r\n\r\n")
        assert answer(connection)[0] == status


#: the bytes that a client sends before it stops → the missing part of the request
STOPS = {
    b"": "head",
    b"\r\n": "head",
    b"GET /healthz HT": "head",
    b"GET /healthz HTTP/1.1\r\nHost: local": "head",
    HEALTH + b"GET /hea": "head",
    CHUNKED + b"2\r\n{}\r\n0\r\nX: ": "trailers",
    CHUNKED + b"2\r\n{}\r\n0\r\n": "trailers",
    CHUNKED: "body",
    CHUNKED + b"2\r\n{": "body",
    POST + b"Content-Length: 20\r\n\r\n{": "body",
    HEALTH + POST + b"Content-Length: 20\r\n\r\n": "body",
    CHUNKED + b"2\r\n{}\r\n0\r\n\r\n" + POST + b"Content-Length: 20\r\n\r\n": "body",
}


def test_a_client_that_stops_within_a_request_is_answered_and_closed(url: httpx.URL) -> None:
    with contextlib.ExitStack() as stack:
        began = time.monotonic()
        connections = {sent: stack.enter_context(connected(url)) for sent in STOPS}
        for sent, connection in connections.items():
            connection.sendall(sent)
        found = {sent: answer(connection) for sent, connection in connections.items()}
        assert time.monotonic() - began < ENDS_S
    for sent, (status, problem) in found.items():
        assert (status, problem["code"]) == (408, "request_timeout"), sent
        assert STOPS[sent] in problem["detail"], sent


def test_line_breaks_after_an_answer_do_not_keep_a_connection_open(url: httpx.URL) -> None:
    with connected(url) as connection:
        connection.sendall(HEALTH)
        assert connection.recv(65536).endswith(b"}")
        connection.sendall(b"\r\n")
        assert answer(connection)[0] == 408


def test_each_wait_has_its_own_time_limit(url: httpx.URL) -> None:
    with connected(url) as connection:
        for _ in range(2):
            connection.sendall(HEALTH)
            assert connection.recv(65536).endswith(b"}")
            connection.sendall(b"\r\n")
            assert is_silent(connection, TIMEOUT_S * 0.95)
        assert answer(connection)[0] == 408


def is_silent(connection: socket.socket, seconds: float) -> bool:
    return not select.select([connection], [], [], seconds)[0]


def test_a_head_that_comes_byte_by_byte_has_the_same_limit(url: httpx.URL) -> None:
    with connected(url) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nX: ")
        began = time.monotonic()
        while is_silent(connection, 0.1):
            connection.sendall(b"x")
            assert time.monotonic() - began < ENDS_S
        assert answer(connection)[0] == 408


def test_a_body_that_goes_on_is_not_cut_off(url: httpx.URL) -> None:
    pieces = [b"{", b'"', b"un", b"kn", b"own", b'"', b":", b" 1}"]
    with connected(url) as connection:
        length = sum(map(len, pieces))
        connection.sendall(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % length)
        for piece in pieces:
            assert is_silent(connection, TIMEOUT_S / 2)
            connection.sendall(piece)
        assert answer(connection)[0] == 422


def test_silent_connections_keep_nobody_waiting(url: httpx.URL) -> None:
    def attack() -> None:
        with contextlib.ExitStack() as stack:
            some = [stack.enter_context(connected(url)) for _ in range(200)]
            for connection in some[::2]:
                connection.sendall(b"GET /heal")
            assert {answer(connection)[0] for connection in some} == {408}

    assert prompt(url, attack) < PROMPT_S


def test_the_log_warns_of_refused_connections_at_most_once_a_second(
    url: httpx.URL, folder: Path
) -> None:
    def warnings() -> list[dict[str, object]]:
        lines = (folder / "service.log").read_text().splitlines()
        found = [json.loads(line) for line in lines if "connections refused" in line]
        return [line for line in found if line["code"] == "malformed_request"]

    began = time.monotonic()
    for _ in range(50):
        with connected(url) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            assert answer(connection)[0] == 400
    assert until(lambda: sum(int(str(line["connections"])) for line in warnings()) == 50, ENDS_S)
    assert len(warnings()) <= time.monotonic() - began + 2


# ---- the number of connections ------------------------------------------------------------------


@contextlib.contextmanager
def few_files() -> Iterator[None]:
    """Limit the open files of the processes that start now."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_by_default_half_of_the_open_files_may_be_connections() -> None:
    with few_files():
        assert max_connections(Settings()) == FILES // 2
        assert max_connections(Settings(max_connections=7)) == 7


def test_where_the_connections_are_used_up_a_new_one_gets_503_and_the_others_go_on(
    own_folder: Path,
) -> None:
    with few_files():
        process = start_service(own_folder, "serve", "--no-worker", DESCENT_HEAD_TIMEOUT_S="3")
    try:
        url = httpx.URL(url_of(process, own_folder))
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(httpx.Client(base_url=url))
            assert client.post(PREDICT, json={"rows": [{"Quiz": 10}]}).status_code == 200
            silent = [stack.enter_context(connected(url)) for _ in range(2 * FILES)]
            status, problem = answer(silent[-1])
            assert (status, problem["code"]) == (503, "too_many_connections")
            assert client.post(PREDICT, json={"rows": [{"Quiz": 10}]}).status_code == 200
            csv = {"Content-Type": "text/csv"}
            made = client.post("/api/v1/datasets?wait=0", content=b"a,b\n1,2\n", headers=csv)
            assert made.status_code in {201, 202}, made.text
            statuses = [answer(connection)[0] for connection in silent[:-1]]
        assert set(statuses) == {408, 503}
        assert statuses.count(408) == FILES // 2 - 1
        assert until(lambda: is_healthy(url), ENDS_S)
    finally:
        assert stop(process) == 0


def test_where_the_files_are_used_up_the_process_rests_and_serves_again(own_folder: Path) -> None:
    with few_files():
        process = start_service(
            own_folder,
            "serve",
            "--no-worker",
            DESCENT_MAX_CONNECTIONS=str(10 * FILES),
            DESCENT_HEAD_TIMEOUT_S="3",
        )
    try:
        url = httpx.URL(url_of(process, own_folder))
        with contextlib.ExitStack() as stack:
            for _ in range(2 * FILES):
                stack.enter_context(connected(url))
            began, worked = time.monotonic(), cpu_seconds(process.pid)
            assert until(lambda: time.monotonic() - began > 2, ENDS_S)
            assert cpu_seconds(process.pid) - worked < 1
        assert until(lambda: is_healthy(url), ENDS_S)
    finally:
        assert stop(process) == 0


def is_healthy(url: httpx.URL) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url.join("/healthz")).status_code == 200
    return False


def cpu_seconds(pid: int) -> float:
    fields = (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_an_idle_connection_lives_longer_than_a_silent_one() -> None:
    assert Settings().head_timeout_s < IDLE_S
