"""Compares the time of `GET /runs` with 100 000 runs and with 100.

    .venv/bin/python benchmarks/list_runs.py [URL of an empty PostgreSQL database]

Without an argument it uses SQLite. The two services answer in turns, so that other work on the
machine slows both down alike.
"""

import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import httpx
from sqlalchemy import Engine, delete, insert

from service import logs
from service.app import create_app
from service.datasets.versions import Dataset, DatasetVersion
from service.http.server import Server, listen
from service.runs.tables import Run
from service.settings import Settings
from service.storage.columns import new_id, utc_now
from service.storage.database import create_database, migrate, writing

FEW, MANY = 100, 100_000
ROUNDS = 60
MOST = 1.5  # times the median with few runs
QUEUED = 20  # runs that wait; the others have ended
REQUESTS = {
    "newest": "/api/v1/runs",
    "second page": "/api/v1/runs?after={cursor}",
    "of two states": "/api/v1/runs?state=succeeded&state=failed",
    "of a rare state": "/api/v1/runs?state=queued",
    "of a dataset": "/api/v1/runs?dataset={dataset}",
    "of a model": "/api/v1/runs?model=boats",
}
OTHERS = {"system": "/api/v1/system", "metrics": "/metrics"}
CONFIG = {"target": "price", "features": [f"column {n}" for n in range(20)], "epochs": 200}


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else None
    logs.configure("warning")
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if url is None:
            few, many = (stack.enter_context(service(Path(folder), n)) for n in (FEW, MANY))
            found = measure(few, many)
        else:
            found = {}
            for number in (FEW, MANY):  # one database, so one after the other
                with service(Path(folder), number, url) as client:
                    found |= {(name, number): s for name, s in alone(client).items()}
    report("PostgreSQL" if url else f"SQLite {sqlite3.sqlite_version}", found)


@contextmanager
def service(folder: Path, number: int, url: str | None = None) -> Iterator[httpx.Client]:
    """Give a client of the API over a database with this number of runs."""
    settings = Settings(data_dir=folder / str(number), database_url=url or "")
    engine = create_database(settings.resolved_database_url)
    migrate(engine)
    fill(engine, number)
    listener, is_up = listen("127.0.0.1", 0), threading.Event()
    server = Server(create_app(settings, engine), on_up=is_up.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    is_up.wait()
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            yield client
    finally:
        server.stop()
        thread.join()
        listener.close()


def fill(engine: Engine, number: int) -> None:
    """Add runs, one a second, all but the newest few of which have ended."""
    began = utc_now() - timedelta(seconds=number)
    dataset = new_id("ds")
    with writing(engine) as session:
        for table in (Run, DatasetVersion, Dataset):
            session.execute(delete(table))
        session.add(
            Dataset(id=dataset, name="boats", state="ready", media_type="text/csv", version=1)
        )
        session.flush()
        session.add(
            DatasetVersion(
                dataset_id=dataset, version=1, options={}, rows=1, columns=[], warnings=[]
            )
        )
        session.flush()
        rows = [row(dataset, n, number, began + timedelta(seconds=n)) for n in range(number)]
        session.execute(insert(Run), rows)


def row(dataset: str, n: int, number: int, at: datetime) -> dict[str, object]:
    ended = "failed" if n % 10 == 0 else "succeeded"
    return {
        "id": new_id("run"),
        "state": "queued" if n >= number - QUEUED else ended,
        "tags": {"team": "a"},
        "config": CONFIG | {"dataset": dataset},
        "dataset_id": dataset,
        "dataset_version": 1,
        "warnings": [],
        "model_name": "boats" if n % 2 else None,
        "model_version": 1 if n % 2 else None,
        "created_at": at,
        "queued_at": at,
    }


def urls(client: httpx.Client) -> dict[str, str]:
    first = client.get("/api/v1/runs").json()
    names = {"cursor": first["next_cursor"], "dataset": first["data"][0]["dataset"]["id"]}
    return {name: url.format(**names) for name, url in (REQUESTS | OTHERS).items()}


def measure(few: httpx.Client, many: httpx.Client) -> dict[tuple[str, int], float]:
    """Return the median of each request, in seconds."""
    times: dict[tuple[str, int], list[float]] = {}
    both = {FEW: (few, urls(few)), MANY: (many, urls(many))}
    for _ in range(ROUNDS):
        for number, (client, paths) in both.items():
            for name, path in paths.items():
                times.setdefault((name, number), []).append(seconds(client, path))
    return {key: statistics.median(values) for key, values in times.items()}


def alone(client: httpx.Client) -> dict[str, float]:
    return {
        name: statistics.median(seconds(client, path) for _ in range(ROUNDS))
        for name, path in urls(client).items()
    }


def seconds(client: httpx.Client, path: str) -> float:
    began = time.perf_counter()
    client.get(path).raise_for_status()
    return time.perf_counter() - began


def report(database: str, found: dict[tuple[str, int], float]) -> None:
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, {database}\n")
    print(f"| median of {ROUNDS} | {FEW} runs | {MANY} runs | ratio |\n|---|---|---|---|")
    ratios = {}
    for name in REQUESTS | OTHERS:
        few, many = found[name, FEW], found[name, MANY]
        ratios[name] = many / few
        print(f"| {name} | {few * 1e3:.1f} ms | {many * 1e3:.1f} ms | {ratios[name]:.2f} |")
    worst = max(ratios[name] for name in REQUESTS)
    print(f"\ntarget: at most {MOST} times: {'met' if worst <= MOST else 'missed'} ({worst:.2f})")


if __name__ == "__main__":
    main()
