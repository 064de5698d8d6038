"""Predictors that are kept warm, named by the SHA-256 of their checkpoint. No torch, no SQL."""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from threading import Lock
from typing import NamedTuple

from models.predict.predictor import Predictor
from service.registry.checkpoints import damage_named
from service.storage.blobs import BlobStore, read_blob


class _Kept(NamedTuple):
    predictor: Predictor
    bytes: int


class Predictors:
    """The predictors that were used last, within a bound of bytes and of entries.

    Each checkpoint is loaded once, however many threads ask for it at the same time; those wait
    for the one that loads and share its result or its error. A failed load is not remembered.
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
        """Return the predictor of a checkpoint if it is loaded: never waits for a load."""
        with self._lock:
            if kept := self._kept.get(sha256):
                self._kept.move_to_end(sha256)
                return kept.predictor
        return None

    def get(self, sha256: str) -> Predictor:
        """Return the predictor of a checkpoint. Raises ModelDamaged."""
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
        if sha256 in self:  # its bytes may have been damaged since they were read
            with damage_named():
                read_blob(self._blobs, sha256)
        self.get(sha256)

    def _fill(self, future: Future[Predictor], sha256: str) -> None:
        try:
            predictor, size = self._read(sha256)
        except BaseException as error:  # noqa: BLE001  whoever waits gets it too, and so do we
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
            return predictor, len(content) + predictor.session.bytes

    def _keep(self, sha256: str, kept: _Kept) -> None:
        if kept.bytes > self._max_bytes:
            return
        self._kept[sha256] = kept
        self._bytes += kept.bytes
        while self._bytes > self._max_bytes or len(self._kept) > self._max_entries:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.bytes
