"""Submits runs while the API is killed repeatedly: one run for each key.

    python -m tests.chaos.submits --submits 2000 --seed 1 --database sqlite

Eight clients submit each run under its own Idempotency-Key, and repeat requests that got no 202; a
killer ends the API with SIGKILL at random moments and starts it again at the same address.
"""

import argparse
import random
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import httpx
from sqlalchemy import func, select

from service.http.strict_route import IdempotencyKey
from service.runs.tables import Run
from service.storage.database import create_database, migrate, reading, writing
from tests.postgres import own_server
from tests.service.rows import add_dataset
from tests.serving import Process, Start, start_service, url_of

CLIENTS = 8
RUNS = "/api/v1/runs"
RETRY_S = 0.05  # seconds before a client sends again
AFTER_S = 0.02  # seconds at most from the last answer of an API to its kill
LEASE_S = "1"  # seconds after which the key of a killed request is free
GIVE_UP_S = 300.0  # seconds after which a submit that never got its 202 is a failure


@dataclass
class Figures:
    """Counts of a test."""

    submits: int
    kills: int = 0
    sent: int = 0
    replayed: int = 0
    seconds: float = 0.0
    #: the answers other than 202, by status and code; and the errors of connections
    refusals: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        refusals = ", ".join(f"{count} x {what}" for what, count in sorted(self.refusals.items()))
        return (
            f"{self.submits} submits, {self.kills} kills of the API, {self.sent} requests,"
            f" {self.replayed} answered from the stored response, {self.seconds:.1f} s ({refusals})"
        )


class Api:
    """The API as a process, always at the same address; killed and started again."""

    def __init__(self, folder: Path, database_url: str, start: Start) -> None:
        self._folder, self._database_url, self._start = folder, database_url, start
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = str(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self._port}"
        self._process: Process | None = None

    def start(self) -> None:
        self._process = self._start(
            self._folder,
            "serve",
            "--no-worker",
            DESCENT_PORT=self._port,
            DESCENT_DATABASE_URL=self._database_url,
            DESCENT_LOG_LEVEL="error",
            DESCENT_IDEMPOTENCY_LEASE_S=LEASE_S,
        )
        url_of(self._process, self._folder)

    def kill(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()


class Clients:
    """Threads that submit until each key has its 202."""

    def __init__(self, url: str, dataset: str, figures: Figures) -> None:
        self._url, self._dataset, self._figures = url, dataset, figures
        self._keys: SimpleQueue[str] = SimpleQueue()
        for number in range(figures.submits):
            self._keys.put(f"submit-{number}")
        self._lock = threading.Condition()
        #: key → the body of the 202
        self.accepted: dict[str, str] = {}
        self.failures: list[str] = []
        self.threads = [threading.Thread(target=self._work, daemon=True) for _ in range(CLIENTS)]

    def wait_for(self, count: int) -> bool:
        """Wait until this number of submits have their 202; return whether more are to come."""
        with self._lock:
            self._lock.wait_for(lambda: len(self.accepted) + len(self.failures) >= count)
            return len(self.accepted) + len(self.failures) < self._figures.submits

    def _work(self) -> None:
        with httpx.Client(base_url=self._url, timeout=10) as client:
            while True:
                try:
                    key = self._keys.get_nowait()
                except Empty:
                    return
                self._submit(client, key)

    def _submit(self, client: httpx.Client, key: str) -> None:
        deadline = time.monotonic() + GIVE_UP_S
        pause = threading.Event()
        while time.monotonic() < deadline:
            answer, refusal = self.send(client, key)
            with self._lock:
                self._figures.sent += 1
                if answer is not None and answer.status_code == 202:
                    self._figures.replayed += "idempotency-replayed" in answer.headers
                    self.accepted[key] = answer.text
                    self._lock.notify_all()
                    return
                self._figures.refusals[refusal] += 1
            if answer is not None and answer.status_code not in {409, 503}:
                break
            pause.wait(RETRY_S)
        with self._lock:
            self.failures.append(f"{key}: {refusal}")
            self._lock.notify_all()

    def send(self, client: httpx.Client, key: str) -> tuple[httpx.Response | None, str]:
        """Send the submit of a key once; return the answer, or the error."""
        config = {"dataset": self._dataset, "target": "Final", "name": key}
        try:
            answer = client.post(RUNS, json=config, headers={"Idempotency-Key": key})
        except httpx.TransportError:
            return None, "no connection"
        code = "" if answer.status_code == 202 else answer.json()["code"]
        return answer, f"{answer.status_code} {code}"


def submit_under_kills(
    folder: Path,
    database_url: str,
    *,
    submits: int,
    seed: int,
    kills: int,
    start: Start = start_service,
) -> Figures:
    """Submit, kill, repeat; raise AssertionError if a run is lost or created twice."""
    engine = create_database(database_url)
    with writing(engine) as session:
        dataset = add_dataset(session)
    figures, api = Figures(submits), Api(folder, database_url, start)
    clients = Clients(api.url, dataset, figures)
    began = time.monotonic()
    try:
        api.start()
        for thread in clients.threads:
            thread.start()
        _kill_now_and_then(api, clients, figures, kills, random.Random(seed))  # noqa: S311
        for thread in clients.threads:
            thread.join()
        figures.seconds = time.monotonic() - began
        assert clients.failures == []
        _check(clients, api.url, engine)
    finally:
        api.kill()
        engine.dispose()
    return figures


def _kill_now_and_then(
    api: Api, clients: Clients, figures: Figures, kills: int, chance: random.Random
) -> None:
    """Kill the API after random numbers of runs, a moment after the last answer."""
    moments = sorted(chance.sample(range(figures.submits - CLIENTS), kills))
    pause = threading.Event()
    for moment in moments:
        if not clients.wait_for(moment):
            return
        pause.wait(chance.uniform(0, AFTER_S))
        api.kill()
        figures.kills += 1
        api.start()


def _check(clients: Clients, url: str, engine: Any) -> None:
    """Check that each key has one run, each run one key, and a repeated key its first answer."""
    with reading(engine) as session:
        names = session.execute(select(Run.name, Run.id)).all()
        in_flight = select(func.count()).where(IdempotencyKey.status.is_(None))
        assert session.scalar(in_flight) == 0
    runs = {name: run_id for name, run_id in names}  # noqa: C416  a Row is no pair to mypy
    assert len(names) == len(runs) == len(clients.accepted), "a run was lost or made twice"
    with httpx.Client(base_url=url, timeout=30) as client:
        for key, text in clients.accepted.items():
            assert client.get(f"{RUNS}/{runs[key]}").status_code == 200
            answer, refusal = clients.send(client, key)
            assert answer is not None, refusal
            assert (answer.status_code, answer.text) == (202, text)
            assert answer.json()["id"] == runs[key]


@contextmanager
def fresh_database(kind: str, folder: Path) -> Iterator[str]:
    """Give a fresh, migrated database; start and stop a PostgreSQL server for it."""
    if kind == "sqlite":
        yield _migrated(f"sqlite:///{folder / 'descent.sqlite3'}")
        return
    with own_server() as server:
        yield _migrated(server.url)


def _migrated(url: str) -> str:
    engine = create_database(url)
    migrate(engine)
    engine.dispose()
    return url


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--submits", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="descent-submits-") as name:
        folder = Path(name)
        with fresh_database(given.database, folder) as url:
            figures = submit_under_kills(
                folder, url, submits=given.submits, seed=given.seed, kills=given.kills
            )
    sys.stdout.write(f"{given.database}, seed {given.seed}: {figures}\n")


if __name__ == "__main__":
    main()
