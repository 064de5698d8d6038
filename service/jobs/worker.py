"""The supervisor: claims runs, starts a training process for each, and writes what they report.

It holds the database and the storage; its children hold neither. It never imports torch. One
thread does everything, so a run's messages are written in the order in which they were sent.
"""

import contextlib
import fcntl
import os
import secrets
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import structlog
from sqlalchemy import Engine, delete

from service.blobs import BlobStore, LocalBlobs
from service.database import check_schema, create_database, reading, writing
from service.datasets.ingest import ready_version
from service.errors import BlobCorrupt, Conflict, Fenced, Invalid, NotFound, ServiceError
from service.jobs import queue, reports
from service.jobs.launch import Child, Launcher, LocalLauncher, Message
from service.jobs.reports import Attempt
from service.runs import lifecycle
from service.settings import Settings
from service.tables import Run, Worker, utc_now

LOOK_S = 0.1  # seconds between two looks at the states of own runs: cancel must act within one
LOOK_AT_MOST = 1.0  # seconds of silence that one look may find: we may have been asleep ourselves
STACK_S = 1.0  # seconds that a stalled trainer gets to write where it is
STOP_GRACE = 3.0  # seconds that a trainer gets to obey a cancel or pause before it is killed
DATABASE_RETRY = 0.5  # seconds between two tries to write while the database does not answer
INBOX = 64  # messages of a child that are held while they cannot be written
SEEN = 10.0  # seconds between two signs of life in the table of workers
FORGOTTEN = timedelta(hours=1)  # after which a worker that is not seen leaves the table

log = structlog.get_logger("worker")


class Supervisor:
    """Trains the queue's runs until it is told to stop."""

    def __init__(
        self, settings: Settings, engine: Engine, blobs: BlobStore, launcher: Launcher
    ) -> None:
        self.id = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._settings = settings
        self._engine = engine
        self._blobs = blobs
        self._launcher = launcher
        self._attempts: dict[str, Attempt] = {}
        self._is_stopping = False
        self._stop_by = 0.0
        self._next: dict[str, float] = {}
        self._looked_at = self._now()
        self._locks = settings.data_dir.absolute() / "locks"

    # ---- the loop -----------------------------------------------------------------------------

    def run(self, wake: int | None = None) -> None:
        """Work until `stop`. A byte on the descriptor `wake` means: look now; its end: stop."""
        with self._owner_lock():
            log.info("worker started", worker=self.id, slots=self._settings.workers)
            while not (self._is_stopping and not self._attempts):
                wake = self._wait(wake)
                for attempt in list(self._attempts.values()):
                    self._hear(attempt)
                self._guarded(self._keep_house)
                if self._is_stopping and self._now() > self._stop_by:
                    self._abandon()
            self._guarded(self._leave)
            log.info("worker stopped", worker=self.id)

    def stop(self) -> None:
        """Claim nothing more and have every trainer save its state; a second call kills them."""
        if self._is_stopping:
            self._stop_by = 0.0
        else:
            self._is_stopping = True
            self._stop_by = self._now() + self._settings.grace_s

    def _wait(self, wake: int | None) -> int | None:
        """Sleep until a child speaks, somebody wakes us, or it is time to look."""
        readers: list[Any] = [a.child for a in self._attempts.values() if len(a.inbox) < INBOX]
        readers = [child for child in readers if not self._ended(child)]
        if wake is not None:
            readers.append(wake)
        pause = LOOK_S if self._attempts or self._is_stopping else self._settings.poll_s
        ready, _, _ = select.select(readers, [], [], pause)
        if wake is not None and wake in ready:
            if os.read(wake, 4096) == b"":
                self.stop()
                return None
            self._next.clear()
        return wake

    def _ended(self, child: Child) -> bool:
        return any(a.has_ended for a in self._attempts.values() if a.child is child)

    def _keep_house(self) -> None:
        if self._is_due("look", LOOK_S):
            self._end_stalls()
            self._obey_states()
        if self._is_due("beat", self._settings.renew_s):
            self._beat()
        if self._is_due("sweep", self._settings.sweep_s):
            self._sweep()
        if self._is_due("seen", SEEN if self._launcher.is_warm() else 1.0):
            self._show()
        if not self._is_stopping and self._launcher.is_warm():
            while len(self._attempts) < self._settings.workers and self._claim():
                pass

    def _guarded(self, step: Any) -> None:  # noqa: ANN401  any function without arguments
        """Run a step that may find the database away; it is tried again at the next look."""
        try:
            step()
        except (ServiceError, OSError) as error:
            log.warning("database or storage not usable", error=str(error))
            time.sleep(DATABASE_RETRY)

    def _is_due(self, what: str, every_s: float) -> bool:
        now = self._now()
        if self._next.get(what, 0.0) > now:
            return False
        self._next[what] = now + every_s
        return True

    @staticmethod
    def _now() -> float:
        return time.monotonic()

    # ---- claiming and leases ------------------------------------------------------------------

    def _claim(self) -> bool:
        with reading(self._engine) as session:  # an idle queue costs no write lock
            if not queue.has_waiting(session):
                return False
        with writing(self._engine) as session:
            run = lifecycle.claim(session, self.id, lease_s=self._settings.lease_s)
        if run is None:
            return False
        log.info("run claimed", run_id=run.id, attempt=run.attempt)
        try:
            self._start(run)
        except (BlobCorrupt, NotFound, Conflict, Invalid) as error:
            problem = lifecycle.problem("dataset_unavailable", f"{error} Upload the dataset again.")
            with writing(self._engine) as session, contextlib.suppress(Fenced):
                lifecycle.fail(session, run.id, run.attempt, problem)
        except (ServiceError, OSError):
            # Given back, so that it does not wait for its lease to run out.
            with writing(self._engine) as session, contextlib.suppress(Fenced):
                lifecycle.stopped(session, run.id, run.attempt, {})
            raise
        return True

    def _start(self, run: Run) -> None:
        scratch = self._settings.scratch_dir / f"{run.id}.{run.attempt}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True, mode=0o700)
        with reading(self._engine) as session:
            version = ready_version(session, run.dataset_id, run.dataset_version)
            checkpoint = lifecycle.resume_checkpoint(session, run)
        job: Message = {
            "run_id": run.id,
            "attempt": run.attempt,
            "config": run.config,
            "columns": {column["name"]: column["type"] for column in version.columns},
            "table": str(self._blobs.fetch(version.table_sha256, scratch)),
            "scratch": str(scratch),
            "resume": None,
            "seq": 0,
            # What was lost since the checkpoint counts too: a budget limits what is spent.
            "elapsed_s": (run.progress or {}).get("elapsed_s", 0.0),
            "saving_s": (run.progress or {}).get("saving_s", 0.0),
        }
        if checkpoint is not None:
            job["resume"] = str(self._blobs.fetch(checkpoint.sha256, scratch))
            job["seq"] = checkpoint.metric_seq if checkpoint.run_id == run.id else 0
        child = self._launcher.start(job, scratch)
        self._attempts[run.id] = Attempt(run.id, run.attempt, child, scratch)

    def _beat(self) -> None:
        mine = {a.run_id: a.number for a in self._attempts.values()}
        with writing(self._engine) as session:
            held = queue.beat(session, self.id, mine, lease_s=self._settings.lease_s)
        for run_id in mine.keys() - held.keys():
            self._lose(self._attempts[run_id])

    def _obey_states(self) -> None:
        """Tell trainers of cancels, pauses and the end of this supervisor; kill the deaf."""
        mine = {a.run_id: a.number for a in self._attempts.values()}
        if not mine:
            return
        with reading(self._engine) as session:
            states = queue.states(session, mine)
        for attempt in list(self._attempts.values()):
            state = states.get(attempt.run_id)
            if state is None and not attempt.is_settled:
                self._lose(attempt)
            elif state == "cancelling":
                self._tell(attempt, "cancel", STOP_GRACE)
            elif state == "pausing":
                self._tell(attempt, "pause", self._settings.grace_s)
            elif self._is_stopping:
                self._tell(attempt, "handback", self._settings.grace_s)
            if attempt.kill_at is not None and self._now() > attempt.kill_at:
                attempt.child.kill()

    def _tell(self, attempt: Attempt, reason: str, grace_s: float) -> None:
        if attempt.stop_reason in {reason, "cancel"}:
            return
        attempt.stop_reason = reason
        attempt.kill_at = self._now() + grace_s
        attempt.child.send({"type": "stop", "reason": reason})

    def _end_stalls(self) -> None:
        """Kill trainers that are silent too long, after a look at where they stand still."""
        now = self._now()
        passed, self._looked_at = min(now - self._looked_at, LOOK_AT_MOST), now
        for attempt in self._attempts.values():
            # One whose messages wait to be written is not silent.
            attempt.silent_s = 0.0 if attempt.inbox else attempt.silent_s + passed
            if attempt.silent_s < self._settings.stall_s or attempt.stalled_s is not None:
                continue
            log.warning("trainer stalled", run_id=attempt.run_id, attempt=attempt.number)
            attempt.stalled_s = self._settings.stall_s
            attempt.child.show_stack()
            attempt.kill_at = now + STACK_S

    def _lose(self, attempt: Attempt) -> None:
        """Stop a trainer whose run belongs to somebody else now; nothing of it is written."""
        log.warning("run lost to another worker", run_id=attempt.run_id, attempt=attempt.number)
        attempt.is_settled = True
        attempt.child.kill()

    def _sweep(self) -> None:
        """Give runs of silent or dead supervisors back to the queue."""
        for owner in self._dead_owners():
            with writing(self._engine) as session:
                queue.expire_now(session, owner)
            (self._locks / owner).unlink(missing_ok=True)
        with reading(self._engine) as session:
            lost = queue.expired(session)
        for run_id, number in lost:
            with writing(self._engine) as session:
                if lifecycle.rescue(session, run_id, number):
                    log.warning("run rescued", run_id=run_id, attempt=number)

    # ---- what trainers say --------------------------------------------------------------------

    def _hear(self, attempt: Attempt) -> None:
        while not attempt.has_ended and len(attempt.inbox) < INBOX and attempt.child.has_message():
            message = attempt.child.receive()
            attempt.silent_s = 0.0
            if message is None:
                attempt.has_ended = True
            else:
                attempt.inbox.append(message)
        try:
            while attempt.inbox:
                if not attempt.is_settled:
                    reports.write(self._engine, self._blobs, attempt, attempt.inbox[0])
                attempt.inbox.popleft()
            if attempt.has_ended:
                self._bury(attempt)
        except Fenced:
            self._lose(attempt)
        except ServiceError as error:
            # Nothing is lost: the message stays first in the inbox, and a full inbox is not read,
            # which in turn holds the trainer.
            log.warning("cannot write", run_id=attempt.run_id, code=error.code)
            time.sleep(DATABASE_RETRY)

    def _bury(self, attempt: Attempt) -> None:
        """The process has ended: note an end without a word, and clear what it leaves."""
        code = attempt.child.exit_code()
        if not attempt.is_settled:
            reports.write_death(self._engine, attempt, code)
        del self._attempts[attempt.run_id]
        shutil.rmtree(attempt.scratch, ignore_errors=True)
        self._next.clear()

    # ---- coming and going ---------------------------------------------------------------------

    @contextlib.contextmanager
    def _owner_lock(self) -> Iterator[None]:
        """Hold a lock that the kernel frees when this process dies, however it dies."""
        self._locks.mkdir(parents=True, exist_ok=True)
        with (self._locks / self.id).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
            (self._locks / self.id).unlink(missing_ok=True)

    def _dead_owners(self) -> list[str]:
        """Return supervisors of this machine whose lock is free: they are dead."""
        return [
            path.name
            for path in self._locks.iterdir()
            if path.name != self.id and _is_unlocked(path)
        ]

    def _show(self) -> None:
        """Say in the table of workers that this one is there."""
        with writing(self._engine) as session:
            worker = session.get(Worker, self.id) or Worker(
                id=self.id, host=socket.gethostname(), pid=os.getpid(), capacity=0, devices=[]
            )
            worker.capacity = self._settings.workers
            worker.is_warm = self._launcher.is_warm()
            worker.devices = _devices()
            worker.seen_at = utc_now()
            session.add(worker)
            session.execute(delete(Worker).where(Worker.seen_at < utc_now() - FORGOTTEN))

    def _abandon(self) -> None:
        for attempt in self._attempts.values():
            attempt.stop_reason = attempt.stop_reason or "handback"
            attempt.child.kill()

    def _leave(self) -> None:
        with writing(self._engine) as session:
            session.execute(delete(Worker).where(Worker.id == self.id))


def _is_unlocked(path: Path) -> bool:
    try:
        with path.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return False
    return True


def _devices() -> list[dict[str, Any]]:
    """Return this machine's devices, as far as the kernel's driver tells without torch."""
    found: list[dict[str, Any]] = [{"name": "cpu", "cores": os.cpu_count()}]
    for index, folder in enumerate(sorted(Path("/proc/driver/nvidia/gpus").glob("*"))):
        text = (folder / "information").read_text()
        fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        model = fields.get("Model", "NVIDIA GPU").strip()
        found.append({"name": f"cuda:{index}", "model": model})
    return found


def main(settings: Settings, *, stdin_wake: bool) -> None:
    """Run a supervisor until SIGTERM, Ctrl-C or, with `stdin_wake`, the end of standard input."""
    engine = create_database(settings.resolved_database_url)
    check_schema(engine)
    blobs = LocalBlobs(settings.blob_dir)
    # The trainers' warm parent inherits the environment: no credential may be in it.
    for name in [name for name in os.environ if name.startswith(("DESCENT_", "PG", "AWS_"))]:
        del os.environ[name]
    supervisor = Supervisor(settings, engine, blobs, LocalLauncher())

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        supervisor.stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, signal.SIG_IGN if stdin_wake else on_signal)
    supervisor.run(sys.stdin.fileno() if stdin_wake else None)
    engine.dispose()
