"""A data folder with a database, a dataset and real worker processes, without HTTP."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import Engine, select

from descent.spec import RunConfig
from service.datasets.versions import Dataset, DatasetVersion
from service.jobs.kind import Worker
from service.runs import lifecycle, metrics
from service.runs.plan import make_plan
from service.runs.tables import Run
from service.settings import Settings
from service.storage.blobs import BlobStore
from service.storage.columns import new_id
from service.storage.database import create_database, reading, writing
from service.storage.s3 import open_store
from tests.conftest import MakeDatabase
from tests.warm import Forked, Parent

TICK = 0.02  # seconds between two checks of a condition
#: short leases, so that a lost worker is noticed while a test waits
SHORT = {"LEASE_S": "3", "RENEW_S": "0.5", "SWEEP_S": "0.2", "POLL_S": "0.1"}


def until(condition: Callable[[], bool], timeout_s: float = 120.0) -> None:
    """Wait until another process has met a condition; fail after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    tick = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        tick.wait(TICK)


def clear_orders(folder: Path) -> None:
    """Remove all orders for failpoints, once the processes that they killed have ended.

    A worker may commit the end of a job and be killed right after: `staff` must not count it.
    """
    for path in folder.glob("*.kill.*"):
        until(partial(_has_ended, path.name.rpartition(".")[2]))
    for path in folder.iterdir():
        path.unlink()


def _has_ended(pid: str) -> bool:
    """Return whether all threads of a process have ended; its first one may end before others."""
    process = Path("/proc") / pid
    try:
        threads = len(list((process / "task").iterdir()))
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return threads <= 1 and state in "ZX"


@dataclass
class Workplace:
    """The database and the data folder that workers share, and the workers."""

    engine: Engine
    folder: Path
    #: the process from which the workers of `staff` and their trainers fork
    warm: Parent
    #: the value of DESCENT_BLOB_URL; empty means the data folder
    blob_url: str = ""
    workers: list["subprocess.Popen[bytes] | Forked"] = field(default_factory=list)
    #: settings of the workers, beside the short leases
    settings: dict[str, str] = field(default_factory=dict)

    def blobs(self) -> BlobStore:
        return open_store(Settings(data_dir=self.folder, blob_url=self.blob_url))

    def add_dataset(self, rows: int = 64) -> str:
        """Store a table `y = 2x + 1` with some noise; return the dataset's id."""
        x = np.linspace(-1, 1, rows)
        y = 2 * x + 1 + np.sin(37 * x) / 10
        path = self.folder / "table.parquet"
        pq.write_table(pa.table({"x": x, "y": y}), path)
        digest, size = self.blobs().put(path)
        columns = [
            {"name": name, "type": "number", "role": "feature", "missing": 0, "distinct": rows}
            for name in ("x", "y")
        ]
        dataset = Dataset(
            id=new_id("ds"),
            name="line",
            state="ready",
            media_type="text/csv",
            sha256=digest,
            bytes=size,
            version=1,
        )
        version = DatasetVersion(
            dataset_id=dataset.id,
            version=1,
            options={},
            rows=rows,
            columns=columns,
            warnings=[],
            table_sha256=digest,
        )
        with writing(self.engine) as session:
            session.add(dataset)
            session.flush()
            session.add(version)
        return dataset.id

    def submit(self, dataset_id: str, **config: Any) -> str:
        """Submit a run of the linear model by full-batch gradient descent."""
        (run_id,) = self.submit_group(dataset_id, [config], group=None)
        return run_id

    def submit_group(
        self, dataset_id: str, configs: Sequence[Mapping[str, Any]], group: str | None = "group"
    ) -> list[str]:
        """Submit runs that may train in one process, each as `submit` does; return their ids."""
        ids = []
        with writing(self.engine) as session:
            version = session.get_one(DatasetVersion, (dataset_id, 1))
            for config in configs:
                asked: dict[str, Any] = {
                    "dataset": dataset_id,
                    "target": "y",
                    "model": {"type": "linear"},
                    "optimizer": {"type": "sgd", "learning_rate": 0.01},
                    "batch_size": "full",
                    "early_stopping": None,
                }
                parsed = RunConfig.model_validate({**asked, **config})
                plan = make_plan(parsed, version.columns, version.rows)
                document = plan.config.model_dump(mode="json")
                submission = lifecycle.Submission(
                    document, dataset_id, 1, plan.warnings, group=group
                )
                ids.append(lifecycle.submit(session, submission).id)
        return ids

    def start_worker(self) -> subprocess.Popen[bytes]:
        """Start a worker separately, as a user does, with its own parent for its trainers."""
        with self._log.open("ab") as words:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "service", "worker"],
                env=self._environment(),
                stdout=subprocess.DEVNULL,
                stderr=words,
            )

    def staff(self, count: int) -> None:
        """Keep this number of workers ready; replace those that have ended."""

        def is_ready() -> bool:
            alive = [worker for worker in self.workers if worker.poll() is None]
            self.workers = alive
            while len(self.workers) < count:
                self.workers.append(
                    self.warm.fork("worker", environment=self._environment(), log=self._log)
                )
            pids = [worker.pid for worker in self.workers]
            warm = select(Worker.pid).where(Worker.is_warm, Worker.pid.in_(pids))
            with reading(self.engine) as session:
                return len(session.scalars(warm).all()) == count

        until(is_ready)

    def dismiss(self) -> None:
        """Stop all workers."""
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            worker.wait(20)
        self.workers = []

    def run(self, run_id: str) -> Run:
        with reading(self.engine) as session:
            return lifecycle.get(session, run_id)

    def wait_for(self, run_id: str, *states: str, timeout_s: float = 120.0) -> Run:
        until(lambda: self.run(run_id).state in states, timeout_s)
        return self.run(run_id)

    def curve(self, run_id: str) -> list[dict[str, Any]]:
        with reading(self.engine) as session:
            run = lifecycle.get(session, run_id)
            query = metrics.Query(limit=10_000_000)
            return metrics.page(session, run, query, is_terminal=True).rows

    @property
    def _log(self) -> Path:
        return self.folder / "workers.log"

    def _environment(self) -> dict[str, str]:
        settings = {
            "DATABASE_URL": self.engine.url.render_as_string(hide_password=False),
            "DATA_DIR": str(self.folder),
            "BLOB_URL": self.blob_url,
        }
        settings |= SHORT | self.settings
        return os.environ | {f"DESCENT_{name}": value for name, value in settings.items()}


@contextmanager
def workplace_in(
    make_database: MakeDatabase,
    kind: str,
    folder: Path,
    warm: Parent,
    *,
    blob_url: str = "",
    **settings: str,
) -> Iterator[Workplace]:
    """Give a workplace without workers on a fresh database of this kind; stop its workers later."""
    with make_database(kind, folder) as url:
        engine = create_database(url)
        place = Workplace(engine, folder, warm, blob_url, settings=settings)
        try:
            yield place
        finally:
            place.dismiss()
            engine.dispose()
