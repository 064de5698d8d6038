"""A database, a store, an API and a worker that play histories one after another."""

import json
import os
import secrets
import signal
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import make_url

from models.engine import EngineName
from models.failpoints import FOLDER
from service.settings import Settings
from service.storage.database import create_database, migrate
from tests.chaos import checks
from tests.serving import TLS
from tests.warm import Warm, ask, end, fork, free_port, has_ended, start_api, start_worker, until

LEASE_S = 1.5
PATIENCE_S = 90.0  # seconds after which a history counts as stuck, on a busy machine too
DATA = Path(__file__).resolve().parent.parent.parent / "descent" / "data"
TERMINAL = ("succeeded", "failed", "cancelled")
#: three configurations that together have every kind of state in a checkpoint
RUNS: tuple[dict[str, Any], ...] = (
    {
        "model": {"type": "mlp", "hidden": [16], "dropout": 0.2},
        "optimizer": {"type": "adam"},
        "early_stopping": {"patience": 100_000},
    },
    {
        "model": {"type": "mlp", "hidden": [8, 8], "activation": "tanh"},
        "optimizer": {"type": "sgd", "momentum": 0.9, "nesterov": True},
        "schedule": {"type": "plateau", "patience": 20},
        "early_stopping": None,
    },
    {
        "model": {"type": "linear"},
        "optimizer": {"type": "rmsprop", "momentum": 0.5},
        "schedule": {"type": "cosine", "warmup_epochs": 10},
        "early_stopping": None,
    },
)


@dataclass
class Figures:
    """Counts and violations of the histories."""

    runs: int = 0
    kills: int = 0
    services: int = 0
    zombies: int = 0
    full: int = 0
    looks: int = 0
    attempts: int = 0
    reached: set[str] = field(default_factory=set)
    #: the engines of the disturbed runs, as the runs name them
    engines: set[str] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)


class Stage:
    """One kind of database and one kind of store, with an API and a worker on it."""

    def __init__(self, warm: Warm, folder: Path, database_url: str, blob_url: str) -> None:
        assert FOLDER, "the failpoints must be switched on before anything is imported"
        self.warm, self.folder, self.points = warm, folder, Path(FOLDER)
        self.log = folder / "log"
        self.settings = Settings(
            data_dir=folder / "data",
            database_url=database_url,
            blob_url=blob_url,
            port=free_port(),
            lease_s=LEASE_S,
            idempotency_lease_s=LEASE_S,
            renew_s=LEASE_S / 5,
            sweep_s=0.1,
            poll_s=0.02,
            checkpoint_s=0.08,
            log_level="warning",
        )
        self.url = f"http://127.0.0.1:{self.settings.port}"
        self.figures = Figures()
        self.worker = self.api = 0
        #: engine and number of a run → its results without a disturbance
        self._expected: dict[tuple[str, int], dict[str, Any]] = {}
        self.dataset = ""

    # ---- the processes ------------------------------------------------------------------------

    def open(self) -> None:
        engine = create_database(self.settings.resolved_database_url)
        migrate(engine)
        engine.dispose()
        self.start_api()
        self.start_worker()
        self.dataset = self.upload(secrets.token_hex(8))

    def close(self) -> None:
        for pid in (self.worker, self.api):
            end(pid, signal.SIGTERM)

    def start_api(self) -> None:
        self.api = start_api(self.warm, self.settings, self.log)

    def start_worker(self) -> None:
        self.worker = start_worker(self.warm, self.settings, self.log)

    def train_with(self, engine: EngineName) -> None:
        """Let a worker train from now on that uses this engine."""
        if self.settings.engine != engine:
            end(self.worker, signal.SIGTERM)
            self.settings = self.settings.model_copy(update={"engine": engine})
            self.start_worker()

    def revive(self) -> bool:
        """Restart dead processes; return whether there were any."""
        dead = [has_ended(self.worker), has_ended(self.api)]
        if dead[0]:
            self.start_worker()
        if dead[1]:
            self.start_api()
        return any(dead)

    def is_writable(self) -> bool:
        """Whether a process could commit to the database now; PostgreSQL has a lock for each row.

        Without a write-ahead log SQLite allows no commit while another process reads.
        """
        path = make_url(self.settings.resolved_database_url).database
        if not self.settings.is_embedded or path is None:
            return True
        with closing(sqlite3.connect(path, timeout=0.1, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN EXCLUSIVE")
            except sqlite3.OperationalError:
                return False
            connection.execute("ROLLBACK")
            return True

    # ---- the failpoints -----------------------------------------------------------------------

    def arm(self, point: str, order: str) -> None:
        (self.points / f"{point}.times").unlink(missing_ok=True)
        (self.points / f"{point}.order").write_text(order)
        (self.points / f"{point}.order").rename(self.points / point)

    def has_fired(self, point: str, times: int) -> bool:
        path = self.points / f"{point}.times"
        return path.exists() and path.stat().st_size >= times

    def disarm(self) -> None:
        for path in self.points.iterdir():
            path.unlink()

    # ---- the client ---------------------------------------------------------------------------

    def upload(self, key: str) -> str:
        """Upload the scores until they are ready, as a client that obeys `Retry-After` does."""
        content = (DATA / "scores.csv").read_bytes()
        headers = {"content-type": "text/csv", "idempotency-key": key}
        answer = self._insist("POST", "/datasets?name=scores", content=content, headers=headers)
        path = f"/datasets/{answer['id']}?wait=1"

        def is_ready() -> bool:
            self.note_deaths()
            return bool(self._insist("GET", path)["state"] == "ready")

        until(is_ready, PATIENCE_S)
        return str(answer["id"])

    def submit(self, number: int, epochs: int = 600) -> str:
        """Submit one of RUNS until it is accepted; return its id."""
        config = RUNS[number] | {
            "dataset": self.dataset,
            "target": "Final",
            "epochs": epochs,
            "batch_size": 4,
            "register_as": "chaos",
        }
        headers = {"idempotency-key": secrets.token_hex(8)}
        self.figures.runs += 1
        return str(self._insist("POST", "/runs", json=config, headers=headers)["id"])

    def state(self, run_id: str) -> str | None:
        """Return the state of a run, or None if the database is not available."""
        try:
            answer = httpx.get(f"{self.url}/api/v1/runs/{run_id}", timeout=1, verify=TLS)
        except httpx.TransportError:
            return None
        return str(answer.json()["state"]) if answer.status_code == 200 else None

    def rows(self, dataset: str) -> int:
        return int(self._insist("GET", f"/datasets/{dataset}")["rows"])

    def has_ended(self, run_id: str) -> bool:
        return self.state(run_id) in TERMINAL

    def _insist(self, method: str, path: str, **request: Any) -> Any:
        """Send a request until there is an answer; restart processes that die meanwhile."""
        deadline = time.monotonic() + PATIENCE_S
        with httpx.Client(timeout=10, verify=TLS) as client:
            while time.monotonic() < deadline:
                try:
                    answer = client.request(method, f"{self.url}/api/v1{path}", **request)
                    if answer.status_code < 300:
                        return answer.json()
                    assert answer.status_code in {409, 503, 507}, answer.text
                except httpx.TransportError:
                    self.note_deaths()
                time.sleep(0.02)
        raise AssertionError(f"{method} {path} was not answered in {PATIENCE_S} s")

    def note_deaths(self) -> None:
        if self.revive():
            self.figures.kills += 1

    # ---- the checks ---------------------------------------------------------------------------

    def watch(self, run_id: str) -> tuple[int, Path]:
        """Start an observer of the run."""
        report = self.folder / f"{run_id}.json"
        work = lambda: checks.observe(self.settings, run_id, self.url, report)  # noqa: E731
        return fork(work, self.log), report

    def expect(self, number: int) -> None:
        """Train one of RUNS undisturbed, once with each engine, and keep its results."""
        key = (self.settings.engine, number)
        if key in self._expected:
            return
        run_id = self.submit(number)
        until(lambda: self.has_ended(run_id), PATIENCE_S)
        self._expected[key] = self.digests(run_id)
        assert self._expected[key]["state"] == "succeeded", self._expected[key]

    def judge(self, run_id: str, number: int, observer: tuple[int, Path], what: str) -> None:
        """Compare an ended run with the undisturbed one, and read the observer's findings."""
        pid, report = observer
        end(pid, signal.SIGTERM)
        seen: dict[str, Any] = {"looks": 0, "wrong": ["the observer died"]}
        if report.exists():
            seen = json.loads(report.read_text())
        found = self.digests(run_id)
        expected = self._expected[self.settings.engine, number]
        wrong = [*seen["wrong"], *found["wrong"]]
        wrong += [
            f"I6: {name} is {found[name]}, undisturbed {expected[name]}"
            for name in ("state", "engine", "rows", "curve", "tensors")
            if found[name] != expected[name]
        ]
        if found["error"]:
            wrong.append(str(found["error"]))
        self.figures.looks += seen["looks"]
        self.figures.engines.add(str(found["engine"]))
        self.figures.attempts += found["attempts"]
        self.figures.wrong += [f"{what}: {run_id}: {sentence}" for sentence in wrong]

    def digests(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = ask(lambda: checks.digests(self.settings, run_id), self.log)
        return found

    def dump(self, run_id: str) -> list[str]:
        found: list[str] = ask(lambda: checks.dump(self.settings, run_id), self.log)
        return found

    def leftovers(self) -> list[str]:
        """Return leftovers that should be gone once nothing runs: files, locks, processes.

        The partial uploads of a killed API do not count: the service keeps them for a day.
        """
        files = self.settings.scratch_dir.glob("run_*")
        locks = [*(self.settings.data_dir / "locks").iterdir()]
        found = [str(path.relative_to(self.folder)) for path in files]
        if len(locks) > 1:
            found.append(f"{len(locks)} locks")
        found += [f"process {pid}" for pid in self.warm.trainers()]
        return found


def tell(pids: list[int], number: signal.Signals) -> None:
    """Signal processes that are not children of this one; ignore those that have ended."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
