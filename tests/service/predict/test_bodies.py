"""Reading the rows of a prediction request."""

import time

import pytest

from service.errors import BadRequest, Invalid, TooLarge
from service.predict import bodies

INPUTS = {"Age": (), "Port": ("S", "NA")}


def test_rows_become_columns_and_an_absent_key_is_missing() -> None:
    rows = bodies.from_json({"rows": [{"a": 1}, {"b": "x"}, {}]}, 10)
    assert rows.columns == {"a": [1, None, None], "b": [None, "x", None]}
    assert rows.count == 3


def test_columns_are_taken_as_they_are() -> None:
    rows = bodies.from_json({"columns": {"a": [1, None], "b": ["x", True]}}, 10)
    assert rows.columns == {"a": [1, None], "b": ["x", True]}
    assert rows.count == 2


def test_no_rows_are_no_rows() -> None:
    assert bodies.from_json({"rows": []}, 10).count == 0
    assert bodies.from_json({"columns": {}}, 10).count == 0


def test_a_list_of_objects_is_read_as_rows() -> None:
    rows = bodies.from_json([{"a": 1}, {"b": "x"}, 5], 10)
    assert (rows.columns, rows.count) == ({"a": [1, None, None], "b": [None, "x", None]}, 3)
    assert list(rows.unreadable) == [2]


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"row": []},
        {"rows": [], "columns": {}},
        {"rows": [], "extra": 1},
        {"rows": "x"},
        {"rows": {"a": 1}},
        {"columns": []},
        {"columns": {"a": 1}},
        {"columns": {"a": [1], "b": [1, 2]}},
    ],
)
def test_another_shape_is_invalid(document: object) -> None:
    with pytest.raises(Invalid):
        bodies.from_json(document, 10)


def test_a_row_that_is_no_object_costs_only_itself() -> None:
    rows = bodies.from_json({"rows": [{"a": 1}, 5, {"a": 3}]}, 10)
    assert rows.columns == {"a": [1, None, 3]}
    assert rows.count == 3
    assert {row: error["code"] for row, error in rows.unreadable.items()} == {1: "malformed_row"}
    assert "'5'" in rows.unreadable[1]["detail"]


@pytest.mark.parametrize(
    ("document", "pointers"),
    [
        (None, [""]),
        ({}, [""]),
        ({"rows": None}, [""]),
        ({"rows": [], "columns": {}}, [""]),
        ({"row": []}, ["/row"]),
        ({"rows": [], "a/b": 1, "c": 2}, ["/a~1b", "/c"]),
        ({"columns": {"a": [1], "b": [1, 2], "c": [1], "d": []}}, ["/columns/b", "/columns/d"]),
    ],
)
def test_what_is_wrong_with_a_document_is_pointed_at(document: object, pointers: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        bodies.from_json(document, 10)
    assert [error["pointer"] for error in caught.value.errors] == pointers


def test_a_list_in_a_cell_is_left_to_the_predictor() -> None:
    rows = bodies.from_json({"rows": [{"a": 1}, {"a": [2]}, {"a": {"b": 1}}]}, 10)
    assert rows.columns["a"] == [1, [2], {"b": 1}]


def test_too_many_rows_name_the_setting() -> None:
    with pytest.raises(TooLarge, match="DESCENT_MAX_PREDICT_ROWS"):
        bodies.from_json({"rows": [{}] * 11}, 10)
    with pytest.raises(TooLarge):
        bodies.from_json({"columns": {"a": [1] * 11}}, 10)
    with pytest.raises(TooLarge):
        bodies.from_csv(b"Age\n" + b"1\n" * 11, INPUTS, 10)
    with pytest.raises(TooLarge):
        bodies.from_ndjson(b"{}\n" * 11, 10)


def test_rows_that_share_no_column_cannot_fill_the_memory() -> None:
    with pytest.raises(TooLarge, match="cells"):
        bodies.from_json({"rows": [{f"c{n}": 1} for n in range(5000)]}, 10_000)


def test_ndjson_keeps_a_place_for_a_line_that_is_no_object() -> None:
    rows = bodies.from_ndjson(b'{"a": 1}\n\n[2]\n{"a": NaN}\n{"a": 4}', 10)
    assert rows.columns == {"a": [1, None, None, 4]}
    assert list(rows.unreadable) == [1, 2]


def test_a_line_that_is_no_strict_json_has_the_code_that_a_body_would_have() -> None:
    lines = (b'{"a": NaN}', b'{"a": 1, "a": 2}', b'{"a": 1', b"[2]", b'{"a": "\\u0000"}', b"\xff")
    rows = bodies.from_ndjson(b"\n".join(lines), 10)
    assert [error["code"] for error in rows.unreadable.values()] == [
        "non_finite_number",
        "duplicate_key",
        "malformed_json",
        "malformed_row",
        "nul",
        "malformed_json",
    ]


def test_csv_cells_are_text_and_empty_ones_are_missing() -> None:
    rows = bodies.from_csv(b'\xef\xbb\xbfAge,Port\r\n22,"S"\r\n,?\r\n', INPUTS, 10)
    assert rows.columns == {"Age": ["22", None], "Port": ["S", None]}
    assert rows.is_text


def test_spaces_around_a_name_belong_to_it_where_the_model_knows_it_so() -> None:
    rows = bodies.from_csv(b" Age , Port\n22,S\n", {" Age ": (), "Port": ("S",)}, 10)
    assert rows.columns == {" Age ": ["22"], "Port": ["S"]}


def test_a_known_category_that_reads_like_missing_stays() -> None:
    rows = bodies.from_csv(b"Age,Port\nNA,NA\n", INPUTS, 10)
    assert rows.columns == {"Age": [None], "Port": ["NA"]}


def test_a_ragged_csv_row_costs_only_itself() -> None:
    rows = bodies.from_csv(b"Age,Port\n1,S\n2\n3,S,x\n4,S\n", INPUTS, 10)
    assert rows.columns["Age"] == ["1", None, None, "4"]
    assert {row: error["code"] for row, error in rows.unreadable.items()} == {
        1: "ragged_row",
        2: "ragged_row",
    }


def test_a_blank_line_is_no_row_as_in_an_upload() -> None:
    assert bodies.from_csv(b"Age\n1\n\n3\n", INPUTS, 10).columns == {"Age": ["1", "3"]}
    assert bodies.from_csv(b"Age,Port\n1,S\n\n3,S\n", INPUTS, 10).count == 2


def test_a_csv_may_use_semicolons() -> None:
    assert bodies.from_csv(b"Age;Port\n1;S\n", INPUTS, 10).columns["Port"] == ["S"]


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "header_missing"), (b"22,S\n", "header_missing")],
)
def test_a_csv_without_a_usable_header_is_invalid(content: bytes, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        bodies.from_csv(content, INPUTS, 10)
    assert caught.value.code == code


def test_a_csv_that_is_not_utf8_names_the_byte() -> None:
    with pytest.raises(BadRequest, match="byte 4, in line 2"):
        bodies.from_csv(b"Age\n\xff\n", INPUTS, 10)


def test_a_name_that_a_header_repeats_is_another_column() -> None:
    rows = bodies.from_csv(b"Age,Age\n1,2\n", INPUTS, 10)
    assert rows.columns == {"Age": ["1"], "Age_2": ["2"]}


@pytest.mark.parametrize("content", [b'Age\n"1\n', b'Age\n1\n"', b'Age,Port\n1,"S\n2,S\n'])
def test_a_quote_that_is_never_closed_is_invalid_and_names_its_row(content: bytes) -> None:
    with pytest.raises(Invalid, match=r"of row [12] is never closed") as caught:
        bodies.from_csv(content, INPUTS, 10)
    assert caught.value.code == "unclosed_quote"


@pytest.mark.parametrize("content", [b'Age\n"1"\n2', b'Age\r\n"1"\r\n"2"', b'Age\n"1"\n"2"\n'])
def test_quotes_that_are_closed_are_no_part_of_the_value(content: bytes) -> None:
    assert bodies.from_csv(content, INPUTS, 10).columns == {"Age": ["1", "2"]}


def test_a_cell_beyond_the_limit_of_a_csv_is_invalid() -> None:
    with pytest.raises(Invalid, match="field larger than field limit"):
        bodies.from_csv(b"Age\n1\n" + b"1" * 3_000_000, INPUTS, 10)


def test_a_very_wide_header_is_checked_in_linear_time() -> None:
    names = [f"c{number}" for number in range(30_000)]
    began = time.process_time()
    with pytest.raises(Invalid, match="model's columns"):
        bodies.from_csv(",".join(names).encode(), INPUTS, 10)
    with pytest.raises(Invalid, match="model's columns"):
        bodies.from_csv(",".join([*names, "c7"]).encode(), INPUTS, 10)
    assert time.process_time() - began < 5  # seconds; comparing all pairs takes 20
