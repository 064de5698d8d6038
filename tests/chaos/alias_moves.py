"""Moves an alias under load, with two API processes on one database: each answer is consistent.

    python -m tests.chaos.alias_moves --moves 1000 --clients 64 --database sqlite

Each move goes to a new version with a unique answer, so an answer identifies its version. One
process gets the moves; half of the clients send their requests to the other one.
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from sqlalchemy import Engine

from service.storage.blobs import LocalBlobs
from service.storage.database import create_database
from tests.chaos.submits import fresh_database
from tests.service import trained
from tests.serving import RunService, running_service

MODEL = "scores"
ALIAS = f"/api/v1/models/{MODEL}/aliases/champion"
BODY = json.dumps({"rows": [{"Quiz": 10.0}]})
JSON = {"Content-Type": "application/json"}
LATEST_S = 1.0  # seconds after a move, at most, in which the old version still answers
PAUSE_S = 0.05  # seconds between two moves, at most


class Seen(NamedTuple):
    """One answer: the times of the request and of the answer, and the version."""

    began: float
    ended: float
    version: int


class Move(NamedTuple):
    """One move: the times of the request and of the answer."""

    began: float
    ended: float


@dataclass
class Figures:
    """The recorded moves and answers."""

    moves: list[Move]
    #: the answers of each process, that of the moves first
    seen: list[list[Seen]]
    failures: list[str] = field(default_factory=list)

    def late(self, process: int) -> float:
        """Return the longest time after a move at which a process still gave the old version."""
        return max(
            (seen.began - self.moves[seen.version].ended)
            for seen in self.seen[process]
            if seen.version < len(self.moves)
        )

    def early(self) -> list[Seen]:
        """Return the answers of versions to which the alias had not moved yet."""
        return [
            seen
            for answers in self.seen
            for seen in answers
            if seen.ended < self.moves[seen.version - 1].began
        ]

    def __str__(self) -> str:
        times = [(seen.ended - seen.began) * 1000 for each in self.seen for seen in each]
        moves = [(move.ended - move.began) * 1000 for move in self.moves]
        seconds = self.moves[-1].ended - self.moves[0].began
        return (
            f"{len(self.moves)} moves in {seconds:.1f} s, {len(times)} answers,"
            f" {len(self.failures)} failed; the old version answered last"
            f" {self.late(0):+.3f} s after its move in the process that moved"
            f" and {self.late(1):+.3f} s in the other one;"
            f" answer: median {statistics.median(times):.1f} ms,"
            f" 99 % {statistics.quantiles(times, n=100)[98]:.1f} ms,"
            f" longest {max(times):.0f} ms; move: median {statistics.median(moves):.1f} ms"
        )


def move_under_load(
    folder: Path,
    database_url: str,
    *,
    moves: int,
    clients: int,
    seed: int = 1,
    run_service: RunService = running_service,
) -> Figures:
    """Move an alias under load; raise AssertionError if a promise is broken."""
    engine = create_database(database_url)
    try:
        _publish(engine, folder, moves)
    finally:
        engine.dispose()
    with ExitStack() as stack:
        variables = {
            "DESCENT_DATABASE_URL": database_url,
            "DESCENT_BLOB_URL": f"file://{folder.absolute() / 'blobs'}",
            "DESCENT_LOG_LEVEL": "error",
        }
        urls = []
        for name in ("first", "second"):  # no two services may have the same data folder
            own = folder / name
            own.mkdir()
            urls.append(stack.enter_context(run_service(own, "--no-worker", **variables)))
        figures = Figures([], [[], []])
        _load_and_move(urls, figures, moves, clients, random.Random(seed))  # noqa: S311
    assert figures.failures == [], str(figures)
    assert figures.early() == [], str(figures)
    # In the process of the move, a request after the answer to the move gets the new version.
    assert figures.late(0) <= 0, str(figures)
    assert figures.late(1) <= LATEST_S, str(figures)
    return figures


def value_of(version: int) -> float:
    """Return the answer of a version: `Final = (1 + version / 1000) · Quiz`."""
    return 10 + version / 100


def _publish(engine: Engine, folder: Path, versions: int) -> None:
    blobs = LocalBlobs(folder / "blobs")
    for version in range(1, versions + 1):
        saved = trained.scores()
        saved["tensors"]["net.0.weight"][:] = 1 + version / 1000
        saved["tensors"]["net.0.bias"][:] = 0
        trained.publish(engine, trained.store(engine, blobs, folder, saved), MODEL)


def _load_and_move(
    urls: list[str], figures: Figures, moves: int, clients: int, chance: random.Random
) -> None:
    is_over = threading.Event()
    with httpx.Client(base_url=urls[0], timeout=30) as mover:
        etag = _move(mover, figures, {})  # so that no request comes before the alias exists
        threads = [
            threading.Thread(target=_ask, args=(urls[n % 2], n % 2, figures, is_over))
            for n in range(clients)
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in range(moves - 1):
                is_over.wait(chance.uniform(0, PAUSE_S))
                etag = _move(mover, figures, {"If-Match": etag})
            is_over.wait(2 * LATEST_S)
        finally:
            is_over.set()
            for thread in threads:
                thread.join()


def _move(mover: httpx.Client, figures: Figures, headers: dict[str, str]) -> str:
    began = time.monotonic()
    answer = mover.put(ALIAS, json={"version": len(figures.moves) + 1}, headers=headers)
    figures.moves.append(Move(began, time.monotonic()))
    assert answer.status_code in {200, 201}, answer.text
    etag: str = answer.headers["etag"]
    return etag


def _ask(url: str, process: int, figures: Figures, is_over: threading.Event) -> None:
    connection = HTTPConnection(url.removeprefix("http://"), timeout=30)
    while not is_over.is_set():
        began = time.monotonic()
        try:
            connection.request("POST", f"{ALIAS}/predict", BODY, JSON)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, HTTPException) as error:
            figures.failures.append(repr(error))
            continue
        ended = time.monotonic()
        body: dict[str, Any] = json.loads(content)
        if answer.status != 200:
            figures.failures.append(f"{answer.status} {body.get('code')}")
            continue
        version, value = body["version"], body["predictions"][0]["value"]
        if abs(value - value_of(version)) > 1e-3:
            figures.failures.append(f"version {version} answered {value}")
        figures.seen[process].append(Seen(began, ended, version))
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--moves", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=["sqlite", "postgresql"], default="sqlite")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="descent-aliases-") as name:
        folder = Path(name)
        with fresh_database(given.database, folder) as url:
            figures = move_under_load(
                folder, url, moves=given.moves, clients=given.clients, seed=given.seed
            )
    sys.stdout.write(f"{given.database}, {given.clients} clients: {figures}\n")


if __name__ == "__main__":
    main()
