"""Parses small tables in this process, as the parser's process does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.datasets.parse import parse
from service.datasets.rejected import Rejected
from service.datasets.sandbox import Task

Parse = Callable[..., dict[str, Any]]
NDJSON = "application/x-ndjson"
JSON = "application/json"
PARQUET = "application/vnd.apache.parquet"
ARROW = "application/vnd.apache.arrow.file"


def parser(folder: Path) -> Parse:
    """Return a function that parses bytes and returns rows, columns and warnings."""

    def run(
        data: bytes, media_type: str = "text/csv", max_columns: int = 1000, **options: Any
    ) -> dict[str, Any]:
        path = folder / "received"
        path.write_bytes(data)
        scratch = folder / "scratch"
        scratch.mkdir(exist_ok=True)
        return parse(Task(str(path), str(scratch), media_type, options, max_columns))

    return run


def types(parsed: dict[str, Any]) -> dict[str, str]:
    return {column["name"]: column["type"] for column in parsed["columns"]}


def column(parsed: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(c for c in parsed["columns"] if c["name"] == name)
    return found


def refusal(parse: Parse, data: bytes, media_type: str = "text/csv") -> dict[str, Any]:
    """Return the first item of `errors`, without its sentence."""
    with pytest.raises(Rejected) as refused:
        parse(data, media_type)
    return {name: value for name, value in refused.value.errors[0].items() if name != "detail"}
