"""The reading of a column: what its cells mean, told from the first rows and held for all."""

from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.datasets.infer import SAMPLE_ROWS
from service.datasets.rejected import Rejected
from tests.service.datasets.tables import ARROW, JSON, PARQUET, Parse, column, types

LATE = SAMPLE_ROWS + 500  # rows of a table whose last rows are in no sample


def table(cells: Sequence[object], name: str = "x", delimiter: str = ",") -> bytes:
    """Return a CSV of this column, quoted, and a column of numbers that repeat."""
    rows = [f'"{cell}"{delimiter}{row % 7}' for row, cell in enumerate(cells)]
    return "\n".join([f"{name}{delimiter}y", *rows]).encode()


def stored(folder: Path, name: str = "x") -> list[Any]:
    return pq.read_table(folder / "scratch" / "table.parquet")[name].to_pylist()


def codes(parsed: dict[str, Any]) -> list[str]:
    return [warning["code"] for warning in parsed["warnings"]]


@pytest.mark.parametrize("marker", ["#N/A", "<NA>", "NaT", "\\N", "NULL", "n/a"])
def test_what_programs_write_for_a_missing_value_is_missing(parse: Parse, marker: str) -> None:
    parsed = parse(table([marker, "1.5", "2.5"]))
    assert (types(parsed)["x"], column(parsed, "x")["missing"]) == ("number", 1)


# ---- numbers with marks -------------------------------------------------------------------------

NUMBERS = {
    "thousands": (["1,234.50", "12.25", "1,000,000"], {"thousands": ","}, [1234.5, 12.25, 1e6]),
    "decimal comma": (["0,5", "-1,25", "3"], {"decimal": ","}, [0.5, -1.25, 3.0]),
    "european": (
        ["1.234,5", "0,25", "1.000.000"],
        {"decimal": ",", "thousands": "."},
        [1234.5, 0.25, 1e6],
    ),
    "blanks": (
        ["1 234,5", "1\u00a0000", "2\u202f000,25"],
        {"decimal": ",", "thousands": " "},
        [1234.5, 1000.0, 2000.25],
    ),
    "apostrophes": (["1'234.5", "1\u2019000"], {"thousands": "'"}, [1234.5, 1000.0]),
    "indian": (["12,34,567.5", "1,000"], {"thousands": ","}, [1234567.5, 1000.0]),
    "percent": (["5 %", "12.5%", "-3\u00a0%"], {"unit": "%"}, [5.0, 12.5, -3.0]),
    "dollars": (["$1,234.5", "-$7", "$-0.5"], {"thousands": ",", "unit": "$"}, [1234.5, -7, -0.5]),
    "euros": (
        ["1.234,50 €", "7 €", "0,5 €"],
        {"decimal": ",", "thousands": ".", "unit": "€"},
        [1234.5, 7.0, 0.5],
    ),
    "rupees": (["Rs. 1,07,037.5", "Rs. 7"], {"thousands": ",", "unit": "Rs."}, [107037.5, 7.0]),
    "code of a currency": (["CHF 5.5", "CHF 7"], {"unit": "CHF"}, [5.5, 7.0]),
    "minus of typesetters": (["\u22125.5", "3.25"], {}, [-5.5, 3.25]),
    "unit beside most": (["5 %", "7 %", "8.5"], {"unit": "%"}, [5.0, 7.0, 8.5]),
}


@pytest.mark.parametrize("kind", NUMBERS)
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_marks_of_numbers_are_found(
    parse: Parse, tmp_path: Path, kind: str, delimiter: str
) -> None:
    cells, marks, values = NUMBERS[kind]
    parsed = parse(table(cells, delimiter=delimiter))
    assert column(parsed, "x")["reading"] == {"type": "number"} | marks
    assert stored(tmp_path) == values
    assert codes(parsed) == []


def test_whole_numbers_with_marks_are_integers(parse: Parse, tmp_path: Path) -> None:
    found = column(parse(table(["1,234,567", "7", "12,000"])), "x")
    assert found["reading"] == {"type": "integer", "thousands": ","}
    assert stored(tmp_path) == [1234567, 7, 12000]


@pytest.mark.parametrize(
    ("delimiter", "mark", "values"),
    [(",", {"thousands": ","}, [1137, 2000]), (";", {"decimal": ","}, [1.137, 2.0])],
)
def test_a_number_that_can_be_read_in_two_ways_is_said_to_be(
    parse: Parse, tmp_path: Path, delimiter: str, mark: dict[str, str], values: list[float]
) -> None:
    data = table(["1,137", "2,000"], delimiter=delimiter)
    parsed = parse(data)
    assert column(parsed, "x")["reading"] | {"type": "number"} == {"type": "number"} | mark
    assert stored(tmp_path) == values
    assert codes(parsed) == ["ambiguous_number"]
    assert "'1,137' is read as" in parsed["warnings"][0]["detail"]


@pytest.mark.parametrize(
    ("options", "value"), [({"thousands": ","}, 1137), ({"decimal": ","}, 1.137)]
)
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_a_mark_that_is_given_ends_the_ambiguity(
    parse: Parse, tmp_path: Path, options: dict[str, str], value: float, delimiter: str
) -> None:
    data = table(["1,137", "2,000"], delimiter=delimiter)
    parsed = parse(data, columns={"x": options})
    assert stored(tmp_path)[0] == value
    assert codes(parsed) == []


def test_a_point_is_doubted_beside_decimal_commas(parse: Parse, tmp_path: Path) -> None:
    data = b"a;b;c\n0,5;1.137;1.5\n1,25;2.345;2.25\n"
    parsed = parse(data)
    assert [(w["code"], w["column"]) for w in parsed["warnings"]] == [("ambiguous_number", "b")]
    assert stored(tmp_path, "b") == [1.137, 2.345]
    parse(data, columns={"b": {"thousands": "."}})
    assert stored(tmp_path, "b") == [1137, 2345]


def test_a_point_is_doubted_between_semicolons(parse: Parse, tmp_path: Path) -> None:
    data = b"x;y\n1.137;1\n2.274;1\n3.411;2\n"
    parsed = parse(data)
    assert (codes(parsed), stored(tmp_path)[0]) == (["ambiguous_number"], 1.137)
    assert '{"columns": {"x": {"thousands": "."}}}' in parsed["warnings"][0]["detail"]
    parsed = parse(data, columns={"x": {"thousands": "."}})
    assert (codes(parsed), stored(tmp_path)[0]) == ([], 1137)
    # A point that certainly is a decimal one, or a comma between the cells.
    assert codes(parse(b"x;y\n1.137;0.5\n2.274;1.25\n3.411;2\n")) == []
    assert codes(parse(data.replace(b";", b","))) == []


def test_a_late_cell_ends_the_ambiguity(parse: Parse, tmp_path: Path) -> None:
    parsed = parse(table([*["1,137"] * LATE, "0,5"], delimiter=";"))
    assert codes(parsed) == []
    assert stored(tmp_path)[-1] == 0.5
    parsed = parse(table([*["1,137"] * LATE, "1,137.5"], delimiter=";"))
    assert codes(parsed) == []
    assert stored(tmp_path)[-2:] == [1137, 1137.5]


def test_a_given_number_has_the_marks_of_most_cells(parse: Parse, tmp_path: Path) -> None:
    cells = ["0,5", "k.A.", "1,25", "3"]
    parsed = parse(table(cells, delimiter=";"))
    assert types(parsed)["x"] == "id"
    (warning,) = parsed["warnings"]
    assert warning["code"] == "mostly_numbers"
    assert '{"columns": {"x": {"type": "number"}}}' in warning["detail"]
    parsed = parse(table(cells, delimiter=";"), columns={"x": {"type": "number"}})
    assert stored(tmp_path) == [0.5, None, 1.25, 3.0]
    assert codes(parsed) == ["values_lost"]


def test_a_given_number_is_doubted_too(parse: Parse, tmp_path: Path) -> None:
    data = table(["1,500", "2,750", "unknown"] * 9, delimiter=";")
    parsed = parse(data, columns={"x": {"type": "number"}})
    assert (codes(parsed), stored(tmp_path)[0]) == (["ambiguous_number", "values_lost"], 1.5)
    told = parsed["warnings"][0]["detail"]
    assert "'1,500' is read as 1.5 and could be 1500." in told
    assert '{"columns": {"x": {"thousands": ","}}}' in told
    parsed = parse(data, columns={"x": {"type": "number", "thousands": ","}})
    assert (codes(parsed), stored(tmp_path)[0]) == (["values_lost"], 1500)
    parsed = parse(
        table([*["1,500"] * LATE, "2,75"], delimiter=";"), columns={"x": {"type": "number"}}
    )
    assert codes(parsed) == []


def test_a_given_integer_has_the_marks_that_make_whole_numbers(
    parse: Parse, tmp_path: Path
) -> None:
    data = table(["1,500", "2,750"] * 9, delimiter=";")
    parse(data, columns={"x": {"type": "integer"}})
    assert stored(tmp_path)[:2] == [1500, 2750]


def test_texts_with_commas_and_units_stay_texts(parse: Parse) -> None:
    cells = ["1,2,3", "4,5", "n 5 %", "$", "5 % or 6 %", "12:345", "1 2"]
    assert types(parse(table(cells, delimiter=";")))["x"] == "id"


@pytest.mark.parametrize(
    "options",
    [{"decimal": ",", "thousands": ","}, {"unit": "stones"}, {"form": "%Q"}, {"decimal": "x"}],
)
def test_options_that_mean_nothing_are_refused(parse: Parse, options: dict[str, str]) -> None:
    with pytest.raises(Rejected):
        parse(table(["1", "2"]), columns={"x": options})


def test_own_markers_of_a_column_are_missing_there_only(parse: Parse, tmp_path: Path) -> None:
    data = b"x,y\n-999,-999\n1.5,2\n - ,3\n"
    parsed = parse(data, columns={"x": {"missing": ["-999", "-"]}})
    assert stored(tmp_path) == [None, 1.5, None]
    assert stored(tmp_path, "y") == [-999, 2, 3]
    assert types(parsed) == {"x": "number", "y": "integer"}


def test_own_markers_of_a_column_of_a_typed_file_are_missing_too(
    parse: Parse, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"x": [1.5, -999.0], "n": [-999, 7]}), tmp_path / "in.parquet")
    missing = {"missing": ["-999"]}
    data = (tmp_path / "in.parquet").read_bytes()
    parsed = parse(data, PARQUET, columns={"x": missing, "n": missing})
    assert (stored(tmp_path), stored(tmp_path, "n")) == ([1.5, None], [None, 7])
    assert [c["missing"] for c in parsed["columns"]] == [1, 1]


def test_long_texts_are_read_in_bounded_memory(parse: Parse, tmp_path: Path) -> None:
    cells = ["abcdefghi"[row % 9] * 1_000_000 for row in range(60)]
    found = column(parse(table(cells)), "x")
    assert (found["type"], found["distinct"]) == ("text", 9)
    assert stored(tmp_path) == cells


def test_a_number_of_a_million_digits_is_a_label(parse: Parse) -> None:
    assert types(parse(table(["1" * 1_000_000, "2" * 1_000_000])))["x"] == "id"


# ---- the sample was wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("early", "late", "type_", "last"),
    [
        ("1", "2.5", "number", 2.5),
        ("1", "oops", "category", "oops"),
        ("1", "007", "category", "007"),
        ("-1", "007", "integer", 7),
        ("1", str(2**53 + 1), "category", str(2**53 + 1)),
        ("1.5", "1,5", "category", "1,5"),
        ("1.5", "1e3", "number", 1000.0),
        ("", "2.5", "number", 2.5),
        ("", "2024-01-31", "datetime", None),
        ("yes", "maybe", "category", "maybe"),
        ("yes", "no", "boolean", False),
        ("t", "f", "boolean", False),
        ("t", "t", "category", "t"),
        ("a", "1", "category", "1"),
        ("20240131", "20241331", "integer", 20241331),
    ],
)
def test_a_late_cell_changes_the_type(
    parse: Parse, tmp_path: Path, early: str, late: str, type_: str, last: object
) -> None:
    found = column(parse(table([early] * LATE + [late])), "x")
    assert found["type"] == type_
    if last is not None:
        assert stored(tmp_path)[-1] == last
    assert found["missing"] == (0 if early else LATE)
    assert len(stored(tmp_path)) == LATE + 1


def test_many_columns_may_change_late(parse: Parse) -> None:
    header = "a,b,c,d\n"
    rows = ["1,1,yes,2024-01-31\n"] * LATE
    parsed = parse((header + "".join(rows) + "2.5,x,maybe,2024-02-01\n").encode())
    assert types(parsed) == {"a": "number", "b": "category", "c": "category", "d": "datetime"}


def test_ids_that_come_back_late_are_no_ids(parse: Parse, tmp_path: Path) -> None:
    assert types(parse(table(range(LATE), "id")))["id"] == "id"
    assert types(parse(table([*range(LATE), 0], "id")))["id"] == "integer"
    assert stored(tmp_path, "id")[-1] == 0
    assert types(parse(table([*range(LATE), 0.5], "id")))["id"] == "number"


# ---- whole numbers that are labels --------------------------------------------------------------


def test_large_whole_numbers_are_exact_as_ids_and_categories(parse: Parse, tmp_path: Path) -> None:
    ids = [2**53 + row for row in range(40)]
    assert types(parse(table(ids)))["x"] == "id"
    assert stored(tmp_path) == list(map(str, ids))
    classes = [2**53 + row % 3 for row in range(40)]
    found = column(parse(table(classes)), "x")
    assert (found["type"], found["distinct"]) == ("category", 3)
    assert types(parse(table([10**20 + row for row in range(40)])))["x"] == "id"


def test_one_large_whole_number_among_others_leaves_integers(parse: Parse, tmp_path: Path) -> None:
    cells = [*range(40), 2**60]
    assert types(parse(table(cells)))["x"] == "integer"
    assert stored(tmp_path) == cells


def test_large_whole_numbers_of_a_typed_file_are_labels_too(parse: Parse, tmp_path: Path) -> None:
    classes = [2**53 + row % 3 for row in range(40)]
    path = tmp_path / "in.arrow"
    with pa.ipc.new_file(str(path), pa.schema([("x", pa.int64())])) as writer:
        writer.write_table(pa.table({"x": classes}))
    assert types(parse(path.read_bytes(), ARROW)) == {"x": "category"}
    assert stored(tmp_path) == list(map(str, classes))


@pytest.mark.parametrize(
    ("cells", "type_"),
    [
        ([f"{row % 12 + 1:02}" for row in range(36)], "category"),
        ([f"{row % 12 + 1:02}" for row in range(13)], "id"),
        ([f"{row:05}" for row in range(40)], "id"),
        ([f"{row % 30:05}" for row in range(300)], "category"),
    ],
)
def test_digits_with_leading_zeros_are_labels(parse: Parse, cells: list[str], type_: str) -> None:
    assert types(parse(table(cells)))["x"] == type_


@pytest.mark.parametrize("header", [",x", "Unnamed: 0,x"])
def test_a_first_column_without_a_name_that_counts_rows_is_left_out(
    parse: Parse, header: str
) -> None:
    rows = "".join(f"{row},{row % 5}\n" for row in range(20))
    first = parse(f"{header}\n{rows}".encode())["columns"][0]
    assert (first["type"], first["role"]) == ("id", "ignored")


def test_the_warning_of_a_column_without_a_name_names_the_remedy(parse: Parse) -> None:
    data = b",x\n" + b"".join(b"%d,1\n" % row for row in range(20))
    parsed = parse(data)
    assert codes(parsed) == ["unnamed_column"]
    assert '{"columns": {"column_1": {"type": "integer"}}}' in parsed["warnings"][0]["detail"]
    again = parse(data, columns={"column_1": {"type": "integer"}})
    assert again["columns"][0]["role"] == "feature"


def test_every_first_column_without_a_name_that_counts_rows_is_left_out(parse: Parse) -> None:
    for header in (",Unnamed: 0,x", "Unnamed: 0.1,Unnamed: 0,x", "Unnamed: 0,Unnamed: 0_2,x"):
        rows = "".join(f"\n{row},{row},{row % 5}" for row in range(20))
        roles = [each["role"] for each in parse((header + rows).encode())["columns"]]
        assert roles == ["ignored", "ignored", "feature"], header


def test_texts_without_a_name_are_not_called_whole_numbers(parse: Parse) -> None:
    (warning,) = parse(b",x\nr1,1\nr2,1\nr3,2\n")["warnings"]
    assert warning["detail"].endswith(" Its texts all differ, so it is an id and left out.")


def test_a_column_without_a_name_that_repeats_is_a_feature(parse: Parse) -> None:
    data = b",x\n" + b"".join(b"%d,1\n" % (row % 4) for row in range(20))
    assert parse(data)["columns"][0]["type"] == "integer"


def test_the_first_column_of_a_table_without_header_is_a_feature(parse: Parse) -> None:
    data = b"".join(b"%d,1\n" % row for row in range(20))
    assert types(parse(data)) == {"column_1": "integer", "column_2": "integer"}


# ---- categories ---------------------------------------------------------------------------------


def test_one_number_in_several_spellings_is_one_category(parse: Parse, tmp_path: Path) -> None:
    cells = ["1", "1.0", "2", "2.00", "1", "01"]
    found = column(parse(table(cells), columns={"x": {"type": "category"}}), "x")
    assert found["reading"] == {"type": "category", "merges_numbers": True}
    assert stored(tmp_path) == ["1", "1", "2", "2", "1", "01"]
    assert found["distinct"] == 3
    late = ["1.0"] * LATE + ["1"]
    found = column(parse(table(late), columns={"x": {"type": "category"}}), "x")
    assert (found["distinct"], stored(tmp_path)[0]) == (1, "1")


def test_one_spelling_of_each_number_stays_as_it_is(parse: Parse, tmp_path: Path) -> None:
    found = column(parse(table(["1.0", "2.0"] * 3), columns={"x": {"type": "category"}}), "x")
    assert found["reading"] == {"type": "category"}
    assert stored(tmp_path)[:2] == ["1.0", "2.0"]


def test_numbers_of_a_typed_file_become_categories_without_decimals(
    parse: Parse, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"x": [1.0, 2.5, None]}), tmp_path / "in.parquet")
    parse(
        (tmp_path / "in.parquet").read_bytes(),
        PARQUET,
        columns={"x": {"type": "category"}},
    )
    assert stored(tmp_path) == ["1", "2.5", None]


@pytest.mark.parametrize(
    ("pair", "reading"),
    [
        (("Yes", "No"), {"true": "Yes", "false": "No"}),
        (("Y", "N"), {"true": "Y", "false": "N"}),
        (("on", "off"), {"true": "on", "false": "off"}),
        (("TRUE", "FALSE"), {}),
        (("True", "False"), {}),
        (("t", "f"), {"true": "t", "false": "f"}),
    ],
)
def test_a_boolean_remembers_its_words(
    parse: Parse, tmp_path: Path, pair: tuple[str, str], reading: dict[str, str]
) -> None:
    found = column(parse(table([*pair, pair[0]])), "x")
    assert found["reading"] == {"type": "boolean"} | reading
    assert stored(tmp_path) == [True, False, True]


def test_words_of_several_pairs_are_no_boolean(parse: Parse) -> None:
    assert types(parse(table(["yes", "no", "true", "yes", "no"])))["x"] == "category"


def test_a_given_boolean_may_be_written_with_digits(parse: Parse, tmp_path: Path) -> None:
    found = column(parse(table(["1", "0", "1"]), columns={"x": {"type": "boolean"}}), "x")
    assert found["reading"] == {"type": "boolean", "true": "1", "false": "0"}
    assert stored(tmp_path) == [True, False, True]


# ---- dates --------------------------------------------------------------------------------------

DAYS = [date(2019, 1, 25) + timedelta(days=11 * row) for row in range(20)]
FORMS = [
    "%Y-%m-%d", "%Y/%m/%d", "%Y.%m.%d", "%d.%m.%Y", "%m.%d.%Y", "%m/%d/%Y", "%d/%m/%Y", "%m-%d-%Y",
    "%d-%m-%Y", "%m/%d/%y", "%d/%m/%y", "%d.%m.%y", "%d-%b-%Y", "%d-%b-%y", "%d %b %Y", "%b %d, %Y",
    "%Y%m%d",
]  # fmt: skip
CLOCKS = ["", " 09:30", " 09:30:15", " 09:30 PM", "T09:30:00Z", " 09:30:00+02:00"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("clock", CLOCKS)
def test_the_form_of_dates_is_found(parse: Parse, tmp_path: Path, form: str, clock: str) -> None:
    if form == "%Y%m%d" and clock:
        return
    parsed = parse(table([day.strftime(form) + clock for day in DAYS]))
    found = column(parsed, "x")
    assert found["reading"] == {"type": "datetime"} | ({"form": form} if form != FORMS[0] else {})
    assert [moment.date() for moment in stored(tmp_path)] == DAYS
    assert codes(parsed) == []


@pytest.mark.parametrize(
    ("text", "default", "other"),
    [
        ("03/04/2024", "%m/%d/%Y", "%d/%m/%Y"),
        ("03.04.2024", "%d.%m.%Y", "%m.%d.%Y"),
        ("03-04-2024", "%d-%m-%Y", "%m-%d-%Y"),
        ("03/04/24", "%m/%d/%y", "%d/%m/%y"),
    ],
)
def test_an_ambiguous_date_may_be_read_in_the_other_order(
    parse: Parse, text: str, default: str, other: str
) -> None:
    data = table([text] * 3)
    parsed = parse(data)
    assert column(parsed, "x")["reading"]["form"] == default
    (warning,) = parsed["warnings"]
    assert warning["code"] == "ambiguous_date"
    is_day_first = other.startswith("%d")
    remedy = f'{{"columns": {{"x": {{"day_first": {str(is_day_first).lower()}}}}}}}'
    assert remedy in warning["detail"]
    parsed = parse(data, columns={"x": {"day_first": is_day_first}})
    assert column(parsed, "x")["reading"]["form"] == other
    assert codes(parsed) == []


def test_a_late_date_tells_the_order(parse: Parse, tmp_path: Path) -> None:
    parsed = parse(table(["03/04/2024"] * LATE + ["25/04/2024"]))
    assert (stored(tmp_path)[0].month, codes(parsed)) == (4, [])
    parsed = parse(table(["03/04/2024"] * LATE + ["04/25/2024"]))
    assert (stored(tmp_path)[0].month, codes(parsed)) == (3, [])


@pytest.mark.parametrize("rows", [20, LATE])
def test_a_few_others_among_dates_become_missing(parse: Parse, tmp_path: Path, rows: int) -> None:
    cells = [str(DAYS[row % 20]) for row in range(rows)]
    cells[-2:] = ["unknown", "later"]
    parsed = parse(table(cells))
    assert column(parsed, "x")["missing"] == 2
    (warning,) = parsed["warnings"]
    assert warning["code"] == "mostly_dates"
    assert f"first in row {rows - 1}: 'unknown'" in warning["detail"]
    assert '{"columns": {"x": {"type": "text"}}}' in warning["detail"]
    parsed = parse(table(cells), columns={"x": {"type": "text"}})
    assert (stored(tmp_path)[-1], codes(parsed)) == ("later", [])


def test_many_others_among_dates_make_texts(parse: Parse, tmp_path: Path) -> None:
    cells = [str(DAYS[row % 20]) for row in range(20)]
    cells[3] = cells[5] = cells[9] = "unknown"
    assert types(parse(table(cells)))["x"] == "category"
    late = [str(DAYS[row % 20]) for row in range(LATE)] + ["unknown"] * LATE
    assert types(parse(table(late)))["x"] == "category"
    assert stored(tmp_path)[-1] == "unknown"


@pytest.mark.parametrize("rows", [5, 20])
def test_texts_of_which_most_are_dates_can_be_made_dates(
    parse: Parse, tmp_path: Path, rows: int
) -> None:
    cells = ["soon" if row % 5 == 2 else f"{row + 1:02}.12.2024" for row in range(rows)]
    parsed = parse(table(cells))
    (warning,) = parsed["warnings"]
    assert types(parsed)["x"] != "datetime"
    assert warning["code"] == "mostly_dates"
    told = f"{rows // 5} of {rows} values"
    assert told in warning["detail"]
    assert "first in row 3: 'soon'" in warning["detail"]
    assert told in column(parsed, "x")["why"]
    assert '{"columns": {"x": {"type": "datetime"}}}' in warning["detail"]
    parsed = parse(table(cells), columns={"x": {"type": "datetime"}})
    assert (column(parsed, "x")["missing"], stored(tmp_path)[0].day) == (rows // 5, 1)


@pytest.mark.parametrize(
    ("text", "due"),
    [
        ("5/13/2024, 3:04:05 PM", "2024-05-13 15:04:05"),
        ("31.12.2024, 14:30", "2024-12-31 14:30:00"),
        ("2024/05/01 3:04:05 PM GMT+2", "2024-05-01 13:04:05"),
        ("2024/05/01 3:04:05 PM GMT-3:30", "2024-05-01 18:34:05"),
        ("Tue, 14 May 2024 09:30:00 GMT", "2024-05-14 09:30:00"),
        ("01JAN2024", "2024-01-01 00:00:00"),
        ("13/May/2024", "2024-05-13 00:00:00"),
        ("14May24", "2024-05-14 00:00:00"),
        ("May 2024", "2024-05-01 00:00:00"),
        ("Dec-2024", "2024-12-01 00:00:00"),
        ("05/2024", "2024-05-01 00:00:00"),
    ],
)
def test_dates_as_programs_write_them_are_read(
    parse: Parse, tmp_path: Path, text: str, due: str
) -> None:
    parsed = parse(table([text] * 3))
    assert (types(parsed)["x"], str(stored(tmp_path)[0])) == ("datetime", due)


@pytest.mark.parametrize(
    "cells",
    [["10-1-1", "11-2-3"], ["1.2.3", "1.2.4"], ["2024", "2023"], ["12:30-13:30", "9:00-10:15"]],
)
def test_codes_are_no_dates(parse: Parse, cells: list[str]) -> None:
    assert types(parse(table(cells)))["x"] != "datetime"


def test_eight_digits_are_dates_where_every_value_is_one(parse: Parse) -> None:
    days = [day.strftime("%Y%m%d") for day in DAYS]
    assert types(parse(table(days)))["x"] == "datetime"
    assert types(parse(table(days, "user_id")))["user_id"] == "id"
    assert types(parse(table([*days, "20241331"])))["x"] == "integer"


def test_a_time_of_day_is_one_of_the_first_day(parse: Parse, tmp_path: Path) -> None:
    parse(table(["09:30", "23:15:30", "1:05"]))
    assert [str(moment) for moment in stored(tmp_path)] == [
        "1970-01-01 09:30:00",
        "1970-01-01 23:15:30",
        "1970-01-01 01:05:00",
    ]


def test_a_given_datetime_has_the_form_of_most_cells(parse: Parse, tmp_path: Path) -> None:
    cells = ["soon", "31.12.2024", "01.01.2025", "2025"]
    parsed = parse(table(cells), columns={"x": {"type": "datetime"}})
    assert column(parsed, "x")["reading"]["form"] == "%d.%m.%Y"
    assert [each and each.year for each in stored(tmp_path)] == [None, 2024, 2025, None]
    assert codes(parsed) == ["values_lost"]


def test_a_given_datetime_is_doubted_too(parse: Parse) -> None:
    data = table(["soon", "01/02/2024", "03/04/2024"])
    parsed = parse(data, columns={"x": {"type": "datetime"}})
    assert codes(parsed) == ["ambiguous_date", "values_lost"]
    parsed = parse(data, columns={"x": {"type": "datetime", "day_first": True}})
    assert codes(parsed) == ["values_lost"]


# ---- formats ------------------------------------------------------------------------------------


def test_texts_in_json_follow_the_same_rules(parse: Parse, tmp_path: Path) -> None:
    body = b'{"columns": {"x": ["1,234.5", "$7", 3], "d": ["31.12.2024", null, "01.01.2025"]}}'
    parsed = parse(body, JSON)
    assert types(parsed)["d"] == "datetime"
    assert types(parse(b'{"columns": {"x": ["1,234.5", "7", 3]}}', JSON))["x"] == "number"
    assert stored(tmp_path) == [1234.5, 7.0, 3.0]


def test_a_file_tells_how_it_was_read(parse: Parse) -> None:
    reading = parse(b"x;y\n1,5;a\n-;b\n", missing_values=["-"])["reading"]
    assert (reading["delimiter"], reading["header"], reading["missing_values"]) == (
        ";",
        True,
        ["-"],
    )
