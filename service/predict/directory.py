"""In-memory copies of the registry for predictions: loaded models, and names with their versions.

- `Predictors` is the cache of loaded models.
- `Directory` resolves models, versions and aliases without the database, for the hot path. A thread
  polls the registry ten times a second, so a change is live in every process within a second of
  its commit; the process that made the change applies it at once. While the database is down, the
  known names stay valid.
"""

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import count
from random import randrange
from threading import Event, Lock, Thread
from typing import NamedTuple

import structlog
from sqlalchemy import Engine, or_, select
from sqlalchemy.orm import Session

from models.predict.predictor import Predictor
from service.errors import ServiceError
from service.registry import versions
from service.registry.serving import damage_named
from service.registry.tables import Alias, Model, ModelChange, ModelVersion
from service.registry.versions import Target
from service.storage.blobs import BlobStore, read_blob
from service.storage.database import reading

POLL = 0.1  # seconds between two polls of the registry; a poll takes 0.3 ms
#: seconds that a new version may load before it gets requests anyway; with POLL and the queries a
#: change is live within 1 s of its commit, loaded or not
PATIENCE = 0.4
LOADERS = 2  # threads that load new versions
GOLDEN = (5**0.5 - 1) / 2  # the golden ratio, minus one
LAST = 2**62  # greater than any revision
MAX_MODELS = 10_000  # models in memory; one more clears them all

logger = structlog.get_logger(__name__)


# ---- the cache of loaded models -----------------------------------------------------------------


class _Kept(NamedTuple):
    predictor: Predictor
    bytes: int


class Predictors:
    """Cache of the most recently used predictors, limited in bytes and in entries.

    Threads that need the same checkpoint at the same time load it once: one thread loads, the
    others wait and get its result or its error. Failed loads are not cached.
    """

    def __init__(
        self,
        blobs: BlobStore,
        *,
        max_bytes: int = 256 * 2**20,
        max_entries: int = 1000,
        load: Callable[[bytes], Predictor] = Predictor.load,
    ) -> None:
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._load = load
        self._lock = Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._loading: dict[str, Future[Predictor]] = {}
        self._bytes = 0

    @property
    def bytes(self) -> int:
        return self._bytes

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._kept

    def known(self, sha256: str) -> Predictor | None:
        """Return the predictor of a checkpoint if it is loaded; never waits."""
        with self._lock:
            if kept := self._kept.get(sha256):
                self._kept.move_to_end(sha256)
                return kept.predictor
        return None

    def get(self, sha256: str) -> Predictor:
        """Return the predictor of a checkpoint and load it if needed. Raises ModelDamaged."""
        with self._lock:
            if kept := self._kept.get(sha256):
                self._kept.move_to_end(sha256)
                return kept.predictor
            future = self._loading.get(sha256)
            is_first = future is None
            if future is None:
                future = self._loading[sha256] = Future()
        if is_first:
            self._fill(future, sha256)
        return future.result()

    def warm(self, sha256: str) -> None:
        """Load a checkpoint after its bytes were checked. Raises ModelDamaged."""
        if sha256 in self:  # the stored bytes may have been damaged since they were read
            with damage_named():
                read_blob(self._blobs, sha256)
        self.get(sha256)

    def _fill(self, future: Future[Predictor], sha256: str) -> None:
        try:
            predictor, size = self._read(sha256)
        except BaseException as error:  # noqa: BLE001  the waiting threads and this one raise it
            with self._lock:
                del self._loading[sha256]
            future.set_exception(error)
            return
        with self._lock:
            self._keep(sha256, _Kept(predictor, size))
            del self._loading[sha256]
        future.set_result(predictor)

    def _read(self, sha256: str) -> tuple[Predictor, int]:
        with damage_named():
            content = read_blob(self._blobs, sha256)
            predictor = self._load(content)
            return predictor, len(content) + predictor.model.bytes

    def _keep(self, sha256: str, kept: _Kept) -> None:
        if kept.bytes > self._max_bytes:
            return
        self._kept[sha256] = kept
        self._bytes += kept.bytes
        while self._bytes > self._max_bytes or len(self._kept) > self._max_entries:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.bytes


# ---- names --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A model with its versions and aliases, as of one revision of the registry."""

    revision: int
    #: the number of the newest version ever made, even if it was deleted
    last_version: int = 0
    latest: Target | None = None
    versions: Mapping[int, Target] = field(default_factory=dict)
    aliases: Mapping[str, "Share"] = field(default_factory=dict)

    def served(self) -> Iterable[tuple[str, list[Target]]]:
        """Yield each name that can move, and the versions that serve it; `""` is the model."""
        if self.latest is not None:
            yield "", [self.latest]
        for alias, share in self.aliases.items():
            yield alias, share.targets()


class Share:
    """Distributes the requests to an alias between its version and its canary."""

    def __init__(self, live: Target, canary: Target | None = None, percent: float = 0.0) -> None:
        self._live, self._canary, self._share = live, canary, percent / 100
        # Start at random, so that an entry that is read again does not restart the same sequence.
        self._count = count(randrange(1_000_000))  # noqa: S311  no secret

    def next(self) -> Target:
        """Return the version for one request; the canary's requests are spread evenly."""
        if self._canary is None:
            return self._live
        # Multiples of the golden ratio, modulo one, are spread evenly and never repeat: no periodic
        # client always reaches the same version.
        return self._canary if next(self._count) * GOLDEN % 1.0 < self._share else self._live

    def targets(self) -> list[Target]:
        named = (self._live, self._canary, self._live.shadow)
        return [target for target in named if target is not None]


class Directory:
    """Resolves names to versions. One per process; all methods are safe in any thread."""

    def __init__(self, engine: Engine, predictors: Predictors, *, poll: float = POLL) -> None:
        if engine.dialect.name == "postgresql":
            # Several statements read an entry; they must all see the same snapshot.
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        self._engine = engine
        self._predictors = predictors
        self._poll = poll
        self._lock = Lock()
        self._entries: dict[str, Entry] = {}
        #: the newest revision seen, and the models that changed and must be read again
        self._seen = 0
        self._stale: set[str] = set()
        self._looking = Lock()
        self._is_closing = Event()
        self._looker = Thread(target=self._look_on, name="directory", daemon=True)
        self._loaders = ThreadPoolExecutor(LOADERS, thread_name_prefix="warm")

    def __len__(self) -> int:
        """Return the number of known models."""
        return len(self._entries)

    def start(self) -> None:
        self._looker.start()

    def close(self) -> None:
        self._is_closing.set()
        self._loaders.shutdown(wait=False, cancel_futures=True)
        if self._looker.ident is not None:
            self._looker.join()

    # ---- without the database --------------------------------------------------------------------

    def known_model(self, name: str) -> Target | None:
        """Return the latest version of a model if it is known; never waits."""
        entry = self._entries.get(name)
        return entry.latest if entry is not None else None

    def known_version(self, name: str, number: int) -> Target | None:
        entry = self._entries.get(name)
        return entry.versions.get(number) if entry is not None else None

    def known_alias(self, name: str, alias: str) -> Target | None:
        entry = self._entries.get(name)
        share = entry.aliases.get(alias) if entry is not None else None
        return share.next() if share is not None else None

    # ---- with the database, for unknown names ----------------------------------------------------

    def of_model(self, name: str) -> Target:
        """Return the latest version of a model. Raises NotFound; may query the database."""
        if (known := self.known_model(name)) is not None:
            return known
        with reading(self._engine) as session:
            found = versions.target_of_model(session, name)
        self._read_again(name)
        return self.known_model(name) or found

    def of_version(self, name: str, number: int) -> Target:
        """Return a version of a model. Raises NotFound; may query the database."""
        if (known := self.known_version(name, number)) is not None:
            return known
        with reading(self._engine) as session:
            found = versions.target_of_version(session, name, number)
        self._read_again(name)
        return self.known_version(name, number) or found

    def of_alias(self, name: str, alias: str) -> Target:
        """Return the version for a request to an alias. Raises NotFound; may query the database."""
        if (known := self.known_alias(name, alias)) is not None:
            return known
        with reading(self._engine) as session:
            found = versions.target_of_alias(session, name, alias)
        self._read_again(name)
        return self.known_alias(name, alias) or found

    # ---- changes ---------------------------------------------------------------------------------

    def follow(self, name: str) -> None:
        """Apply a change of this model that this process has just committed."""
        try:
            self._read_again(name)
        except ServiceError as error:
            # The change is committed and the next poll finds it: the request must not fail.
            logger.warning("directory_behind", model=name, reason=error.detail)

    def expect_requests(self, name: str, version: int) -> None:
        """Read the model again if this version is new: a client is about to use it."""
        entry = self._entries.get(name)
        if entry is not None and entry.last_version < version:
            self.follow(name)

    def warm(self, sha256: str) -> None:
        """Load a checkpoint after its bytes were checked. Raises ModelDamaged."""
        self._predictors.warm(sha256)

    def look(self) -> None:
        """Apply all changes since the last poll, of any process. Raises errors of the database."""
        with self._looking:
            self._look()

    def _look(self) -> None:
        # One transaction, so one snapshot: the entries are as new as the newest change it contains.
        with reading(self._engine) as session:
            newest, changes = _changes(session, self._seen)
            self._note(newest, changes)
            fresh = _read(session, self._stale, newest) if self._stale else {}
        self._warm(fresh)
        for name, entry in fresh.items():
            self._keep(name, entry)
            self._stale.discard(name)

    def _note(self, newest: int, changes: Mapping[str, int]) -> None:
        with self._lock:
            if newest < self._seen:  # the database was replaced by an older copy
                self._entries.clear()
            # From here on, `_keep` refuses new entries that are older than this poll.
            self._seen = newest
            # If reading fails, the names stay stale and the next poll tries again.
            for name, revision in changes.items():
                known = self._entries.get(name)
                if known is not None and known.revision < revision:
                    self._stale.add(name)

    def _look_on(self) -> None:
        is_away = False
        while not self._is_closing.wait(self._poll):
            try:
                self.look()
                is_away = False
            except Exception as error:  # noqa: BLE001  if the thread ended, no change would arrive
                if not is_away:
                    logger.warning("directory_behind", reason=str(error))
                is_away = True

    def _warm(self, fresh: Mapping[str, Entry]) -> None:
        """Load new versions that replace loaded ones, so that no request waits for a load."""
        wanted = {
            target.sha256
            for name, entry in fresh.items()
            for target in self._replacements(name, entry)
        }
        loads = [self._loaders.submit(self._predictors.get, sha256) for sha256 in wanted]
        # A damaged or slow version must not delay the change: its requests then fail or wait.
        wait(loads, PATIENCE)

    def _replacements(self, name: str, fresh: Entry) -> Iterable[Target]:
        known = self._entries.get(name)
        old = dict(known.served()) if known is not None else {}
        for served, targets in fresh.served():
            if any(was.sha256 in self._predictors for was in old.get(served, ())):
                yield from (each for each in targets if each.sha256 not in self._predictors)

    def _read_again(self, name: str) -> None:
        with reading(self._engine) as session:
            newest, _ = _changes(session, LAST)
            entry = _read(session, [name], newest)[name]
        self._keep(name, entry)

    def _keep(self, name: str, entry: Entry) -> None:
        with self._lock:
            known = self._entries.get(name)
            # A poll does not repeat changes before `_seen`, so a new entry must be as new as that.
            # A deleted model keeps an empty entry, so that a slower thread cannot add an old one.
            is_newer = (
                bool(entry.last_version) and entry.revision >= self._seen
                if known is None
                else entry.revision >= known.revision
            )
            if not is_newer:
                return
            if known is None and len(self._entries) >= MAX_MODELS:
                self._entries.clear()
            self._entries[name] = entry


def _changes(session: Session, seen: int) -> tuple[int, dict[str, int]]:
    """Return the newest revision, and the revision of each model that changed after `seen`."""
    query = select(ModelChange.model_name, ModelChange.revision).where(
        or_(ModelChange.revision > seen, ModelChange.model_name == "")
    )
    found = {name: revision for name, revision in session.execute(query)}  # noqa: C416  a Row is no plain pair to mypy
    return found.pop("", 0), found


def _read(session: Session, names: Collection[str], revision: int) -> dict[str, Entry]:
    """Return the entry of each of these models; an unknown model has an empty one."""
    last = select(Model.name, Model.last_version).where(Model.name.in_(names))
    lasts = {name: version for name, version in session.execute(last)}  # noqa: C416  as above
    found_versions: dict[str, dict[int, Target]] = {name: {} for name in names}
    query = select(ModelVersion.model_name, ModelVersion.version, ModelVersion.sha256)
    for name, number, sha256 in session.execute(query.where(ModelVersion.model_name.in_(names))):
        found_versions[name][number] = versions.target(name, number, sha256)
    aliases: dict[str, dict[str, Share]] = {name: {} for name in names}
    for row in session.scalars(select(Alias).where(Alias.model_name.in_(names))):
        aliases[row.model_name][row.alias] = _share(row, found_versions[row.model_name])
    return {
        name: Entry(
            revision=revision,
            last_version=lasts.get(name, 0),
            latest=found[max(found)] if found else None,
            versions=found,
            aliases=aliases[name],
        )
        for name, found in found_versions.items()
    }


def _share(row: Alias, versions: Mapping[int, Target]) -> Share:
    shadow = None
    if row.shadow_version is not None:
        shadow = replace(versions[row.shadow_version], role="shadow")
    live = replace(versions[row.version], shadow=shadow)
    if row.canary_version is None:
        return Share(live)
    canary = replace(versions[row.canary_version], role="canary")
    return Share(live, canary, row.canary_percent or 0.0)
