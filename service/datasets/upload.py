"""Receives an upload, stores its bytes as a blob, and queues the job that parses them.

The body is raw, multipart or gzip-compressed, and is read in bounded memory. The bytes are hashed
on their way into one scratch file; no other copy is made before the blob.
"""

import asyncio
import errno
import hashlib
import re
import shutil
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from anyio import CancelScope
from anyio.to_thread import run_sync
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from descent.schemas import DatasetPatch
from models.failpoints import reach
from service.datasets.charsets import charset_of
from service.datasets.formats import GZIP, declared_format, format_of
from service.datasets.messages import JSON, MULTIPART, NDJSON, TYPED, XLSX, ZIP
from service.datasets.preview import changed
from service.datasets.versions import Dataset, Parse, ready_version
from service.errors import BadRequest, Invalid, StorageFull, TooLarge, UnsupportedMedia
from service.jobs import life
from service.storage import references
from service.storage.blobs import BlobStore
from service.storage.columns import new_id
from service.storage.database import writing

MIB = 1024 * 1024
WRITE = MIB  # bytes of one write to disk
RATIO_GRACE = 10 * MIB  # decompressed bytes before the limit of the ratio applies
MAX_HEADER = 8 * 1024  # bytes of a part's headers
LEFTOVER = 24 * 3600.0  # seconds; every upload and every parse takes less
MAX_NAME = 256  # characters of a dataset's name
#: A file of at most so many bytes and columns is small: its parse takes well below a second.
SMALL_BYTES = 1024 * 1024
SMALL_COLUMNS = 100
_KEY = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:')


@dataclass(frozen=True)
class Bounds:
    """The limits of an upload."""

    max_bytes: int
    max_json_bytes: int
    max_ratio: int
    #: free bytes that the disk must keep
    spare_bytes: int


@dataclass
class Received:
    """The received file in the scratch folder."""

    path: Path
    sha256: str = ""
    size: int = 0
    #: empty until the first bytes tell it, if the client does not
    media_type: str = ""
    #: the `charset` of the content type
    charset: str = ""
    #: the name that the client gives the file; it is shown and never opened
    filename: str = ""
    _digest: "hashlib._Hash" = field(default_factory=hashlib.sha256, repr=False)


def name_of(filename: str) -> str:
    """Return a dataset's name from a file's, without folders and unprintable characters."""
    name = PurePosixPath(filename.replace("\\", "/"))
    stem = name.with_suffix("").stem if name.suffix.lower() == ".gz" else name.stem
    shown = "".join(character for character in stem if character.isprintable()).strip()
    return shown[:MAX_NAME] or "dataset"


def remove_leftovers(folder: Path, older_than_s: float = LEFTOVER) -> None:
    """Remove the scratch folders of processes that were killed."""
    if folder.is_dir():
        for each in folder.iterdir():
            with suppress(OSError):  # another process may remove it meanwhile
                if time.time() - each.stat().st_mtime > older_than_s:
                    shutil.rmtree(each, ignore_errors=True)


async def receive(
    chunks: AsyncIterator[bytes], headers: dict[str, str], path: Path, bounds: Bounds
) -> Received:
    """Write the file in the body to `path`; return its size, digest, format and name."""
    received = Received(path)
    content_type = headers.get("content-type", "")
    is_form = content_type.partition(";")[0].strip().lower() == MULTIPART
    if not is_form:
        received.filename = headers.get("x-filename", "")
        received.media_type = declared_format(content_type, received.filename)
        received.charset = charset_of(content_type)
    _check_length(headers.get("content-length", ""), received, bounds)
    decode = _decoder(headers.get("content-encoding", "identity"), bounds)
    form = _Form(content_type, received) if is_form else None
    unpack = _MaybeGzip(bounds)
    with _Sink(received, bounds) as file:
        async with _Behind(file) as sink:
            held = bytearray()
            async for chunk in chunks:
                for piece in decode.feed(chunk):
                    for plain in unpack.feed(form.feed(piece) if form else piece):
                        held += plain
                        if len(held) >= WRITE:
                            await sink.write(bytes(held))
                            held.clear()
            decode.finish()
            if form:
                form.finish()
            held += unpack.rest()
            await sink.write(bytes(held))
    received.sha256 = received._digest.hexdigest()  # noqa: SLF001  kept out of repr only
    return received


def _check_length(announced: str, received: Received, bounds: Bounds) -> None:
    most = _most(received, bounds)
    if announced.isdigit() and (len(announced) > 18 or int(announced) > most + MIB):
        raise _too_large(received, bounds)


def _most(received: Received, bounds: Bounds) -> int:
    return bounds.max_json_bytes if received.media_type == JSON else bounds.max_bytes


def _too_large(received: Received, bounds: Bounds) -> TooLarge:
    most = _most(received, bounds)
    setting = "MAX_JSON_TABLE_BYTES" if received.media_type == JSON else "MAX_UPLOAD_BYTES"
    return TooLarge(
        f"The file is larger than {most} bytes: send less, or raise DESCENT_{setting}.",
        limit=most,
    )


def check_disk(folder: Path, spare_bytes: int) -> None:
    if shutil.disk_usage(folder).free < spare_bytes:
        raise StorageFull


class _Sink:
    """The scratch file."""

    def __init__(self, received: Received, bounds: Bounds) -> None:
        self._received, self._bounds = received, bounds
        self._file = received.path.open("xb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._file.close()  # writes the rest of its buffer
        except OSError as failure:
            raise _named(failure) from failure

    def write(self, data: bytes) -> None:
        received = self._received
        if not received.size:
            received.media_type = format_of(data, received.media_type)
        received.size += len(data)
        if received.size > _most(received, self._bounds):
            raise _too_large(received, self._bounds)
        check_disk(received.path.parent, self._bounds.spare_bytes)
        received._digest.update(data)  # noqa: SLF001  kept out of repr only
        try:
            self._file.write(data)
        except OSError as failure:
            raise _named(failure) from failure


class _Behind:
    """Writes to a sink in a thread, while the next bytes arrive."""

    def __init__(self, sink: _Sink) -> None:
        self._sink = sink
        self._last: asyncio.Task[None] | None = None

    async def write(self, data: bytes) -> None:
        """Begin to write, once the bytes before are written. Raises their error."""
        await self._written()
        self._last = asyncio.create_task(run_sync(self._sink.write, data))

    async def _written(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            await last

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            await self._written()
        elif self._last is not None:
            with CancelScope(shield=True):  # the sink must not be closed while a thread writes
                await asyncio.gather(self._last, return_exceptions=True)


def _named(failure: OSError) -> Exception:
    return StorageFull() if failure.errno in {errno.ENOSPC, errno.EDQUOT} else failure


class _Plain:
    """Passes bytes on unchanged."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def finish(self) -> None:
        return


class _Gzip(_Plain):
    """Decompresses gzip members, in pieces of bounded size."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._inflate = zlib.decompressobj(wbits=31)
        self._read = self._made = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._read += len(data)
        while data:
            if self._inflate.eof:
                self._inflate = zlib.decompressobj(wbits=31)
            try:
                piece = self._inflate.decompress(data, MIB)
            except zlib.error as error:
                raise _broken_gzip() from error
            self._made += len(piece)
            if self._made > RATIO_GRACE and self._made > self._bounds.max_ratio * self._read:
                raise TooLarge(
                    f"The body inflates to more than {self._bounds.max_ratio} times its size:"
                    " send it uncompressed, or raise DESCENT_MAX_GZIP_RATIO.",
                    code="gzip_ratio",
                )
            yield piece
            data = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail

    def finish(self) -> None:
        if not self._inflate.eof:
            raise _broken_gzip()


class _MaybeGzip:
    """Decompresses a file that begins like gzip, and passes any other on unchanged."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._head = b""
        self._decode: _Plain | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._decode is None:
            self._head += data
            if len(self._head) < len(GZIP):
                return
            self._decode = _Gzip(self._bounds) if self._head.startswith(GZIP) else _Plain()
            data, self._head = self._head, b""
        yield from self._decode.feed(data)

    def rest(self) -> bytes:
        """Return what is left at the end of the file. Raises BadRequest if gzip is cut off."""
        if self._decode is not None:
            self._decode.finish()
        return self._head


def _broken_gzip() -> BadRequest:
    return BadRequest(
        "The body is not gzip, or it is cut off: compress the file again.", code="malformed_gzip"
    )


def _decoder(encoding: str, bounds: Bounds) -> _Plain:
    name = encoding.strip().lower()
    if name in {"", "identity"}:
        return _Plain()
    if name in {"gzip", "x-gzip"}:
        return _Gzip(bounds)
    raise UnsupportedMedia(f"Content-Encoding must be gzip or absent, got {encoding[:40]!r}.")


class _Form:
    """Reads the only field of a multipart body, `file`."""

    def __init__(self, content_type: str, received: Received) -> None:
        _kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not 1 <= len(boundary) <= 200:
            raise BadRequest(
                "The multipart body has no boundary in its content type.",
                code="malformed_multipart",
            )
        self._received = received
        self._out = bytearray()
        self._name = self._value = b""
        self._part: dict[bytes, bytes] = {}
        self._header_bytes = self._files = 0
        self._is_over = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_name,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> bytes:
        try:
            self._parser.write(data)
        except MultipartParseError as error:
            raise BadRequest(
                "The multipart body is malformed.", code="malformed_multipart"
            ) from error
        out = bytes(self._out)
        self._out.clear()
        return out

    def finish(self) -> None:
        if not self._is_over:
            raise BadRequest("The multipart body is cut off.", code="malformed_multipart")
        if not self._files:
            raise _one_file()

    def _begin(self) -> None:
        self._part, self._header_bytes = {}, 0
        if self._files:
            raise _one_file()

    def _on_name(self, data: bytes, start: int, end: int) -> None:
        self._name += self._counted(data[start:end])

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._counted(data[start:end])

    def _counted(self, data: bytes) -> bytes:
        self._header_bytes += len(data)
        if self._header_bytes > MAX_HEADER:
            raise BadRequest(
                f"The headers of a part are longer than {MAX_HEADER} bytes.",
                code="malformed_multipart",
            )
        return data

    def _on_header(self) -> None:
        self._part[self._name.lower()] = self._value
        self._name = self._value = b""

    def _on_headers(self) -> None:
        _kind, options = parse_options_header(self._part.get(b"content-disposition", b""))
        if options.get(b"name") != b"file":
            raise _one_file()
        self._files += 1
        self._received.filename = options.get(b"filename", b"").decode("utf-8", "replace")
        content_type = self._part.get(b"content-type", b"").decode("latin-1")
        self._received.media_type = declared_format(content_type, self._received.filename)
        self._received.charset = charset_of(content_type)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._out += data[start:end]

    def _end(self) -> None:
        self._is_over = True


def _one_file() -> Invalid:
    return Invalid("Send one field called `file`, and nothing else.", code="invalid_form")


# ---- accepting ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Upload:
    """An upload: the file, its options, the name of the dataset, and the caller."""

    name: str
    received: Received
    #: the fields of `ReadOptions` that the client gives
    options: dict[str, Any]
    caller: str


def accept(
    engine: Engine, blobs: BlobStore, upload: Upload, note: Callable[[Session, Dataset], None]
) -> Parse:
    """Store the bytes and queue their parse. The received file is gone afterwards.

    `note` writes further rows in the same transaction.
    """
    received = upload.received
    reach("ingest.received")
    is_small = _is_small(received.path, received.size, received.media_type)
    with (
        references.taken(engine, blobs, received.path, received.sha256) as held,
        writing(engine) as session,
    ):
        reach("ingest.stored")
        dataset = Dataset(
            id=new_id("ds"),
            name=upload.name,
            state="ingesting",
            media_type=received.media_type,
            sha256=received.sha256,
            bytes=received.size,
            options=upload.options,
        )
        session.add(dataset)
        session.flush()
        parse = Parse(
            id=new_id(Parse.prefix),
            dataset_id=dataset.id,
            version=1,
            options=upload.options,
            caller=upload.caller,
            is_small=is_small,
        )
        life.enqueue(session, parse)
        note(session, dataset)
        references.keep(session, held)
    reach("ingest.accepted")
    return parse


def reread(engine: Engine, dataset_id: str, patch: DatasetPatch, caller: str) -> Parse | None:
    """Queue another parse of the bytes, read in another way, as the next version.

    Returns None if the change asks for the present reading. Raises Invalid.
    """
    with writing(engine) as session:
        current = ready_version(session, dataset_id, None)
        dataset = session.get_one(Dataset, dataset_id)
        options = changed(current, patch)
        if options is None:
            return None
        is_narrow = len(current.columns) <= SMALL_COLUMNS
        parse = Parse(
            id=new_id(Parse.prefix),
            dataset_id=dataset_id,
            version=current.version + 1,
            options=options,
            caller=caller,
            is_small=(dataset.bytes or 0) <= SMALL_BYTES and is_narrow,
        )
        return life.enqueue(session, parse)


def _is_small(path: Path, size: int, media_type: str) -> bool:
    """Estimate from size and width whether a file takes little work; its parser checks that."""
    if size > SMALL_BYTES:
        return False
    if media_type in TYPED | {XLSX, ZIP}:  # only their readers can count their columns
        return True
    content = path.read_bytes()
    if media_type in {JSON, NDJSON}:
        return len(set(_KEY.findall(content))) <= SMALL_COLUMNS
    first = content.lstrip().partition(b"\n")[0]
    return max(first.count(delimiter) for delimiter in (b",", b";", b"\t", b"|")) < SMALL_COLUMNS
