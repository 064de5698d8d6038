"""Other ways to read a dataset: the options of a change, and the first rows as it would give them.

A change is merged into the options of the newest version. A preview parses the beginning of the
file in a confined process, and makes no version.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any

from descent.schemas import ColumnOverride, DatasetPatch
from models.reading import DATE_FORMS, UNITS
from service.datasets import rejected, sandbox
from service.datasets.charsets import ENCODINGS, encoding_named
from service.datasets.messages import CSV, NDJSON, TSV, ColumnOptions, ReadOptions
from service.datasets.rejected import Rejected
from service.datasets.sandbox import Limits, Task
from service.datasets.versions import Dataset, DatasetVersion
from service.errors import Busy, TooLarge, invalid_at
from service.settings import Settings
from service.storage.blobs import BlobStore

HEAD = 1024 * 1024  # bytes of a text file that a preview reads
MOST = 64 * 1024 * 1024  # bytes of the largest file of another format that a preview reads
TURNS = 2  # previews at the same time: each may take the memory of a parser
PATIENCE_S = 5.0  # seconds that a request waits for its turn
TIMEOUT_S = 30.0  # seconds for one preview
#: formats whose beginning, cut at the end of a line, is a table
LINES = frozenset({CSV, TSV, NDJSON})

Folder = Callable[[], AbstractContextManager[Path]]


# ---- changes ------------------------------------------------------------------------------------


def changed(version: DatasetVersion, patch: DatasetPatch) -> dict[str, Any] | None:
    """Return the options of a version with a change; None if it changes nothing.

    Raises Invalid.
    """
    options = ReadOptions.model_validate(version.options)
    given = patch.reading
    if given is not None and given.model_fields_set:
        file = given.model_dump(exclude_unset=True)
        if file.get("header", "") is None:
            file["header"] = "auto"
        if file.get("encoding"):
            file["encoding"] = known_encoding(file["encoding"], "/reading/encoding")
        options = options.model_copy(update=file | {"columns": {}})
    elif unknown := sorted(set(patch.columns) - {column["name"] for column in version.columns}):
        raise rejected.unknown_columns(unknown)
    types = {column["name"]: column["type"] for column in version.columns}
    columns = dict(options.columns)
    for name, override in patch.columns.items():
        before = columns.get(name, ColumnOptions())
        columns[name] = _merged(name, before, override, types.get(name))
    chosen = {name: each for name, each in columns.items() if each != ColumnOptions()}
    merged = options.model_copy(update={"columns": chosen})
    asks_types_only = given is None and all(
        override.model_dump(exclude_unset=True) in ({}, {"type": types[name]})
        for name, override in patch.columns.items()
    )
    if asks_types_only or merged == ReadOptions.model_validate(version.options):
        return None
    return merged.model_dump(exclude_defaults=True)


def known_encoding(name: str, pointer: str) -> str:
    """Return an encoding as we spell it. Raises Invalid."""
    if (known := encoding_named(name)) is not None:
        return known
    detail = f"The encoding {name[:40]!r} is not known: send one of {', '.join(ENCODINGS)}."
    raise invalid_at(pointer, "not_allowed", detail)


def _merged(
    name: str, before: ColumnOptions, override: ColumnOverride, present: str | None
) -> ColumnOptions:
    if override.unit and override.unit not in UNITS:
        detail = f"The unit {override.unit!r} is not known: send one of {', '.join(UNITS)}."
        raise invalid_at(rejected.pointer("columns", name, "unit"), "invalid_value", detail)
    if override.form and override.form not in DATE_FORMS:
        detail = f"The form {override.form!r} is not known: send one of {', '.join(DATE_FORMS)}."
        raise invalid_at(rejected.pointer("columns", name, "form"), "invalid_value", detail)
    merged = before.model_copy(update=override.model_dump(exclude_unset=True))
    if merged.decimal and merged.decimal == merged.thousands:
        detail = f"The decimal mark and the mark of thousands of {name[:80]!r} must differ."
        raise invalid_at(rejected.pointer("columns", name, "thousands"), "invalid_value", detail)
    if override.type is None and (
        override.decimal or override.unit or override.thousands is not None
    ):
        kind = present if present in {"number", "integer"} and not override.decimal else "number"
        merged = merged.model_copy(update={"type": kind})
    if override.type is None and (override.form or override.day_first is not None):
        merged = merged.model_copy(update={"type": "datetime"})
    return merged


# ---- previews -----------------------------------------------------------------------------------


class Previews:
    """Reads the first rows of datasets, TURNS at the same time. `folder` makes a folder."""

    def __init__(
        self, settings: Settings, folder: Folder, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._folder, self._patience_s = folder, patience_s
        self._turns = BoundedSemaphore(TURNS)
        self._max_columns = settings.max_columns
        self._limits = Limits(
            settings.parse_memory_bytes,
            min(TIMEOUT_S, settings.parse_timeout_s),
            timeout_setting=None,
        )

    def show(
        self, blobs: BlobStore, dataset: Dataset, version: DatasetVersion, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Return columns, warnings, reading and the first rows. Raises what an upload raises."""
        if not self._turns.acquire(timeout=self._patience_s):
            raise Busy("Other previews are being made: try again in a moment.")
        try:
            with self._folder() as folder:
                task = Task(
                    path=str(_beginning(blobs, dataset, version, options, folder)),
                    folder=str(folder),
                    media_type=dataset.media_type,
                    options=options,
                    max_columns=self._max_columns,
                    parser=sandbox.PREVIEW,
                )
                return sandbox.run(task, self._limits)
        except Rejected as refused:
            raise rejected.as_error(refused) from refused
        finally:
            self._turns.release()


def _beginning(
    blobs: BlobStore,
    dataset: Dataset,
    version: DatasetVersion,
    options: dict[str, Any],
    folder: Path,
) -> Path:
    """Return the beginning of a text file, or the whole of another. Raises TooLarge."""
    sha256, size = dataset.sha256 or "", dataset.bytes or 0
    if dataset.media_type not in LINES:
        if size > MOST:
            raise TooLarge(
                f"A preview of such a file reads all of it, and at most {MOST} bytes: change the"
                " dataset without a preview.",
                limit=MOST,
            )
        return blobs.fetch(sha256, folder)
    head = bytearray()
    for chunk in blobs.open(sha256):
        head += chunk
        if len(head) >= HEAD:
            break
    if len(head) < size:
        reading = version.reading or {}
        head = _cut(head[:HEAD], options.get("encoding") or reading.get("encoding") or "utf-8")
    path = folder / "beginning"
    path.write_bytes(head)
    return path


def _cut(head: bytearray, encoding: str) -> bytearray:
    """Return whole lines. A line end within quotes is none."""
    width = 4 if "32" in encoding else 2 if "16" in encoding else 1
    end = last = len(head)
    quotes = head.count(b'"')
    while (end := head.rfind(b"\n", 0, end)) > 0:
        stop = end + width - end % width
        quotes -= head.count(b'"', stop, last)  # each byte once: a file may hold one long cell
        if quotes % 2 == 0:
            return head[:stop]
        last = stop
    return head
