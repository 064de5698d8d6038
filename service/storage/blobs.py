"""The blob store, its form in a folder, and scratch folders.

Blobs are immutable bytes named by their SHA-256 and verified on every read. `put` is atomic and
durable: after a crash a blob is either absent or complete. `references` knows which blobs are
needed; this module does not.
"""

import contextlib
import errno
import hashlib
import itertools
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from models.failpoints import reach
from service.errors import BlobCorrupt, StorageFull, StorageUnavailable

CHUNK = 1024 * 1024  # bytes that are read and hashed at a time
FORGOTTEN = 24 * 3600.0  # seconds after which the temporary file of a killed `put` is removed
DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobMissing(BlobCorrupt):
    """The bytes are not in the store."""


class BlobStore(Protocol):
    """A store of blobs. Raises StorageUnavailable if it does not answer, StorageFull if full."""

    def put(self, path: Path, sha256: str | None = None) -> tuple[str, int]:
        """Store a copy of a file; return its digest and size."""
        ...

    def take(self, path: Path, sha256: str) -> None:
        """Store a file of this digest, which this process computed while it wrote the file.

        The file may be gone afterwards.
        """
        ...

    def open(self, sha256: str) -> Iterator[bytes]:
        """Yield the bytes; raise BlobCorrupt before the last chunk if the digest differs."""
        ...

    def fetch(self, sha256: str, folder: Path) -> Path:
        """Return a local file with the verified bytes. Others may share it: never write to it."""
        ...

    def delete(self, sha256: str) -> None:
        """Remove a blob; a missing blob is no error."""
        ...

    def check(self) -> None:
        """Raise StorageUnavailable or StorageFull if the store cannot be used now."""
        ...

    def sweep(self, older_than_s: float = FORGOTTEN) -> None:
        """Remove temporary files of killed writers."""
        ...


class LocalBlobs:
    """Blobs in a folder: `sha256/ab/abcdef…`."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "sha256"
        self._incoming = root / "incoming"
        for folder in (self._blobs, self._incoming):
            _make_folder(folder)
        #: the folders of blobs whose own names this process has made durable
        self._durable: set[Path] = set()

    def put(self, path: Path, sha256: str | None = None) -> tuple[str, int]:
        if sha256 is not None:
            check_digest(sha256)
        temporary = self._incoming / secrets.token_hex(16)
        try:
            with full_disk_named():
                digest, size = _copy(path, temporary)
                check_unchanged(digest, sha256)
                reach("blob.copied")
                self._publish(temporary, self._path(digest))
                reach("blob.published")
        finally:
            temporary.unlink(missing_ok=True)
        return digest, size

    def take(self, path: Path, sha256: str) -> None:
        final, temporary = self._path(sha256), self._incoming / secrets.token_hex(16)
        try:
            path.rename(temporary)
        except OSError as error:
            if error.errno != errno.EXDEV:  # the file is on another disk
                raise
            self.put(path, sha256)
            return
        try:
            with full_disk_named():
                temporary.chmod(0o600)
                _sync(temporary)
                reach("blob.copied")
                self._publish(temporary, final)
                reach("blob.published")
        finally:
            temporary.unlink(missing_ok=True)

    def open(self, sha256: str) -> Iterator[bytes]:
        return verified(_chunks(self._path(sha256)), sha256)

    def fetch(self, sha256: str, folder: Path) -> Path:  # noqa: ARG002  a local blob needs no copy
        for _chunk in self.open(sha256):
            pass
        return self._path(sha256)

    def delete(self, sha256: str) -> None:
        path = self._path(sha256)
        path.unlink(missing_ok=True)
        # Without this a power cut could restore the file after its row is gone.
        if path.parent.exists():
            _sync(path.parent)

    def check(self) -> None:
        probe = self._incoming / f"ready-{secrets.token_hex(8)}"
        try:
            with full_disk_named():
                probe.touch(mode=0o600)
                probe.unlink()
        except OSError as error:
            detail = f"The blob store cannot be written: {error.strerror}."
            raise StorageUnavailable(detail) from error

    def sweep(self, older_than_s: float = FORGOTTEN) -> None:
        for left in self._incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):
                # Files carry times of the wall clock, which is never set back by a day.
                if time.time() - left.stat().st_mtime > older_than_s:
                    left.unlink()

    def _path(self, sha256: str) -> Path:
        check_digest(sha256)
        return self._blobs / sha256[:2] / sha256

    def _publish(self, temporary: Path, final: Path) -> None:
        final.parent.mkdir(exist_ok=True, mode=0o700)
        # Replacing an equal blob is harmless, and repairs a damaged one.
        temporary.replace(final)
        _sync(final.parent)
        if final.parent not in self._durable:
            # Another writer may have made the folder and not synced it yet.
            _sync(self._blobs)
            self._durable.add(final.parent)


class Scratch:
    """Makes temporary folders below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Give an empty folder that is removed after the block."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder = Path(tempfile.mkdtemp(dir=self.root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def read_blob(blobs: BlobStore, sha256: str) -> bytes:
    """Return all bytes of a blob, verified."""
    return b"".join(blobs.open(sha256))


def begun(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Read the first chunk now, so that an unreadable blob is an error before the response begins.

    Damage in a later chunk ends the response early: its last chunk is missing.
    """
    return itertools.chain([next(chunks)], chunks)


def digest_of(path: Path) -> tuple[str, int]:
    """Return the SHA-256 and the size of a file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


# ---- checks that every store shares -------------------------------------------------------------


def check_digest(sha256: str) -> None:
    """Raise ValueError unless this is a digest, because it becomes part of a path."""
    if not DIGEST.fullmatch(sha256):
        raise ValueError(f"not a SHA-256: {sha256!r}")


def check_unchanged(digest: str, wanted: str | None) -> None:
    if wanted is not None and digest != wanted:
        raise BlobCorrupt(f"The bytes of {wanted} changed before they were stored.")


def verified(chunks: Iterable[bytes], sha256: str) -> Iterator[bytes]:
    """Yield the chunks, the last only if the digest matches: damage never looks complete."""
    found, held = hashlib.sha256(), b""
    for chunk in chunks:
        found.update(chunk)
        if held:
            yield held
        held = chunk
    if found.hexdigest() != sha256:
        raise BlobCorrupt(f"The stored bytes {sha256} are damaged.")
    yield held


@contextmanager
def full_disk_named() -> Iterator[None]:
    """Turn the error of a full disk into StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull from error
        raise


# ---- files --------------------------------------------------------------------------------------


def _chunks(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                yield chunk
    except FileNotFoundError as error:
        raise BlobMissing(f"The stored bytes {path.name} are missing.") from error
    except OSError as error:
        if error.errno == errno.EIO:  # the disk has lost them
            raise BlobCorrupt(f"The stored bytes {path.name} cannot be read.") from error
        raise


def _copy(source: Path, target: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
        while chunk := reader.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            writer.write(chunk)
        writer.flush()
        os.fsync(writer.fileno())
    return digest.hexdigest(), size


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents, and sync each new entry to disk."""
    if not folder.exists():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True, mode=0o700)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    """Make a file or the entries of a folder durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
