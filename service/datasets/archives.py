"""Opens zip archives with one table, and workbooks, within limits on what they inflate to.

Only the parser's process opens them. Names within an archive never become paths.
"""

import csv
import datetime as dt
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    SheetTypeEnum,
    SheetVisibleEnum,
)

from descent.codes import make_warning
from service.datasets.formats import GZIP, SUFFIXES, format_of, suffix_of
from service.datasets.messages import CSV, TSV, XLSX, ZIP
from service.datasets.rejected import Rejected, listed
from service.errors import UnsupportedMedia

CHUNK = 1024 * 1024  # bytes that are written at a time
RATIO_GRACE = 10 * 1024 * 1024  # inflated bytes before the limit of the ratio applies
MAX_MEMBERS = 10_000
HEAD = 64 * 1024  # bytes by which the format of a member is found
#: Excel's values for cells whose formula failed
ERRORS = frozenset({"#N/A", "#DIV/0!", "#VALUE!", "#REF!", "#NAME?", "#NUM!", "#NULL!"})


@dataclass(frozen=True)
class Bounds:
    """The limits of the inflated size of an archive."""

    max_bytes: int
    max_ratio: int
    #: memory for a workbook, which its reader holds as a whole
    memory_bytes: int


@dataclass
class Opened:
    """The table in a container, as a file that other readers read."""

    path: Path
    media_type: str
    #: the sheet, if it is one of a workbook
    reading: dict[str, Any] = field(default_factory=dict)
    warnings: list[dict[str, Any]] = field(default_factory=list)


def opened(path: Path, media_type: str, folder: Path, sheet: str | None, bounds: Bounds) -> Opened:
    """Return the table in a zip archive or a workbook; any other file as it is. Raises Rejected."""
    if media_type not in {ZIP, XLSX}:
        return Opened(path, media_type)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_size(archive, path, bounds)
            if _is_workbook(archive):
                return _sheet(path, folder, sheet)
            if media_type == XLSX:
                raise _no_workbook()
            found = _member(archive, path, folder, bounds)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "password" not in str(error):
            raise
        raise Rejected(
            "dataset_unparseable",
            "The file is no valid zip archive or workbook: it is damaged, cut off, or has a"
            " password.",
        ) from error
    if found.media_type == XLSX:
        return opened(found.path, XLSX, folder, sheet, bounds)
    return found


def _no_workbook() -> Rejected:
    return Rejected(
        "wrong_format", "The file is no workbook: send the right content type, or save it again."
    )


def _check_size(archive: zipfile.ZipFile, path: Path, bounds: Bounds) -> None:
    members = archive.infolist()
    size = sum(member.file_size for member in members)
    packed = path.stat().st_size
    if len(members) > MAX_MEMBERS or (size > RATIO_GRACE and size > bounds.max_ratio * packed):
        raise _bomb(bounds)
    if size > bounds.max_bytes:
        raise Rejected(
            "too_large",
            f"The archive inflates to {size} bytes: send less, or raise DESCENT_MAX_UPLOAD_BYTES.",
            status=413,
        )
    if _is_workbook(archive) and size > bounds.memory_bytes:
        raise Rejected(
            "parse_out_of_memory",
            f"The workbook inflates to {size} bytes, and its reader holds it as a whole: save the"
            " sheet as CSV, or raise DESCENT_PARSE_MEMORY_BYTES.",
        )


def _bomb(bounds: Bounds) -> Rejected:
    return Rejected(
        "gzip_ratio",
        f"The archive inflates to more than {bounds.max_ratio} times its size: send the table"
        " uncompressed, or raise DESCENT_MAX_GZIP_RATIO.",
        status=413,
    )


# ---- archives -----------------------------------------------------------------------------------


def _is_workbook(archive: zipfile.ZipFile) -> bool:
    return any(name.lower() == "xl/workbook.xml" for name in archive.namelist())


def _member(archive: zipfile.ZipFile, path: Path, folder: Path, bounds: Bounds) -> Opened:
    """Write the only table of an archive to the folder, where its name is ours."""
    members = [
        member
        for member in archive.infolist()
        if not member.is_dir() and not _is_hidden(PurePosixPath(member.filename))
    ]
    if len(members) > 1:  # one may be a note about the table
        tables = [each for each in members if suffix_of(each.filename) in SUFFIXES]
        members = tables if len(tables) == 1 else members
    if len(members) != 1:
        names = listed([member.filename for member in members])
        raise Rejected(
            "wrong_format",
            f"The archive must hold one table, and it holds {len(members)} files"
            + (f": {names}." if members else "."),
        )
    target = folder / "member"
    most = max(RATIO_GRACE, bounds.max_ratio * path.stat().st_size)
    written = 0
    with archive.open(members[0]) as source, target.open("wb") as out:
        while chunk := source.read(CHUNK):
            written += len(chunk)
            if written > min(most, bounds.max_bytes):
                raise _bomb(bounds)
            out.write(chunk)
    with target.open("rb") as file:
        head = file.read(HEAD)
    if head.startswith(GZIP):
        raise Rejected("wrong_format", "The archive holds a gzip file: send the table in one way.")
    if not head:
        raise Rejected("empty_file", "The file is empty: send at least one row of data.")
    try:
        media_type = format_of(head, _declared(members[0].filename))
    except UnsupportedMedia as error:
        raise Rejected("wrong_format", error.detail) from error
    if media_type == ZIP:
        raise Rejected("wrong_format", "The archive holds another archive: send the table in it.")
    return Opened(target, media_type)


def _declared(filename: str) -> str:
    suffix = suffix_of(filename)
    return {".csv": CSV, ".tsv": TSV, ".tab": TSV}.get(suffix, "")


def _is_hidden(name: PurePosixPath) -> bool:
    return name.name.startswith(".") or "__MACOSX" in name.parts


# ---- workbooks ----------------------------------------------------------------------------------


def _sheet(path: Path, folder: Path, wanted: str | None) -> Opened:
    """Write the cells of one sheet as text, with tabs between them."""
    try:
        with CalamineWorkbook.from_path(path) as book:
            names = _sheets(book, is_named=wanted is not None)
            name = _chosen(names, wanted)
            target = folder / "sheet.tsv"
            _write(book.get_sheet_by_name(name), target)
    except CalamineError as error:
        raise Rejected(
            "dataset_unparseable",
            f"The workbook cannot be read ({type(error).__name__}): it is damaged, or it has a"
            " password.",
        ) from error
    except Exception:
        raise
    except BaseException as error:  # a panic of the library, which is no Exception
        if type(error).__name__ != "PanicException":
            raise
        raise Rejected(
            "dataset_unparseable", "The workbook cannot be read: it is damaged."
        ) from error
    if target.stat().st_size == 0:
        raise Rejected("empty_file", f"The sheet {name!r} is empty: choose another with sheet=.")
    warnings = []
    if wanted is None and len(names) > 1:
        others = listed([each for each in names if each != name])
        detail = (
            f"The workbook has {len(names)} sheets. The first one, {name!r}, is read; choose"
            f" another with sheet=: {others}."
        )
        warnings.append(make_warning("sheet_chosen", detail))
    return Opened(target, TSV, {"sheet": name}, warnings)


def _sheets(book: CalamineWorkbook, *, is_named: bool) -> list[str]:
    """Return the names of the sheets with cells; hidden ones only if the client names a sheet."""
    return [
        sheet.name
        for sheet in book.sheets_metadata
        if sheet.typ == SheetTypeEnum.WorkSheet
        and (is_named or sheet.visible == SheetVisibleEnum.Visible)
    ]


def _chosen(names: list[str], wanted: str | None) -> str:
    """Return the sheet with this name, or else with this number."""
    if not names:
        raise Rejected("wrong_sheet", "The workbook has no sheet with cells.")
    if wanted is None:
        return names[0]
    if wanted in names:
        return wanted
    if wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= len(names):
        return names[int(wanted) - 1]
    raise Rejected(
        "wrong_sheet", f"There is no sheet {wanted[:80]!r}. The workbook has {listed(names)}."
    )


def _write(sheet: CalamineSheet, target: Path) -> None:
    with target.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, delimiter="\t", lineterminator="\n")
        for cells in _rows(sheet):
            # An empty row becomes an empty line, which is no row.
            writer.writerow(cells if any(cells) else [])


def _rows(sheet: CalamineSheet) -> Iterator[list[str]]:
    for row in sheet.iter_rows():
        yield [_text(value) for value in row]


def _text(value: object) -> str:
    """Return a cell as a person would write it in CSV."""
    match value:
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 2**53:
            return str(int(value))
        case dt.datetime() if value.time() == dt.time():
            return value.date().isoformat()
        case dt.datetime() | dt.date() | dt.time():
            return value.isoformat()
        case dt.timedelta():
            return str(value.total_seconds())
        case str() if value in ERRORS:
            return ""
    return str(value).replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
