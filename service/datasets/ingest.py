"""Takes a received file to a ready dataset: bytes to a blob, a parsed table, a profile, rows.

A dataset that is being parsed is held by a lease. Whoever finds the lease expired takes the
parsing over as a new attempt; what the earlier attempt still writes is refused.
"""

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Engine, and_, delete, or_, update
from sqlalchemy.orm import Session

from models.failpoints import reach
from service.datasets import refusals, sandbox
from service.datasets.rejected import Rejected
from service.datasets.sandbox import TABLE, Limits, Task
from service.datasets.tables import Dataset, DatasetVersion
from service.datasets.upload import Received, remove_leftovers
from service.datasets.versions import ready_version
from service.errors import (
    BlobCorrupt,
    Busy,
    Conflict,
    Fenced,
    ServiceError,
)
from service.ids import new_id
from service.settings import Settings
from service.storage import references
from service.storage.blobs import BlobStore
from service.storage.database import boot_id, clock, row_count, writing
from service.storage.references import Stored
from service.storage.scratch import Scratch

PARSERS = 2  # files that one process of the API parses at a time
MAX_ATTEMPTS = 3  # after so many tries that took the whole service down, the file is refused
OUTAGE_RETRY = 2.0  # seconds between two tries while the storage does not answer

logger = structlog.get_logger(__name__)


@dataclass
class Ticket:
    """A file that is being parsed, as its uploader sees it."""

    dataset_id: str
    attempt: int
    #: whether the uploader still waits: then it is told, and a rejected dataset is not kept
    is_waited_for: bool
    #: done when parsed; its result is None, or why the file was rejected
    done: "Future[Rejected | None]" = field(default_factory=Future)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def leave(self) -> bool:
        """Stop waiting; return whether it is not done yet."""
        with self.lock:
            self.is_waited_for = False
            return not self.done.done()


@dataclass(frozen=True)
class Upload:
    """What a client sent."""

    name: str
    received: Received
    #: delimiter, header, missing_values
    options: dict[str, Any]


class Ingester:
    """Parses uploads in the background, and those that another process left behind."""

    def __init__(
        self, settings: Settings, engine: Engine, blobs: BlobStore, scratch: Scratch
    ) -> None:
        self._settings, self._engine, self._blobs = settings, engine, blobs
        self.settings, self.engine, self.scratch = settings, engine, scratch
        self._pool = ThreadPoolExecutor(PARSERS, thread_name_prefix="ingest")
        self._stop = threading.Event()
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()
        self._keeper = threading.Thread(target=self._keep, name="ingest-keeper", daemon=True)
        self.limits = Limits(settings.parse_memory_bytes, settings.parse_timeout_s)

    def start(self) -> None:
        self._keeper.start()

    def close(self) -> None:
        """Stop parsing; what is unfinished is handed back for the next process."""
        self._stop.set()
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._keeper.is_alive():
            self._keeper.join()
        with contextlib.suppress(ServiceError), writing(self._engine) as session:
            for dataset_id, attempt in self._held.items():
                session.execute(
                    update(Dataset).where(*_mine(dataset_id, attempt)).values(lease_expires=0.0)
                )

    def accept(self, upload: Upload, note: Callable[[Session, Dataset], None]) -> Ticket:
        """Store the bytes and begin to parse them. The received file may be removed after this.

        `note` writes what belongs into the same transaction.
        """
        received = upload.received
        reach("ingest.received")
        with (
            self._stored(received.path, received.sha256) as held,
            writing(self._engine) as session,
        ):
            reach("ingest.stored")
            dataset = Dataset(
                id=new_id("ds"),
                name=upload.name,
                state="ingesting",
                media_type=received.media_type,
                sha256=received.sha256,
                bytes=received.size,
                attempt=1,
                lease_expires=clock(session) + self._settings.lease_s,
                boot_id=boot_id(session),
                options=upload.options,
            )
            session.add(dataset)
            session.flush()
            note(session, dataset)
            references.keep(session, held)
        reach("ingest.accepted")
        return self.begin(dataset, is_waited_for=True)

    def resume_abandoned(self, now: float | None = None) -> list[Ticket]:
        """Take over the datasets whose parser is gone; return what was begun."""
        with writing(self._engine) as session:
            time, boot = clock(session, now), boot_id(session)
            taken = session.scalars(
                update(Dataset)
                .where(Dataset.state == "ingesting")
                .where(or_(Dataset.lease_expires < time, Dataset.boot_id != boot))
                .values(
                    attempt=Dataset.attempt + 1,
                    lease_expires=time + self._settings.lease_s,
                    boot_id=boot,
                )
                .returning(Dataset),
                execution_options={"synchronize_session": False},
            ).all()
        return [self.begin(dataset, is_waited_for=False) for dataset in taken]

    def retype(self, dataset_id: str, types: dict[str, str]) -> None:
        """Parse the bytes again with other types, as the next version."""
        with writing(self._engine) as session:
            current = ready_version(session, dataset_id, None)
            dataset = session.get_one(Dataset, dataset_id)
        known = {column["name"] for column in current.columns}
        if unknown := sorted(set(types) - known):
            raise refusals.unknown_columns(unknown)
        merged = {**(current.options.get("types") or {}), **types}
        is_same = all(c["type"] == types.get(c["name"], c["type"]) for c in current.columns)
        if is_same:
            return
        options = current.options | {"types": merged}
        with self.scratch.folder() as folder:
            try:
                path = self._blobs.fetch(str(dataset.sha256), folder)
                parsed = self._parse(dataset, path, folder, options)
            except Rejected as refused:
                raise refusals.as_error(refused) from refused
            except BlobCorrupt as error:
                raise refusals.as_error(refusals.bytes_lost()) from error
            with self._stored(folder / TABLE) as table, writing(self._engine) as session:
                changed = session.execute(
                    update(Dataset)
                    .where(Dataset.id == dataset_id, Dataset.version == current.version)
                    .where(Dataset.state == "ready")
                    .values(version=current.version + 1)
                )
                if row_count(changed) != 1:
                    raise Conflict(
                        "The dataset got another version meanwhile: read it and try again.",
                        code="version_conflict",
                    )
                session.add(_version(dataset_id, current.version + 1, options, parsed, table))
                references.keep(session, table)

    # ---- in the background --------------------------------------------------------------------

    def begin(self, dataset: Dataset, *, is_waited_for: bool) -> Ticket:
        """Parse a dataset as the attempt that it is at."""
        ticket = Ticket(dataset.id, dataset.attempt, is_waited_for)
        with self._lock:
            self._held[dataset.id] = dataset.attempt
        self._pool.submit(self._work, ticket, dataset)
        return ticket

    def _work(self, ticket: Ticket, dataset: Dataset) -> None:
        try:
            refused = self._ingest_patiently(ticket, dataset)
        except sandbox.Stopped:
            # Still held, so that `close` hands it back.
            ticket.done.set_exception(refusals.interrupted())
            return
        except Fenced as error:
            self._let_go(dataset.id)
            ticket.done.set_exception(error)
        except Exception as error:
            # Left as it is: its lease runs out and the next attempt begins.
            logger.exception("ingest_failed", dataset_id=dataset.id)
            self._let_go(dataset.id)
            ticket.done.set_exception(error)
        else:
            self._let_go(dataset.id)
            ticket.done.set_result(refused)

    def _ingest_patiently(self, ticket: Ticket, dataset: Dataset) -> Rejected | None:
        """Parse; while storage or database do not answer, wait with the lease held."""
        while True:
            try:
                return self._ingest(ticket, dataset)
            except Busy as error:
                logger.warning("ingest_waits", dataset_id=dataset.id, code=error.code)
                if self._stop.wait(OUTAGE_RETRY):
                    raise sandbox.Stopped from error

    def _ingest(self, ticket: Ticket, dataset: Dataset) -> Rejected | None:
        options = dataset.options or {}
        try:
            if dataset.attempt > MAX_ATTEMPTS:
                return self._reject(ticket, refusals.endless(MAX_ATTEMPTS))
            with self.scratch.folder() as folder:
                path = self._blobs.fetch(str(dataset.sha256), folder)
                parsed = self._parse(dataset, path, folder, options)
                with self._stored(folder / TABLE) as table:
                    self._publish(dataset, options, parsed, table)
        except BlobCorrupt:
            return self._reject(ticket, refusals.bytes_lost())
        except Rejected as refused:
            return self._reject(ticket, refused)
        return None

    def _parse(
        self, dataset: Dataset, path: Path, folder: Path, options: dict[str, Any]
    ) -> dict[str, Any]:
        task = Task(
            path=str(path),
            folder=str(folder),
            media_type=dataset.media_type,
            options=options,
            max_columns=self._settings.max_columns,
            memory_bytes=sandbox.memory_for_queries(self.limits),
        )
        parsed = sandbox.run(task, self.limits, lambda: not self._stop.is_set())
        reach("ingest.parsed")
        return parsed

    def _stored(
        self, path: Path, sha256: str | None = None
    ) -> contextlib.AbstractContextManager[Stored]:
        return references.stored(self._engine, self._blobs, path, sha256)

    def _publish(
        self, dataset: Dataset, options: dict[str, Any], parsed: dict[str, Any], table: Stored
    ) -> None:
        values: dict[str, Any] = {"state": "ready", "version": 1, "error": None}
        if dataset.media_type == "application/json" and parsed["name"]:
            values["name"] = parsed["name"]
        with writing(self._engine) as session:
            _settle(session, dataset.id, dataset.attempt, values)
            session.add(_version(dataset.id, 1, options, parsed, table))
            references.keep(session, table)
        reach("ingest.ready")

    def _reject(self, ticket: Ticket, refused: Rejected) -> Rejected:
        with ticket.lock, writing(self._engine) as session:
            if ticket.is_waited_for:
                mine = _mine(ticket.dataset_id, ticket.attempt)
                session.execute(delete(Dataset).where(*mine))
            else:
                problem = refusals.as_error(refused).problem()
                values = {"state": "rejected", "error": problem}
                _settle(session, ticket.dataset_id, ticket.attempt, values)
        return refused

    def _let_go(self, dataset_id: str) -> None:
        with self._lock:
            self._held.pop(dataset_id, None)

    def _keep(self) -> None:
        """Renew the leases of what this process parses, and look for what others left behind."""
        sandbox.warm()
        remove_leftovers(self.scratch.root)
        while True:
            try:
                self._renew()
                self.resume_abandoned()
            except ServiceError as error:
                logger.warning("ingest_keeper", code=error.code)
            if self._stop.wait(self._settings.renew_s):
                return

    def _renew(self) -> None:
        with self._lock:
            held = dict(self._held)
        if not held:
            return
        mine = or_(*(and_(*_mine(dataset, attempt)) for dataset, attempt in held.items()))
        with writing(self._engine) as session:
            expires = clock(session) + self._settings.lease_s
            session.execute(
                update(Dataset).where(mine).values(lease_expires=expires, boot_id=boot_id(session))
            )


# ---- private -------------------------------------------------------------------------------------


def _mine(dataset_id: str, attempt: int) -> tuple[Any, ...]:
    return (
        Dataset.id == dataset_id,
        Dataset.attempt == attempt,
        Dataset.state == "ingesting",
    )


def _settle(session: Session, dataset_id: str, attempt: int, values: dict[str, Any]) -> None:
    """Write the end of an attempt; raise Fenced where it is no longer the owner."""
    done = session.execute(
        update(Dataset)
        .where(*_mine(dataset_id, attempt))
        .values(**values, lease_expires=None, boot_id=None)
    )
    if row_count(done) != 1:
        raise Fenced(f"attempt {attempt} no longer parses {dataset_id}")


def _version(
    dataset_id: str,
    number: int,
    options: dict[str, Any],
    parsed: dict[str, Any],
    table: Stored,
) -> DatasetVersion:
    return DatasetVersion(
        dataset_id=dataset_id,
        version=number,
        options=options,
        rows=parsed["rows"],
        columns=parsed["columns"],
        warnings=parsed["warnings"],
        table_sha256=table.sha256,
    )
