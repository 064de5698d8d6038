"""Blobs in S3-compatible storage, and `open_store`, which chooses between a bucket and a folder.

The key of an object is `<prefix>/sha256/<digest>`, and only our own digest proves its bytes. Every
request has a time limit, so that an outage is an error and never a hang.
"""

import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from service.errors import StorageUnavailable
from service.settings import Settings
from service.storage.blobs import (
    FORGOTTEN,
    BlobMissing,
    BlobStore,
    LocalBlobs,
    check_digest,
    check_unchanged,
    digest_of,
    full_disk_named,
    verified,
)

PART = 8 * 1024 * 1024  # bytes of one request; S3 takes 10 000 parts, so 80 GB at most
PARTS_AT_ONCE = 2  # parts of one upload: more would share the bandwidth and miss their deadlines
REGION = "us-east-1"  # the default of S3
BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9_=.-]+)*)/?")


def open_store(settings: Settings) -> BlobStore:
    """Return the store, and make its folder. S3 reads its keys and region from AWS_… variables.

    Raises ValueError for a `blob_url` that names neither a folder nor a bucket.
    """
    if folder := settings.blob_dir:
        return LocalBlobs(folder)
    found = BUCKET.fullmatch(settings.blob_url)
    if found is None or {".", ".."} & set(found[2].split("/")):
        raise ValueError(
            f"blob_url must be file:///folder or s3://bucket/prefix, got {settings.blob_url!r}"
        )
    return S3Blobs(found[1], found[2].strip("/"), os.environ)


@dataclass(frozen=True)
class Patience:
    """The time limits of requests, after which the storage counts as unavailable."""

    connect_s: float = 2.0
    #: one request: a part of 8 MiB needs 7 Mbit/s
    request_s: float = 10.0
    retries: int = 2
    #: no retry begins later than this after the first try
    retry_s: float = 5.0


class S3Blobs:
    """Blobs in a bucket. Never fork a process that has used one: the child lacks its threads."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        environment: Mapping[str, str],
        patience: Patience | None = None,
    ) -> None:
        patience = patience or Patience()
        endpoint = environment.get("AWS_ENDPOINT_URL")
        named = {
            "access_key_id": environment.get("AWS_ACCESS_KEY_ID"),
            "secret_access_key": environment.get("AWS_SECRET_ACCESS_KEY"),
            "session_token": environment.get("AWS_SESSION_TOKEN"),
            "endpoint": endpoint,
        }
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or REGION
        self._store = S3Store(
            bucket,
            prefix=prefix or None,
            region=region,
            client_options={
                "allow_http": bool(endpoint and endpoint.startswith("http://")),
                "connect_timeout": timedelta(seconds=patience.connect_s),
                "timeout": timedelta(seconds=patience.request_s),
            },
            retry_config={
                "max_retries": patience.retries,
                "retry_timeout": timedelta(seconds=patience.retry_s),
            },
            **{name: value for name, value in named.items() if value},  # type: ignore[arg-type]
        )

    def put(self, path: Path, sha256: str | None = None) -> tuple[str, int]:
        if sha256 is not None:
            check_digest(sha256)
        if path.stat().st_size > PART:
            return self._put_parts(path, sha256)
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        check_unchanged(digest, sha256)
        with _answering():
            self._create(_key(digest), content)
        return digest, len(content)

    def take(self, path: Path, sha256: str) -> None:
        self.put(path, sha256)

    def open(self, sha256: str) -> Iterator[bytes]:
        check_digest(sha256)
        return verified(self._parts(sha256), sha256)

    def fetch(self, sha256: str, folder: Path) -> Path:
        check_digest(sha256)
        temporary, final = folder / f".{secrets.token_hex(16)}", folder / sha256
        try:
            with full_disk_named():
                with temporary.open("xb") as file:
                    file.writelines(self.open(sha256))
                temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)
        return final

    def delete(self, sha256: str) -> None:
        check_digest(sha256)
        with _answering():
            obstore.delete(self._store, _key(sha256))

    def check(self) -> None:
        with _answering():
            next(iter(obstore.list(self._store, chunk_size=1)), None)

    def sweep(self, older_than_s: float = FORGOTTEN) -> None:
        """Do nothing: a rule of the bucket removes the parts of unfinished uploads."""

    def _create(self, key: str, content: bytes) -> None:
        """Put an object if it is missing; replace one of another size, which is damaged."""
        try:
            obstore.put(self._store, key, content, mode="create", use_multipart=False)
        except AlreadyExistsError:
            if self._size(key) != len(content):
                obstore.put(self._store, key, content, use_multipart=False)

    def _put_parts(self, path: Path, sha256: str | None) -> tuple[str, int]:
        digest, size = digest_of(path)
        check_unchanged(digest, sha256)
        key = _key(digest)
        with _answering():
            # A multipart upload has no condition "only if missing", but replacing an object by an
            # equal one is harmless.
            if self._size(key) != size:
                obstore.put(
                    self._store,
                    key,
                    _read_parts(path, digest),
                    use_multipart=True,
                    chunk_size=PART,
                    max_concurrency=PARTS_AT_ONCE,
                )
        return digest, size

    def _size(self, key: str) -> int | None:
        try:
            return obstore.head(self._store, key)["size"]
        except FileNotFoundError:  # obstore's error for a missing object
            return None

    def _parts(self, sha256: str) -> Iterator[bytes]:
        """Yield the object in parts, each small enough for the deadline of a request."""
        key = _key(sha256)
        with _answering():
            size = self._size(key)
        if size is None:
            self.check()  # raises if the bucket is missing or does not answer
            raise BlobMissing(f"The stored bytes {sha256} are missing.")
        for start in range(0, size, PART):
            with _answering():
                end = min(start + PART, size)
                part = bytes(obstore.get_range(self._store, key, start=start, end=end))
            yield part


def _key(sha256: str) -> str:
    return f"sha256/{sha256}"


def _read_parts(path: Path, sha256: str) -> Iterator[bytes]:
    """Yield a file; raise if it has changed, which aborts the upload before the object appears."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(PART):
            found.update(part)
            yield part
    check_unchanged(found.hexdigest(), sha256)


@contextmanager
def _answering() -> Iterator[None]:
    """Turn every error of the storage into StorageUnavailable, after which callers try again."""
    try:
        yield
    except (BaseError, FileNotFoundError) as error:  # the latter if the bucket is missing
        raise StorageUnavailable from error
