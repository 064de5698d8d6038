"""The formats of files: their media types, the endings of names, and the first bytes.

A file is read as its first bytes say where content type and name leave that open.
"""

import json
import re
from pathlib import PurePosixPath

from service.datasets.charsets import find_encoding
from service.datasets.messages import (
    ARROW,
    CSV,
    JSON,
    MEDIA_TYPES,
    MULTIPART,
    NDJSON,
    PARQUET,
    TSV,
    XLSX,
    ZIP,
)
from service.errors import UnsupportedMedia

ALIASES = {
    "application/csv": CSV,
    "text/x-csv": CSV,
    "application/jsonl": NDJSON,
    "application/ndjson": NDJSON,
    "application/x-jsonlines": NDJSON,
    "application/x-parquet": PARQUET,
    "application/x-zip-compressed": ZIP,
    "application/vnd.ms-excel.sheet.macroenabled.12": XLSX,
    "text/json": JSON,
}
#: content types that do not name a format, so the name of the file or its content decides
VAGUE = {
    "",
    "text/plain",
    "application/octet-stream",
    "binary/octet-stream",
    "application/vnd.ms-excel",
    "application/gzip",
    "application/x-gzip",
}
#: The first name of a format is that of its downloads.
SUFFIXES = {
    ".csv": CSV,
    ".tsv": TSV,
    ".tab": TSV,
    ".ndjson": NDJSON,
    ".jsonl": NDJSON,
    ".json": JSON,
    ".parquet": PARQUET,
    ".arrow": ARROW,
    ".feather": ARROW,
    ".xlsx": XLSX,
    ".xlsm": XLSX,
    ".zip": ZIP,
}
#: endings of names of files that are no tables
FOREIGN = {
    ".bmp", ".doc", ".docx", ".exe", ".gif", ".htm", ".html", ".ipynb", ".jpeg", ".jpg", ".pdf",
    ".pickle", ".pkl", ".png", ".ppt", ".pptx", ".py", ".rar", ".svg", ".tar", ".xml",
}  # fmt: skip
TEXTS = {CSV, TSV}
GZIP = b"\x1f\x8b"
_ZIP = b"PK\x03\x04"
_OLD_EXCEL = bytes.fromhex("d0cf11e0a1b11ae1")
_LIST_OF_ROWS = re.compile(rb'(?:\xef\xbb\xbf)?\s*\[\s*\{\s*"')
_LINE = 64 * 1024  # bytes of a first line that is parsed as JSON


def suffix_of(filename: str) -> str:
    """Return the ending of a file's name, without that of gzip."""
    name = PurePosixPath(filename.replace("\\", "/"))
    if name.suffix.lower() == ".gz":
        name = name.with_suffix("")
    return name.suffix.lower()


def declared_format(content_type: str, filename: str) -> str:
    """Return the format that content type and name tell, or an empty text if the content decides.

    Raises UnsupportedMedia.
    """
    name = content_type.partition(";")[0].strip().lower()
    name = ALIASES.get(name, name)
    if name in MEDIA_TYPES:
        return name
    suffix = suffix_of(filename)
    if name in VAGUE and suffix not in FOREIGN:
        return SUFFIXES.get(suffix, "")
    raise UnsupportedMedia(
        f"Send one of {', '.join(MEDIA_TYPES)} or {MULTIPART}, got {content_type[:100]!r}"
        + (f" for the file {filename[:80]!r}." if filename else ".")
    )


def format_of(head: bytes, declared: str = "") -> str:
    """Return the format of a file by its first bytes; `declared` decides between texts.

    Raises UnsupportedMedia for an old Excel workbook.
    """
    if head.startswith(_OLD_EXCEL):
        raise UnsupportedMedia(
            "The file is a workbook of Excel before 2007, or has a password: save it as .xlsx"
            " without a password, or as CSV."
        )
    if declared in {PARQUET, ARROW, ZIP, XLSX}:
        return declared  # its reader checks the content
    if head.startswith(b"PAR1"):
        return PARQUET
    if head.startswith(b"ARROW1"):
        return ARROW
    if head.startswith(_ZIP):
        return XLSX if _begins_as_workbook(head) else ZIP
    if declared in TEXTS:
        return JSON if _LIST_OF_ROWS.match(head) else declared
    if declared == NDJSON:  # whose lines are objects, so this is a list of rows
        return JSON if head.lstrip().startswith(b"[") else NDJSON
    return _json_format(head, declared) or declared or CSV


def _begins_as_workbook(head: bytes) -> bool:
    length = int.from_bytes(head[26:28], "little")
    name = head[30 : 30 + length]
    return name.startswith((b"[Content_Types].xml", b"_rels/", b"xl/", b"docProps/"))


def _json_format(head: bytes, declared: str) -> str:
    """Return JSON or NDJSON, or an empty text if the first bytes are neither."""
    encoding = find_encoding(head[:4096], None)
    text = head.decode(encoding.codec if encoding else "utf-8", errors="ignore").lstrip("\ufeff")
    text = text.lstrip()
    if text.startswith("["):
        return JSON if re.match(r"\[\s*[{\]]", text) or declared else ""
    if not text.startswith("{"):
        return ""
    line, _, rest = text.partition("\n")
    if len(line) > _LINE:
        return JSON
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return JSON
    is_body = any(isinstance(first.get(key), list | dict) for key in ("columns", "rows"))
    has_more = rest.lstrip().startswith("{")
    return NDJSON if has_more or (not is_body and not declared) else JSON
