"""The file of a dataset as it was received, read again as text in a confined process.

A table with types does not hold the spelling of its cells, which a model may read in its own way.
Knows no database.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from models.reading import ISO, Reading
from service.datasets import sandbox
from service.datasets.messages import CSV, JSON, NDJSON, TSV, XLSX, ZIP
from service.datasets.rejected import Rejected
from service.datasets.sandbox import TABLE, Limits, Task

PARSER = "service.datasets.parse:parse"
#: formats of which every cell is text
TEXTS = frozenset({CSV, TSV, ZIP})
#: formats of which a cell may be text, or a number, a truth value or a moment
MIXED = frozenset({JSON, NDJSON, XLSX})
NUMBERS = frozenset({"number", "integer"})
TEXTUAL = frozenset({"category", "text", "id"})


class OriginalFile(BaseModel):
    """A file and how to read all its cells as text."""

    task: Task
    limits: Limits
    #: the rows that its dataset version has
    rows: int


def text_options(options: dict[str, Any], names: list[str], header: bool | None) -> dict[str, Any]:  # noqa: FBT001  read from the file
    """Return the options of a version, with text as the type of every column.

    Only texts that the client has named mean missing. `header` is whether the first row names the
    columns, which the others might change.
    """
    columns = options.get("columns") or {}
    others = {name: value for name, value in options.items() if name != "types"}
    if options.get("missing_values") is None:
        others |= {"missing_values": []} | _header(header)
    return others | {
        "columns": {
            name: {"type": "text", "missing": (columns.get(name) or {}).get("missing")}
            for name in names
        },
    }


def with_markers(original: OriginalFile, *, header: bool | None) -> OriginalFile:
    """Return the same file, whose cells stay text even if they mean missing.

    `header` is whether the first row names the columns: the markers might change what is found.
    """
    options = original.task.options
    changed: dict[str, Any] = {
        "missing_values": [],
        "columns": {name: {"type": "text"} for name in options["columns"]},
    }
    task = replace(original.task, options=options | changed | _header(header))
    return original.model_copy(update={"task": task})


def _header(has_header: bool | None) -> dict[str, str]:  # noqa: FBT001  read from the file
    return {} if has_header is None else {"header": "present" if has_header else "absent"}


def read_texts(original: OriginalFile, folder: Path, pulse: Callable[[], None]) -> Path | None:
    """Return a Parquet file in `folder` with all cells as text; None if they cannot be read.

    Calls `pulse` while it waits; an exception of it ends the waiting.
    """
    folder.mkdir(exist_ok=True)
    task = replace(original.task, folder=str(folder), parser=PARSER)
    try:
        found = sandbox.run_in_attempt(task, original.limits, pulse)
    except Rejected:  # the rules of a later version of the program may refuse the file
        return None
    return folder / TABLE if found["rows"] == original.rows else None


def is_certain(stored: Reading) -> bool:
    """Return whether the cells of a mixed column may be values, which have no spelling."""
    if stored.type == "datetime":
        return stored.form == ISO
    return stored.type in NUMBERS and stored.is_plain


def is_spelled_otherwise(wanted: Reading, stored: Reading, named: Collection[str] | None) -> bool:
    """Return whether a column that was read by `stored` has to be read again by `wanted`.

    Text is not, since it still holds the spelling of its cells. `named` are the texts that mean
    missing because the client has said so; None if it has said nothing.
    """
    if not set(wanted.missing) <= set(stored.missing) or stored.merges_numbers:
        return True
    if named is None and not set(stored.missing) <= set(wanted.missing):
        return True
    if stored.type in TEXTUAL:
        return False
    if wanted.type in NUMBERS and stored.type in NUMBERS:
        marks = ("decimal", "thousands", "unit")
        return any(getattr(wanted, mark) != getattr(stored, mark) for mark in marks)
    if wanted.type != stored.type:
        return True
    return wanted.type == "datetime" and wanted.form != stored.form
