"""What the name of a file tells of its bytes."""

from pathlib import Path

CONTENT_TYPES = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".arrow": "application/vnd.apache.arrow.file",
    ".feather": "application/vnd.apache.arrow.file",
}


def headers_of(file: Path, content_type: str | None = None) -> dict[str, str]:
    """Return what the name of a file tells of its bytes; what it does not tell is CSV."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    headers = {"Content-Encoding": "gzip"} if suffixes[-1:] == [".gz"] else {}
    suffix = suffixes[-1 - len(headers)] if len(suffixes) > len(headers) else ""
    return headers | {"Content-Type": content_type or CONTENT_TYPES.get(suffix, "text/csv")}
