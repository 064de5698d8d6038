"""Uploads whose format, encoding or compression only the content, the name or an option tells."""

import gzip
import io
import json
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from service.datasets.formats import declared_format, format_of
from service.datasets.messages import ARROW, CSV, JSON, NDJSON, PARQUET, TSV, XLSX, ZIP
from service.errors import UnsupportedMedia
from tests.service.datasets.test_archives import zipped
from tests.service.datasets.workbooks import workbook

PATH = "/api/v1/datasets"
ROWS = [{"a": 1, "b": 2.5}, {"a": 2, "b": 3.5}, {"a": 3, "b": 4.5}]
TEXT = "a,b\n1,2.5\n2,3.5\n3,4.5\n"
VAGUE = ["", "text/plain", "application/octet-stream"]


def typed() -> tuple[bytes, bytes]:
    table = pa.Table.from_pylist(ROWS)
    sink, stream = pa.BufferOutputStream(), io.BytesIO()
    pq.write_table(table, sink)
    with pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes(), stream.getvalue()


CONTENTS: dict[str, bytes] = {
    CSV: TEXT.encode(),
    "tsv": TEXT.replace(",", "\t").encode(),
    "utf-16": TEXT.encode("utf-16"),
    "gzip": gzip.compress(TEXT.encode(), mtime=0),
    NDJSON: "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    "records": json.dumps(ROWS, indent=1).encode(),
    JSON: json.dumps({"rows": ROWS}).encode(),
    "columns": json.dumps({"columns": {"a": [1, 2, 3], "b": [2.5, 3.5, 4.5]}}, indent=1).encode(),
    PARQUET: typed()[0],
    ARROW: typed()[1],
    XLSX: workbook({"A": [["a", "b"], *([row["a"], row["b"]] for row in ROWS)]}),
    ZIP: zipped({"x.csv": TEXT}),
}


def uploaded(client: httpx.Client, **request: Any) -> dict[str, Any]:
    answer = client.post(PATH, **request)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_with_a_vague_type_is_read_as_its_content_says(api: httpx.Client, name: str) -> None:
    form = {"file": ("x.txt", CONTENTS[name], "text/plain")}
    for made in (
        uploaded(api, files=form),
        uploaded(api, content=CONTENTS[name], headers={"Content-Type": "application/octet-stream"}),
    ):
        assert made["rows"] == 3
        assert [(c["name"], c["type"]) for c in made["columns"]] == [
            ("a", "integer"),
            ("b", "number"),
        ]


@pytest.mark.parametrize(
    ("suffix", "content_type", "name"),
    [
        (".csv.gz", "application/gzip", "gzip"),
        (".csv.gz", "text/csv", "gzip"),
        (".gz", "application/x-gzip", "gzip"),
        (".json", "application/json", "records"),
        (".json", "application/octet-stream", "columns"),
        (".xlsx", "application/vnd.ms-excel", XLSX),
        (".xlsx", XLSX, XLSX),
        (".xls", "application/vnd.ms-excel", XLSX),
        (".csv", "application/vnd.ms-excel", CSV),
        (".xls", "application/vnd.ms-excel", "tsv"),
        (".zip", "application/x-zip-compressed", ZIP),
        (".csv", "text/csv", XLSX),
        ("", "application/octet-stream", PARQUET),
        (".dat", "", CSV),
    ],
)
def test_a_file_of_a_form_is_read_by_type_name_and_content(
    api: httpx.Client, suffix: str, content_type: str, name: str
) -> None:
    made = uploaded(api, files={"file": (f"my table{suffix}", CONTENTS[name], content_type)})
    assert (made["name"], made["rows"]) == ("my table", 3)


def test_a_gzip_file_is_stored_as_it_was_before(api: httpx.Client) -> None:
    made = uploaded(api, files={"file": ("x.csv.gz", CONTENTS["gzip"], "application/gzip")})
    assert made["bytes"] == len(TEXT)
    assert api.get(f"{PATH}/{made['id']}/content").text == TEXT


@pytest.mark.parametrize("data", [CONTENTS["gzip"][:-6], b"\x1f\x8bnothing"])
def test_a_damaged_gzip_file_is_malformed(api: httpx.Client, data: bytes) -> None:
    answer = api.post(PATH, content=data, headers={"Content-Type": "text/csv"})
    assert (answer.status_code, answer.json()["code"]) == (400, "malformed_gzip")


def test_a_gzip_file_that_is_a_bomb_is_stopped(api: httpx.Client) -> None:
    bomb = gzip.compress(bytes(11_500_000))
    answer = api.post(PATH, files={"file": ("x.csv.gz", bomb, "application/gzip")})
    assert (answer.status_code, answer.json()["code"]) == (413, "gzip_ratio")


def test_a_zip_bomb_is_stopped(api: httpx.Client) -> None:
    bomb = zipped({"x.csv": b"1\n" * 10_000_000})
    answer = api.post(PATH, content=bomb, headers={"Content-Type": ZIP})
    assert (answer.status_code, answer.json()["code"]) == (413, "gzip_ratio")


def test_a_workbook_of_old_excel_is_refused_with_what_to_do(api: httpx.Client) -> None:
    old = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(1000)
    answer = api.post(PATH, files={"file": ("x.xls", old, "application/vnd.ms-excel")})
    assert answer.status_code == 415
    assert ".xlsx" in answer.json()["detail"]


def test_the_charset_of_the_content_type_is_honoured(api: httpx.Client) -> None:
    data = "ort,x\nKöln,1\nZürich,2\n".encode("cp1252")
    made = uploaded(api, content=data, headers={"Content-Type": "text/csv; charset=windows-1252"})
    assert made["warnings"] == [] or {w["code"] for w in made["warnings"]} == {"only_ids_and_text"}
    rows = api.get(f"{PATH}/{made['id']}/rows").json()["data"]
    assert [row["ort"] for row in rows] == ["Köln", "Zürich"]
    form = {"file": ("x.csv", data, "text/csv; charset=windows-1252")}
    assert uploaded(api, files=form)["columns"][0]["distinct"] == 2


def test_options_say_how_a_text_is_read(api: httpx.Client) -> None:
    data = "x y\n\nort wert\nKöln 1\nUlm 2\n".encode("cp1250")
    made = uploaded(
        api,
        content=data,
        headers={"Content-Type": "text/csv"},
        params={"encoding": "cp1250", "delimiter": "space", "skip_lines": 1, "header": "present"},
    )
    assert [column["name"] for column in made["columns"]] == ["ort", "wert"]
    assert made["rows"] == 2
    reading = made["reading"]
    assert (reading["encoding"], reading["delimiter"]) == ("windows-1250", " ")
    assert (reading["skip_lines"], reading["header"]) == (1, True)


def test_a_sheet_is_an_option_of_an_upload(api: httpx.Client) -> None:
    book = workbook({"A": [["a"], [1]], "B": [["b"], [2]]})
    made = uploaded(api, content=book, headers={"Content-Type": XLSX}, params={"sheet": "B"})
    assert made["columns"][0]["name"] == "b"
    assert made["reading"]["sheet"] == "B"


@pytest.mark.parametrize(
    "params", [{"encoding": "hex"}, {"skip_lines": 1001}, {"skip_lines": -1}, {"sheet": ""}]
)
def test_an_option_that_cannot_be_is_refused(api: httpx.Client, params: dict[str, Any]) -> None:
    answer = api.post(PATH, content=b"a\n1\n", headers={"Content-Type": "text/csv"}, params=params)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == f"/query/{next(iter(params))}"


def test_an_unknown_charset_is_refused(api: httpx.Client) -> None:
    answer = api.post(PATH, content=b"a\n1\n", headers={"Content-Type": "text/csv; charset=x"})
    assert answer.status_code == 422
    assert "windows-1252" in answer.json()["detail"]


# ---- the format alone ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        (b"a,b\n", CSV),
        (b"[1, 2]\n", CSV),  # no rows of a table
        (b"[section],x\n", CSV),
        (b'[{"a": 1}', JSON),
        (b"[]", JSON),
        (b'{"a": 1}\n{"a": 2}', NDJSON),
        (b'{"a": 1}', NDJSON),
        (b'{"columns": {"a": [1]}}', JSON),
        (b'{\n "columns": {}}', JSON),
        (b'\xef\xbb\xbf[{"a": 1}]', JSON),
        (b'{"a": ' + b"[" * 70_000, JSON),
        (b"PAR1", PARQUET),
        (b"ARROW1", ARROW),
        (b"PK", CSV),
        (b"", CSV),
    ],
)
def test_the_first_bytes_tell_the_format(head: bytes, wanted: str) -> None:
    assert format_of(head) == wanted


def test_a_declared_text_stays_that_text() -> None:
    assert format_of(b'{"a": 1}\n', TSV) == TSV
    assert format_of(b'[{"a": 1}]\n', CSV) == JSON  # no header looks like this
    assert format_of(b"[{a},b]\n", CSV) == CSV
    assert format_of(b'{"a": 1}\n', NDJSON) == NDJSON
    assert format_of(b'[{"a": 1}]\n', NDJSON) == JSON  # no line of NDJSON is a list
    assert format_of(b'{"a": 1}', JSON) == JSON  # its reader says what is wrong with it
    assert format_of(b'{"a": 1}\n{"a": 2}\n', JSON) == NDJSON


@pytest.mark.parametrize("content_type", VAGUE)
def test_a_vague_type_leaves_the_format_to_name_and_content(content_type: str) -> None:
    assert declared_format(content_type, "x.tsv.gz") == TSV
    assert declared_format(content_type, "x.unknown") == ""
    with pytest.raises(UnsupportedMedia):
        declared_format(content_type, "x.pdf")


def test_a_type_of_something_else_is_refused() -> None:
    with pytest.raises(UnsupportedMedia, match="image/png"):
        declared_format("image/png", "x.csv")
