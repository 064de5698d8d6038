"""Workbooks and zip archives: their cells and sheets, and what they may not do."""

import datetime as dt
import io
import zipfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.datasets.archives import Bounds, opened
from service.datasets.messages import XLSX, ZIP
from service.datasets.rejected import Rejected
from tests.service.datasets.tables import Parse, column, types
from tests.service.datasets.workbooks import workbook

BOUNDS = Bounds(max_bytes=50_000_000, max_ratio=100, memory_bytes=100_000_000)
TABLE: list[list[Any]] = [["name", "x"], *([f"k{n % 3}", n + 0.5] for n in range(30))]


def zipped(files: dict[str, Any]) -> bytes:
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            # Without the time of now, so that the test has the same name in each process.
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return kept.getvalue()


def stored(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "scratch" / "table.parquet").to_pylist()


# ---- workbooks ----------------------------------------------------------------------------------


def test_the_cells_of_a_workbook_get_their_types(parse: Parse, tmp_path: Path) -> None:
    rows = [
        [f"k{n % 3}", n, n / 4, n % 2 == 0, dt.date(2024, 1, 1 + n), dt.datetime(2024, 1, 1, n, 30)]  # noqa: DTZ001  cells have no zone
        for n in range(24)
    ]
    parsed = parse(workbook({"A": [["c", "i", "n", "b", "d", "t"], *rows]}), XLSX)
    assert types(parsed) == {
        "c": "category",
        "i": "integer",
        "n": "number",
        "b": "boolean",
        "d": "datetime",
        "t": "datetime",
    }
    assert list(stored(tmp_path)[3].values()) == [
        "k0", 3, 0.75, False, dt.datetime(2024, 1, 4), dt.datetime(2024, 1, 1, 3, 30),  # noqa: DTZ001
    ]  # fmt: skip


def test_missing_and_failed_cells_of_a_workbook_are_missing(parse: Parse) -> None:
    rows: list[list[Any]] = [["x", "y"], [1, 2], [None, 3], ["#DIV/0!", 4], ["NA", 5], [5, 6]]
    assert column(parse(workbook({"A": rows}), XLSX), "x")["missing"] == 3


def test_texts_of_a_workbook_may_hold_anything(parse: Parse, tmp_path: Path) -> None:
    texts = ["a\tb", 'said "x"', "two\nlines", " padded ", "1,5 and 2", "Köln"]
    parse(workbook({"A": [["t", "y"], *([text, 1] for text in texts)]}), XLSX)
    assert [row["t"] for row in stored(tmp_path)] == [text.strip() for text in texts]


def test_a_workbook_says_which_sheet_is_read(parse: Parse) -> None:
    book = workbook({"First": TABLE, "Second & last": [["a"], [1], [2]]})
    parsed = parse(book, XLSX)
    assert parsed["rows"] == 30
    assert [w["code"] for w in parsed["warnings"]] == ["sheet_chosen"]
    assert "Second & last" in parsed["warnings"][0]["detail"]
    assert parsed["reading"]["sheet"] == "First"
    assert "delimiter" not in parsed["reading"]


@pytest.mark.parametrize("sheet", ["Second & last", "2"])
def test_a_sheet_is_chosen_by_name_or_number(parse: Parse, sheet: str) -> None:
    book = workbook({"First": TABLE, "Second & last": [["a"], [1], [2]]})
    parsed = parse(book, XLSX, sheet=sheet)
    assert (list(types(parsed)), parsed["warnings"]) == (["a"], [])
    assert parsed["reading"]["sheet"] == "Second & last"


def test_a_name_comes_before_a_number(parse: Parse) -> None:
    book = workbook({"2": TABLE, "1": [["a"], [1], [2]]})
    assert parse(book, XLSX, sheet="1")["reading"]["sheet"] == "1"


def test_a_sheet_that_does_not_exist_is_refused_with_those_that_do(parse: Parse) -> None:
    with pytest.raises(Rejected, match="'First'") as refused:
        parse(workbook({"First": TABLE}), XLSX, sheet="2")
    assert refused.value.code == "wrong_sheet"


def test_a_hidden_sheet_is_read_only_by_its_name(parse: Parse) -> None:
    book = workbook({"Hidden": TABLE, "Shown": [["a"], [1], [2]]}, hidden=("Hidden",))
    assert parse(book, XLSX)["reading"]["sheet"] == "Shown"
    assert parse(book, XLSX, sheet="Hidden")["rows"] == 30


def test_a_table_may_stand_anywhere_in_a_sheet(parse: Parse) -> None:
    table: list[list[Any]] = [[None, "a", "b"], [None, 1, "x"], [], [None, 3, "y"]]
    rows: list[list[Any]] = [["Sales of 2024"], [], *table]
    parsed = parse(workbook({"A": rows}), XLSX, skip_lines=1)
    assert parsed["rows"] == 2
    titled = parse(workbook({"A": [["Sales of 2024"], [], *TABLE]}), XLSX)
    assert (titled["rows"], [w["code"] for w in titled["warnings"]]) == (30, ["lines_skipped"])


def test_an_empty_sheet_is_refused(parse: Parse) -> None:
    with pytest.raises(Rejected, match="sheet=") as refused:
        parse(workbook({"A": []}), XLSX)
    assert refused.value.code == "empty_file"


@pytest.mark.parametrize(
    "data",
    [b"a,b\n1,2\n", workbook({"A": TABLE})[:-40], zipped({"xl/workbook.xml": "<a>"})],
)
def test_a_damaged_workbook_is_refused(parse: Parse, data: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        parse(data, XLSX)
    assert refused.value.code == "dataset_unparseable"


# ---- archives -----------------------------------------------------------------------------------


def test_an_archive_is_read_as_the_one_table_in_it(parse: Parse) -> None:
    csv = b"a;b\n1;2\n3;4\n"
    for files in (
        {"folder/x.csv": csv},
        {"x.csv": csv, "__MACOSX/._x.csv": "?", ".DS_Store": "?", "folder/": ""},
        {"x.csv": csv, "README": "about x"},
        {"../../x.txt": csv.decode().encode("utf-16")},
    ):
        assert types(parse(zipped(files), ZIP)) == {"a": "integer", "b": "integer"}


def test_an_archive_may_hold_any_format(parse: Parse) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1, 2]}), sink)
    for name, content in {
        "x.json": b'[{"a": 1}, {"a": 2}]',
        "x.ndjson": b'{"a": 1}\n{"a": 2}\n',
        "x.parquet": sink.getvalue().to_pybytes(),
        "x": sink.getvalue().to_pybytes(),
        "x.xlsx": workbook({"A": [["a"], [1], [2]]}),
    }.items():
        parsed = parse(zipped({name: content}), ZIP)
        assert (parsed["rows"], types(parsed)) == (2, {"a": "integer"})


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (zipped({"a.csv": "x\n1\n", "b.csv": "x\n1\n"}), "wrong_format"),
        (zipped({}), "wrong_format"),
        (zipped({"a.zip": zipped({"a.csv": "x\n1\n"})}), "wrong_format"),
        (zipped({"a.csv": ""}), "empty_file"),
        (zipped({"a.csv": "x\n1\n" * 100})[:-10], "dataset_unparseable"),
        (zipped({"a.csv": "x\n" + "1\n" * 20_000_000}), "gzip_ratio"),
        (b"PK\x03\x04", "dataset_unparseable"),
    ],
)
def test_an_archive_without_one_table_is_refused(parse: Parse, data: bytes, code: str) -> None:
    with pytest.raises(Rejected) as refused:
        parse(data, ZIP)
    assert refused.value.code == code


def test_a_size_that_an_archive_hides_is_found(tmp_path: Path) -> None:
    bomb = bytearray(zipped({"a.csv": b"1\n" * 20_000_000}))
    entry = bomb.rfind(b"PK\x01\x02")
    bomb[entry + 24 : entry + 28] = (100).to_bytes(4, "little")  # the size in the directory
    path = tmp_path / "bomb.zip"
    path.write_bytes(bomb)
    with pytest.raises(Rejected):
        opened(path, ZIP, tmp_path, None, BOUNDS)
    assert (tmp_path / "member").stat().st_size < 1000


def test_a_workbook_that_inflates_beyond_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "book.xlsx"
    path.write_bytes(workbook({"A": TABLE * 1000}))
    with pytest.raises(Rejected, match="CSV") as refused:
        opened(path, XLSX, tmp_path, None, Bounds(50_000_000, 100, 100_000))
    assert refused.value.code == "parse_out_of_memory"


def test_an_archive_writes_only_into_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(zipped({"../../../tmp/x.csv": "a\n1\n"}))
    folder = tmp_path / "folder"
    folder.mkdir()
    found = opened(path, ZIP, folder, None, BOUNDS)
    assert found.path == folder / "member"
    assert [each.name for each in folder.iterdir()] == ["member"]
