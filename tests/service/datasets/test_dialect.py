"""The finder of dialects: generated files, and each kind of trouble, as uploads and in requests."""

import csv
import io
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from models.reading import WHITE
from service.datasets.clean_text import detect
from service.datasets.dialect import KnownTable, Wanted, read_text_table
from service.datasets.rejected import Rejected

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "cp1252"]
DELIMITERS = [",", ";", "\t", "|", " "]
ENDS = ["\n", "\r\n", "\r"]
QUOTING = [csv.QUOTE_MINIMAL, csv.QUOTE_ALL]
#: the cells of a table; blanks, delimiters and quotes occur in them
ROWS = [
    ["Köln", "1.5", "2024-01-31", "a;b"],
    ["Nîmes", "-2", "2024-02-01", "two words"],
    ["Köln", "", "2024-03-07", 'said "no"'],
    ["Zürich", "17", "2024-12-24", "x, y|z"],
]
WORDS = ["Größe", "wert", "tag", "note"]


@dataclass(frozen=True)
class Made:
    """A file: its lines above the table, its header, and what names it should have."""

    kind: str
    above: str
    header: list[str] | None
    names: list[str]


INVENTED = ["column_1", "column_2", "column_3", "column_4"]
KINDS = [
    Made("words", "", WORDS, WORDS),
    Made("no header", "", None, INVENTED),
    Made("unnamed column", "", ["", *WORDS[1:]], ["column_1", *WORDS[1:]]),
    Made("a name again", "", ["wert", *WORDS[1:]], ["wert", "wert_2", *WORDS[2:]]),
    Made("numbers as names", "", ["1", "wert", "2019", "3"], ["1", "wert", "2019", "3"]),
    Made("blanks in names", "", [f" {name} " for name in WORDS], WORDS),
    Made("comments", "# made by hand\n#\n# unit: mm\n", WORDS, WORDS),
    Made("title", "Report of January\n\n", WORDS, WORDS),
    Made("sep", "sep={delimiter}\n", WORDS, WORDS),
    Made("blank lines above", "\n\n", WORDS, WORDS),
]


def made(made: Made, encoding: str, delimiter: str, end: str, quoting: int) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=quoting)  # type: ignore[arg-type]
    writer.writerows(([made.header] if made.header else []) + rows_with(delimiter))
    whole = made.above.replace("{delimiter}", delimiter) + text.getvalue()
    return whole.replace("\n", end).encode(encoding)


def rows_with(delimiter: str) -> list[list[str]]:
    """Return the cells; between blanks, an empty cell would be none."""
    return [[cell or "NA" for cell in row] for row in ROWS] if delimiter == " " else ROWS


def stripped(rows: Iterator[list[str]] | list[list[str]]) -> list[list[str]]:
    return [[cell.strip(WHITE) for cell in row] for row in rows]


Read = Callable[..., tuple[list[str], list[list[str]], dict[str, Any], list[str]]]


def in_request(
    _folder: Path, data: bytes, **wanted: Any
) -> tuple[list[str], list[list[str]], dict[str, Any], list[str]]:
    """Return names, rows, reading and warnings of a request's body."""
    found = read_text_table(data, Wanted(**wanted))
    codes = [warning["code"] for warning in found.warnings]
    return found.names, stripped(found.rows), found.reading, codes


def as_upload(
    folder: Path, data: bytes, **wanted: Any
) -> tuple[list[str], list[list[str]], dict[str, Any], list[str]]:
    """Return names, rows, reading and warnings of an upload."""
    (folder / "received").write_bytes(data)
    found = detect(folder / "received", folder, Wanted(**wanted), max_columns=100)
    with found.path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file, delimiter=found.delimiter))[found.skipped :]
    codes = [warning["code"] for warning in found.warnings]
    return found.names, stripped([row for row in rows if row]), found.reading, codes


READERS = pytest.mark.parametrize("read", [in_request, as_upload])


@READERS
@pytest.mark.parametrize("kind", KINDS, ids=[kind.kind for kind in KINDS])
def test_generated_files_have_their_names_and_cells(read: Read, kind: Made, tmp_path: Path) -> None:
    for encoding, delimiter, end, quoting in itertools.product(
        ENCODINGS, DELIMITERS, ENDS, QUOTING
    ):
        if delimiter == " " and kind.kind in {"title", "sep"}:
            continue  # a title of three words has a width too
        names, rows, reading, _codes = read(tmp_path, made(kind, encoding, delimiter, end, quoting))
        place = (encoding, delimiter, end, quoting)
        assert (place, names, rows) == (place, kind.names, rows_with(delimiter))
        assert reading["delimiter"] == delimiter
        assert reading["header"] is (kind.header is not None)


# ---- kinds of trouble ---------------------------------------------------------------------------

#: name of the kind → the file, its names, its rows and the codes of warnings
TROUBLE: dict[str, tuple[bytes, list[str], list[list[str]], list[str]]] = {
    "an empty cell at the end of each row": (
        b"a,b\n1,2,\n3,4,\n", ["a", "b"], [["1", "2"], ["3", "4"]], [],
    ),
    "an empty cell at the end of each line": (
        b"a,b,\n1,2,\n3,4,\n", ["a", "b"], [["1", "2"], ["3", "4"]], [],
    ),
    "an empty cell at the end of the header only": (
        b"a,b,\n1,2\n3,4\n", ["a", "b"], [["1", "2"], ["3", "4"]], [],
    ),
    "an empty cell at the end of each row, quoted": (
        b'"a","b",\n"1, x",2,\n3,4,\n', ["a", "b"], [["1, x", "2"], ["3", "4"]], [],
    ),
    "several empty cells at the end": (
        b"a;b;;;\n1;2;;;\n3;4;;;\n", ["a", "b"], [["1", "2"], ["3", "4"]], [],
    ),
    "an empty cell at the end of some rows": (
        b"a,b\n1,2,\n3,4\n", ["a", "b"], [["1", "2"], ["3", "4"]], [],
    ),
    "an empty cell at the end, without a header": (
        b"1,2,\n3,4,\n", ["column_1", "column_2"], [["1", "2"], ["3", "4"]], [],
    ),
    "a nameless column with values": (
        b"a,b,\n1,2,\n3,4,5\n", ["a", "b", "column_3"], [["1", "2", ""], ["3", "4", "5"]],
        ["unnamed_column"],
    ),
    "missing cells at the end": (
        b"a,b\n1,\n3,\n", ["a", "b"], [["1", ""], ["3", ""]], [],
    ),
    "a comment with as many cells as the table": (
        b"# made by x, y\na,b\n1,2\n3,4\n", ["a", "b"], [["1", "2"], ["3", "4"]], [],
    ),
    "a header in a comment": (
        b"# a b c\n1 2 3\n4 5 6\n", ["a", "b", "c"], [["1", "2", "3"], ["4", "5", "6"]], [],
    ),
    "a header that begins with the comment sign": (
        b"#,name\n1,Ann\n2,Bob\n", ["#", "name"], [["1", "Ann"], ["2", "Bob"]], [],
    ),
    "a comment above one column": (
        b"# in mm\nx\n1\n2\n", ["x"], [["1"], ["2"]], [],
    ),
    "a title that Excel pads": (
        b"Sales,,\n,,\nname,x,y\nAnn,1,2\nBob,3,4\n",
        ["name", "x", "y"], [["Ann", "1", "2"], ["Bob", "3", "4"]], ["lines_skipped"],
    ),
    "names and values above the header": (
        b"Station,Berlin\nUnit,mm\nday,t,p\n2024-01-01,1,2\n2024-01-02,3,4\n",
        ["day", "t", "p"], [["2024-01-01", "1", "2"], ["2024-01-02", "3", "4"]], ["lines_skipped"],
    ),
    "a title that is as wide as the table": (
        b"Report of, 2024\nby me\nname,x\nAnn,1\nBob,2\n",
        ["name", "x"], [["Ann", "1"], ["Bob", "2"]], ["lines_skipped"],
    ),
    "a title without a header": (
        b"Some numbers\n1,2,3\n4,5,6\n",
        ["column_1", "column_2", "column_3"], [["1", "2", "3"], ["4", "5", "6"]],
        ["lines_skipped"],
    ),
    "aligned columns": (
        b"  name    x     y\n  Ann     1   2.5\n  Bob   100  -3.0\n",
        ["name", "x", "y"], [["Ann", "1", "2.5"], ["Bob", "100", "-3.0"]], [],
    ),
    "row names of R": (
        b'"x" "y"\n"1" 0.5 "a b"\n"2" 1.5 "c"\n',
        ["column_1", "x", "y"], [["1", "0.5", "a b"], ["2", "1.5", "c"]], ["unnamed_column"],
    ),
    "prose is one column": (
        b"text\nhello world\ngood day\n", ["text"], [["hello world"], ["good day"]], [],
    ),
    "names of people are one column": (
        b"full name\nAnn Lee\nBob Ray\n", ["full name"], [["Ann Lee"], ["Bob Ray"]], [],
    ),
    "moments are one column": (
        b"start time\n2024-01-01 10:00\n2024-01-02 11:30\n",
        ["start time"], [["2024-01-01 10:00"], ["2024-01-02 11:30"]], [],
    ),
    "decimal commas are one column": (
        b"x\n1,5\n2,5\n", ["x"], [["1,5"], ["2,5"]], [],
    ),
    "thousands are one column": (
        b"x\n1,137\n$2,274,000.50\n5\n", ["x"], [["1,137"], ["$2,274,000.50"], ["5"]], [],
    ),
    "days as names": (
        b"place,2024-01-01,1/2/24\nUlm,1,2\nBonn,3,4.5\n",
        ["place", "2024-01-01", "1/2/24"], [["Ulm", "1", "2"], ["Bonn", "3", "4.5"]], [],
    ),
    "days as values": (
        b"Ulm,2024-01-01,5\nBonn,2024-01-02,6\n",
        ["column_1", "column_2", "column_3"],
        [["Ulm", "2024-01-01", "5"], ["Bonn", "2024-01-02", "6"]], [],
    ),
    "numbered columns beside classes": (
        b"0,1,target\n0.5,0.3,yes\n0.1,0.2,no\n0.1,0.2,no\n0.4,0.2,yes\n0.1,0.7,no\n",
        ["0", "1", "target"],
        [["0.5", "0.3", "yes"], ["0.1", "0.2", "no"], ["0.1", "0.2", "no"], ["0.4", "0.2", "yes"],
         ["0.1", "0.7", "no"]],
        [],
    ),
    "numbers beside names": (
        b"0,1,Ann\n0,2,Bob\n", ["column_1", "column_2", "column_3"],
        [["0", "1", "Ann"], ["0", "2", "Bob"]], [],
    ),
    "years as names": (
        b"country,2019,2020\nDE,1.5,2.5\nFR,2.5,3.5\n",
        ["country", "2019", "2020"], [["DE", "1.5", "2.5"], ["FR", "2.5", "3.5"]], [],
    ),
    "years as values": (
        b"Ann,1999,2000\nBob,1998,2003\n",
        ["column_1", "column_2", "column_3"], [["Ann", "1999", "2000"], ["Bob", "1998", "2003"]],
        [],
    ),
    "the numbered columns of a DataFrame": (
        b",0,1\n0,0.5,0.3\n1,0.1,0.2\n",
        ["column_1", "0", "1"], [["0", "0.5", "0.3"], ["1", "0.1", "0.2"]], ["unnamed_column"],
    ),
    "dates as names": (
        b"country,2020-01,2020-02\nDE,1.5,2.5\nFR,2.5,3.5\n",
        ["country", "2020-01", "2020-02"], [["DE", "1.5", "2.5"], ["FR", "2.5", "3.5"]], [],
    ),
    "times of day as names": (
        b"day,00:00,00:30\n2024-01-01,1,2\n2024-01-02,3,4\n",
        ["day", "00:00", "00:30"], [["2024-01-01", "1", "2"], ["2024-01-02", "3", "4"]], [],
    ),
    "a scale as names": (
        b"400,400.5,401,401.5,kind\n0.1,0.3,0.2,0.1,a\n0.2,0.1,0.2,0.1,b\n",
        ["400", "400.5", "401", "401.5", "kind"],
        [["0.1", "0.3", "0.2", "0.1", "a"], ["0.2", "0.1", "0.2", "0.1", "b"]],
        [],
    ),
    "even numbers as values": (
        b"1,2,3,4\n2,4,6,8\n1.5,9,9,9\n",
        ["column_1", "column_2", "column_3", "column_4"],
        [["1", "2", "3", "4"], ["2", "4", "6", "8"], ["1.5", "9", "9", "9"]],
        [],
    ),
    "an index beside words": (
        b",name,city\n0,Ann,Bonn\n1,Bob,Ulm\n",
        ["column_1", "name", "city"], [["0", "Ann", "Bonn"], ["1", "Bob", "Ulm"]],
        ["unnamed_column"],
    ),
    "numbers with marks are no names": (
        b'"1,234.50",a\n"$2,000",b\n12 %,a\n',
        ["column_1", "column_2"], [["1,234.50", "a"], ["$2,000", "b"], ["12 %", "a"]], [],
    ),
    "a blank line in one column": (
        b"x\n1\n\n2\n\n", ["x"], [["1"], ["2"]], [],
    ),
    "lines of blanks": (
        b"  \na,b\n1,2\n   \n3,4\n ", ["a", "b"], [["1", "2"], ["3", "4"]], [],
    ),
    "lines of blanks beside quotes": (
        b'a,b\n"1, 5",2\n   \n3,4\n', ["a", "b"], [["1, 5", "2"], ["3", "4"]], [],
    ),
    "a line of blanks in one column": (
        b"x\n1\n  \n2\n", ["x"], [["1"], ["2"]], [],
    ),
    "rows without any value": (
        b"a\tb\n1\t2\n\t\n3\t4\n", ["a", "b"], [["1", "2"], ["", ""], ["3", "4"]], [],
    ),
    "an empty cell in quotes in one column": (
        b'x\n1\n""\n2\n', ["x"], [["1"], [""], ["2"]], [],
    ),
    "single quotes": (
        b"'a','b'\n'x, y',1\n'z',2\n", ["a", "b"], [["x, y", "1"], ["z", "2"]], [],
    ),
    "apostrophes": (
        b"a,b\nO'Neil,1\n'tis,2\n", ["a", "b"], [["O'Neil", "1"], ["'tis", "2"]], [],
    ),
    "blanks before quotes": (
        b'"a", "b"\n"x, y", 1\n"z", 2\n', ["a", "b"], [["x, y", "1"], ["z", "2"]], [],
    ),
    "sep with a tab": (
        b"sep=\\t\na\tb\n1\t2\n", ["a", "b"], [["1", "2"]], [],
    ),
    "sep in quotes, with a mark": (
        b'\xef\xbb\xbf"sep=;"\r\na;b\r\n1,5;2\r\n', ["a", "b"], [["1,5", "2"]], [],
    ),
    "a line end within quotes of the header": (
        b'"a\n(mm)",b\n1,2\n', ["a\n(mm)", "b"], [["1", "2"]], [],
    ),
}  # fmt: skip


@READERS
@pytest.mark.parametrize("kind", TROUBLE)
def test_a_kind_of_trouble_is_read(read: Read, kind: str, tmp_path: Path) -> None:
    data, names, rows, codes = TROUBLE[kind]
    found = read(tmp_path, data)
    assert (found[0], found[1], found[3]) == (names, rows, codes)


@READERS
def test_options_say_what_the_finder_would_find(read: Read, tmp_path: Path) -> None:
    data = b"x,y\nunit,mm\na,b\n1,2\n"
    assert read(tmp_path, data, skip_lines=2)[:2] == (["a", "b"], [["1", "2"]])
    assert read(tmp_path, data, skip_lines=0)[0] == ["x", "y"]
    assert read(tmp_path, b"a b\nc d\n", delimiter=" ")[0] == ["a", "b"]
    assert read(tmp_path, b"1 2\n3 4\n", delimiter=" ", header="present")[0] == ["1", "2"]
    assert read(tmp_path, b"a;b,c\n1;2,3\n", delimiter=",")[0] == ["a;b", "c"]
    assert read(tmp_path, b"a\n1\n", header="absent")[1] == [["a"], ["1"]]


@READERS
def test_what_was_found_can_be_said(read: Read, tmp_path: Path) -> None:
    for kind, (data, names, rows, _codes) in TROUBLE.items():
        found = read(tmp_path, data)[2]
        wanted = {
            "delimiter": found["delimiter"],
            "skip_lines": found["skip_lines"],
            "header": "present" if found["header"] else "absent",
        }
        if kind != "a header in a comment":  # whose sign is a part of the line
            assert (kind, *read(tmp_path, data, **wanted)[:2]) == (kind, names, rows)


@READERS
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty_file"),
        (b"\n \n", "empty_file"),
        (b"# nothing\n# at all\n\n", "empty_file"),
        (b'a,b\n1,"x\n2,3\n', "unclosed_quote"),
        (b"a b\n" + b'1 "x\n2 3\n' * 3, "unclosed_quote"),
    ],
)
def test_a_text_without_a_table_is_refused(
    read: Read, data: bytes, code: str, tmp_path: Path
) -> None:
    if read is as_upload and b"a,b" in data:
        pytest.skip("the reader of plain files finds this")
    with pytest.raises(Rejected) as refused:
        read(tmp_path, data, skip_lines=2 if b"#" in data else None)
    assert refused.value.code == code


def test_a_late_cell_beyond_the_names_is_ragged(tmp_path: Path) -> None:
    data = b"a,b\n" + b"1,2,\n" * 50_000 + b"1,2,3\n"
    with pytest.raises(Rejected) as refused:
        as_upload(tmp_path, data)
    assert (refused.value.code, refused.value.errors[0]["row"]) == ("ragged_row", 50_001)


def test_a_late_cell_in_a_nameless_column_makes_it_a_column(tmp_path: Path) -> None:
    data = b"a,b,\n" + b"1,2,\n" * 50_000 + b"1,2,3\n"
    names, rows, _reading, codes = as_upload(tmp_path, data)
    assert (names, rows[-1], codes) == (["a", "b", "column_3"], ["1", "2", "3"], ["unnamed_column"])


@READERS
def test_a_large_file_is_read_by_its_beginning(read: Read, tmp_path: Path) -> None:
    row = "Köln|1,5|2024-01-31 10:00"
    data = ("ort|wert|wann\n" + f"{row}\n" * 30_000).encode("utf-16")
    names, rows, _reading, _codes = read(tmp_path, data)
    assert (names, len(rows), rows[-1]) == (["ort", "wert", "wann"], 30_000, row.split("|"))


# ---- requests for a known table -----------------------------------------------------------------

TABLE = KnownTable(("a", "b", "y"), has_header=True, delimiter=";")


def for_model(data: bytes, table: KnownTable = TABLE) -> tuple[list[str], list[list[str]]]:
    found = read_text_table(data, Wanted(), table)
    return found.names, stripped(found.rows)


def test_a_first_row_that_names_columns_of_the_model_is_a_header() -> None:
    assert for_model(b"b,a\nx,y\n") == (["b", "a"], [["x", "y"]])
    assert for_model(b"a\n1,5\n") == (["a"], [["1,5"]])
    assert for_model(b"a b y\n1 2 3\n") == (["a", "b", "y"], [["1", "2", "3"]])
    assert for_model(b"a;b\n") == (["a", "b"], [])


def test_names_that_are_numbers_count_if_all_are_known() -> None:
    table = KnownTable(("0", "1", "target"))
    assert for_model(b"0,1\n5,3\n", table) == (["0", "1"], [["5", "3"]])
    assert for_model(b"0,5,3\n", table) == (["0", "1", "target"], [["0", "5", "3"]])


def test_rows_without_a_header_get_the_names_by_position() -> None:
    table = KnownTable(("column_1", "column_2", "column_3"), has_header=False, delimiter=",")
    for data in (b"1,2,3\n", b"1;2;3\n4;5;6\n", b"red,S,\n"):
        assert for_model(data, table)[0] == list(table.names)
        assert for_model(data)[0] == ["a", "b", "y"] or data.startswith(b"red")
    assert for_model(b"-,b,1\n") == (["a", "b", "y"], [["-", "b", "1"]])


def test_the_delimiter_of_the_model_is_tried_first() -> None:
    assert for_model(b"1,5;2,5;3,5\n") == (["a", "b", "y"], [["1,5", "2,5", "3,5"]])


def test_repeated_and_empty_names_of_a_request_are_those_of_an_upload() -> None:
    assert for_model(b"a,a,,b\n1,2,3,4\n")[0] == ["a", "a_2", "column_3", "b"]


def test_rows_of_a_request_keep_their_width() -> None:
    assert for_model(b"a,b\n1\n1,2,3\n1,2\n")[1] == [["1"], ["1", "2", "3"], ["1", "2"]]


def test_a_name_with_blanks_is_kept_if_the_model_has_it() -> None:
    assert for_model(b" a ,b\n1,2\n", KnownTable((" a ", "b")))[0] == [" a ", "b"]
