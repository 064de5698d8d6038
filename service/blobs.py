"""Blobs: immutable bytes named by their SHA-256, verified on every read.

`put` is atomic and durable: a blob is either absent or complete, whatever is killed meanwhile.
"""

import contextlib
import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from service.errors import BlobCorrupt, StorageFull

CHUNK = 1024 * 1024  # bytes that are read and hashed at a time
DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobMissing(BlobCorrupt):
    """The bytes are not in the store."""


class BlobStore(Protocol):
    """Where blobs live."""

    def put(self, path: Path, sha256: str | None = None) -> tuple[str, int]:
        """Store a file; return its digest and size. The file itself is left alone."""
        ...

    def open(self, sha256: str) -> Iterator[bytes]:
        """Yield the bytes; raise BlobCorrupt at the end where they do not match the digest."""
        ...

    def fetch(self, sha256: str, folder: Path) -> Path:
        """Return a local file with the verified bytes; it may be shared, so never write to it."""
        ...


class LocalBlobs:
    """Blobs in a folder: `sha256/ab/abcdef…`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, path: Path, sha256: str | None = None) -> tuple[str, int]:
        temporary = self._incoming / secrets.token_hex(16)
        try:
            with _full_disk_named():
                digest, size = _copy(path, temporary)
                if sha256 is not None and digest != sha256:
                    raise BlobCorrupt(f"{size} bytes changed while they were stored")
                self._publish(temporary, self._path(digest))
        finally:
            temporary.unlink(missing_ok=True)
        return digest, size

    def open(self, sha256: str) -> Iterator[bytes]:
        path = self._path(sha256)
        found = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):
                    found.update(chunk)
                    yield chunk
        except FileNotFoundError as error:
            raise BlobMissing(f"The stored bytes {sha256} are missing.") from error
        if found.hexdigest() != sha256:
            raise BlobCorrupt(f"The stored bytes {sha256} are damaged.")

    def fetch(self, sha256: str, folder: Path) -> Path:  # noqa: ARG002  a local blob needs no copy
        for _chunk in self.open(sha256):
            pass
        return self._path(sha256)

    def _path(self, sha256: str) -> Path:
        # The digest becomes part of a path, so nothing but 64 hex digits may pass.
        if not DIGEST.fullmatch(sha256):
            raise ValueError(f"not a SHA-256: {sha256!r}")
        return self._root / "sha256" / sha256[:2] / sha256

    def _publish(self, temporary: Path, final: Path) -> None:
        final.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Replacing an equal blob is harmless and mends a damaged one.
        temporary.replace(final)
        for folder in (final.parent, final.parent.parent):
            _sync_folder(folder)


def read_blob(blobs: BlobStore, sha256: str) -> bytes:
    """Return all bytes of a blob, verified."""
    return b"".join(blobs.open(sha256))


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


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _full_disk_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFull from error
        raise
