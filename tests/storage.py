"""Blob stores for tests: a folder, and a bucket of a small S3 server, with a way around both."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import obstore
import pytest
from moto.server import ThreadedMotoServer
from obstore.store import S3Store

from service.settings import Settings
from service.storage.blobs import BlobStore
from service.storage.s3 import open_store

BUCKET = "descent-tests"
KINDS = ("local", "s3")


@contextlib.contextmanager
def running_s3() -> Iterator[str]:
    """Run an S3 server with one bucket; the AWS_… variables name it. Yields the bucket's URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", endpoint)
        environment.setenv("AWS_ACCESS_KEY_ID", "tests")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        environment.setenv("AWS_REGION", "us-east-1")
        httpx.put(f"{endpoint}/{BUCKET}").raise_for_status()
        yield f"s3://{BUCKET}"
    server.stop()


@dataclass(frozen=True)
class Place:
    """The place of a test's blobs: `url` is the value of DESCENT_BLOB_URL."""

    url: str

    def open(self) -> BlobStore:
        return open_store(Settings(blob_url=self.url))

    def names(self) -> set[str]:
        """Return the digests of the stored blobs."""
        if folder := self._folder():
            return {path.name for path in folder.glob("sha256/*/*")}
        pages = obstore.list(self._bucket(), "sha256")
        return {str(found["path"]).rpartition("/")[2] for page in pages for found in page}

    def read(self, sha256: str) -> bytes:
        if folder := self._folder():
            return (folder / "sha256" / sha256[:2] / sha256).read_bytes()
        return bytes(obstore.get(self._bucket(), f"sha256/{sha256}").bytes())

    def write(self, sha256: str, content: bytes) -> None:
        """Replace the bytes of a blob, as a failing disk does."""
        if folder := self._folder():
            (folder / "sha256" / sha256[:2] / sha256).write_bytes(content)
        else:
            obstore.put(self._bucket(), f"sha256/{sha256}", content)

    def _folder(self) -> Path | None:
        return Path(self.url.removeprefix("file://")) if self.url.startswith("file:") else None

    def _bucket(self) -> S3Store:
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        return S3Store(bucket, prefix=prefix, client_options={"allow_http": True})
