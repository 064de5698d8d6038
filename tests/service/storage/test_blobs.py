"""The contract of every blob store: one suite for a folder and for S3."""

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from service.errors import BlobCorrupt, StorageUnavailable
from service.settings import Settings
from service.storage.blobs import CHUNK, BlobMissing, BlobStore, LocalBlobs, read_blob
from service.storage.s3 import PART, Patience, S3Blobs, open_store
from tests.storage import Place

pytestmark = pytest.mark.both_databases

CONTENT = b"the bytes of a checkpoint"
NOTHING = "0" * 64


@pytest.fixture
def store(place: Place) -> BlobStore:
    return place.open()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def put(store: BlobStore, folder: Path, content: bytes = CONTENT) -> str:
    file = folder / "given"
    file.write_bytes(content)
    return store.put(file)[0]


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, PART, PART + 1])
def test_what_is_put_can_be_read(store: BlobStore, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    file = tmp_path / "given"
    file.write_bytes(content)
    assert store.put(file, digest(content)) == (digest(content), size)
    assert read_blob(store, digest(content)) == content
    assert store.fetch(digest(content), tmp_path).read_bytes() == content
    assert file.read_bytes() == content


@pytest.mark.parametrize("size", [0, 1, PART + 1])
def test_a_file_that_is_taken_can_be_read(store: BlobStore, tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    file = tmp_path / "given"
    for _ in range(2):
        file.write_bytes(content)
        store.take(file, digest(content))
        assert read_blob(store, digest(content)) == content


def test_a_taken_file_is_moved_into_a_folder(tmp_path: Path) -> None:
    place = Place(f"file://{tmp_path}/blobs")
    file = tmp_path / "given"
    file.write_bytes(CONTENT)
    number = file.stat().st_ino
    place.open().take(file, digest(CONTENT))
    assert not file.exists()
    (blob,) = (path for path in (tmp_path / "blobs" / "sha256").rglob("*") if path.is_file())
    assert (blob.stat().st_ino, blob.stat().st_mode & 0o777) == (number, 0o600)


def test_putting_twice_changes_nothing(store: BlobStore, place: Place, tmp_path: Path) -> None:
    assert put(store, tmp_path) == put(store, tmp_path)
    assert place.names() == {digest(CONTENT)}


@pytest.mark.parametrize("size", [100, PART + 100])
def test_bytes_that_are_not_the_named_ones_are_not_stored(
    store: BlobStore, place: Place, tmp_path: Path, size: int
) -> None:
    file = tmp_path / "given"
    file.write_bytes(b"x" * size)
    with pytest.raises(BlobCorrupt, match="changed"):
        store.put(file, digest(b"other"))
    assert place.names() == set()


@given(st.integers(0, 8 * len(CONTENT) - 1))
@hypothesis_settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_flipped_bit_is_found_on_every_read(
    store: BlobStore, place: Place, tmp_path: Path, bit: int
) -> None:
    sha256 = put(store, tmp_path) if not place.names() else digest(CONTENT)
    flipped = bytearray(CONTENT)
    flipped[bit // 8] ^= 1 << bit % 8
    place.write(sha256, bytes(flipped))
    assert_damaged(store, sha256, tmp_path)


@pytest.mark.parametrize("change", ["emptied", "cut", "headless", "longer", "doubled"])
def test_lost_and_added_bytes_are_found(
    store: BlobStore, place: Place, tmp_path: Path, change: str
) -> None:
    content = os.urandom(2 * CHUNK)
    damaged = {
        "emptied": b"",
        "cut": content[:-1],
        "headless": content[1:],
        "longer": content + b"\0",
        "doubled": content + content,
    }
    sha256 = put(store, tmp_path, content)
    place.write(sha256, damaged[change])
    assert_damaged(store, sha256, tmp_path)


def assert_damaged(store: BlobStore, sha256: str, folder: Path) -> None:
    with pytest.raises(BlobCorrupt):
        read_blob(store, sha256)
    with pytest.raises(BlobCorrupt):
        store.fetch(sha256, folder)
    assert not (folder / sha256).exists()


def test_a_reader_of_a_damaged_blob_never_gets_its_end(
    store: BlobStore, place: Place, tmp_path: Path
) -> None:
    content = os.urandom(2 * PART + 5)
    sha256 = put(store, tmp_path, content)
    place.write(sha256, content[:10] + b"?" + content[11:])
    received: list[bytes] = []
    with pytest.raises(BlobCorrupt):
        received.extend(store.open(sha256))
    assert sum(map(len, received)) < len(content)


def test_a_put_mends_what_has_lost_bytes(store: BlobStore, place: Place, tmp_path: Path) -> None:
    for content in (CONTENT, os.urandom(PART + 1)):
        sha256 = put(store, tmp_path, content)
        place.write(sha256, content[:-1])
        put(store, tmp_path, content)
        assert read_blob(store, sha256) == content


def test_a_put_to_a_folder_mends_a_flipped_bit_too(tmp_path: Path) -> None:
    place = Place(f"file://{tmp_path}/blobs")
    sha256 = put(place.open(), tmp_path)
    place.write(sha256, CONTENT.swapcase())
    put(place.open(), tmp_path)
    assert place.read(sha256) == CONTENT


def test_what_is_not_there_is_missing(store: BlobStore, tmp_path: Path) -> None:
    with pytest.raises(BlobMissing):
        read_blob(store, NOTHING)
    with pytest.raises(BlobMissing):
        store.fetch(NOTHING, tmp_path)


def test_a_deleted_blob_is_gone_and_can_be_put_again(
    store: BlobStore, place: Place, tmp_path: Path
) -> None:
    sha256 = put(store, tmp_path)
    store.delete(sha256)
    assert place.names() == set()
    with pytest.raises(BlobMissing):
        read_blob(store, sha256)
    store.delete(sha256)
    put(store, tmp_path)
    assert read_blob(store, sha256) == CONTENT


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_name_that_is_no_digest_never_becomes_a_path(
    store: BlobStore, place: Place, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "given"
    file.write_bytes(CONTENT)
    uses: tuple[Callable[[], object], ...] = (
        lambda: store.open(name),
        lambda: store.fetch(name, tmp_path),
        lambda: store.delete(name),
        lambda: store.put(file, name),
        lambda: store.take(file, name),
    )
    for use in uses:
        with pytest.raises(ValueError, match="not a SHA-256"):
            use()
    assert place.names() == set()


def test_many_writers_of_the_same_bytes_all_succeed(
    store: BlobStore, place: Place, tmp_path: Path
) -> None:
    file = tmp_path / "given"
    file.write_bytes(CONTENT)
    start = threading.Barrier(8)

    def write(_number: int) -> str:
        start.wait()
        return store.put(file)[0]

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(write, range(8))) == {digest(CONTENT)}
    assert place.names() == {digest(CONTENT)}
    assert read_blob(store, digest(CONTENT)) == CONTENT


def test_a_store_that_works_passes_its_check(store: BlobStore) -> None:
    store.check()


# ---- a folder -------------------------------------------------------------------------------


def test_only_what_was_left_behind_long_ago_is_swept(tmp_path: Path) -> None:
    store = LocalBlobs(tmp_path / "blobs")
    old, new = tmp_path / "blobs" / "incoming" / "old", tmp_path / "blobs" / "incoming" / "new"
    for file in (old, new):
        file.write_bytes(b"half a blob")
    long_ago = time.time() - 25 * 3600
    os.utime(old, (long_ago, long_ago))
    store.sweep()
    assert not old.exists()
    assert new.exists()


def test_an_interrupted_put_leaves_nothing_visible(tmp_path: Path) -> None:
    store = LocalBlobs(tmp_path / "blobs")
    with pytest.raises(FileNotFoundError):
        store.put(tmp_path / "nothing")
    assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []


# ---- S3 that does not answer ----------------------------------------------------------------


class Broken(BaseHTTPRequestHandler):
    """Answers everything with 503."""

    def handle_one_request(self) -> None:
        self.rfile.readline()
        self.wfile.write(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n")
        self.close_connection = True

    def log_message(self, *_arguments: object) -> None: ...


@pytest.fixture(params=["refuses", "is silent", "fails", "has no bucket"])
def outage(request: pytest.FixtureRequest, s3_url: str) -> Iterator[S3Blobs]:
    """Return a store that does not work, in one of four ways."""
    environment = dict(os.environ)
    with socket.socket() as listener, ThreadingHTTPServer(("127.0.0.1", 0), Broken) as broken:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        if request.param == "is silent":
            listener.listen()
        if request.param == "fails":
            port = broken.server_port
            threading.Thread(target=broken.serve_forever, daemon=True).start()
        if request.param != "has no bucket":
            environment["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
        patience = Patience(connect_s=0.3, request_s=0.3, retries=1, retry_s=0.3)
        yield S3Blobs("nowhere", "", environment, patience)
        if request.param == "fails":
            broken.shutdown()


@pytest.mark.parametrize("size", [10, PART + 10])
def test_an_outage_is_told_soon_and_is_no_damage(
    outage: S3Blobs, tmp_path: Path, size: int
) -> None:
    file = tmp_path / "given"
    file.write_bytes(b"x" * size)
    uses: tuple[Callable[[], object], ...] = (
        lambda: outage.put(file),
        lambda: read_blob(outage, NOTHING),
        lambda: outage.fetch(NOTHING, tmp_path),
        lambda: outage.delete(NOTHING),
        outage.check,
    )
    for use in uses:
        began = time.monotonic()
        with pytest.raises(StorageUnavailable) as caught:
            use()
        assert time.monotonic() - began < 5
        assert (caught.value.status, caught.value.code) == (503, "storage_unavailable")
        assert caught.value.headers["Retry-After"]


# ---- the choice of a store ------------------------------------------------------------------


def test_the_url_names_the_store(tmp_path: Path, s3_url: str) -> None:
    assert isinstance(open_store(Settings(data_dir=tmp_path)), LocalBlobs)
    assert isinstance(open_store(Settings(blob_url=f"file://{tmp_path}/b")), LocalBlobs)
    for url in (s3_url, f"{s3_url}/", f"{s3_url}/some/prefix"):
        assert isinstance(open_store(Settings(blob_url=url)), S3Blobs)


@pytest.mark.parametrize(
    "url",
    ["s3://x", "s3://", "s3://bucket/../other", "s3://Bucket", "http://x/y", "file://a", "/x"],
)
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="blob_url must be file:///folder or s3://bucket/prefix"):
        open_store(Settings(blob_url=url))
