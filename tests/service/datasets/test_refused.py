"""Refused files: the code of the error, and the position of the fault."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from service.datasets.rejected import Rejected
from tests.service.datasets.tables import ARROW, JSON, NDJSON, PARQUET, Parse, refusal


@pytest.mark.parametrize(
    ("data", "code", "line"),
    [
        (b"a,b\n1,\xff\n", "not_utf8", 2),
        (b"a,b\n1,\xe2\x82", "not_utf8", 2),
        (b"a,b\n1,\x00\n", "nul_byte", 2),
    ],
)
def test_bytes_that_are_no_text_are_refused_with_their_line(
    parse: Parse, data: bytes, code: str, line: int
) -> None:
    assert refusal(parse, data) == {"code": code, "pointer": "", "line": line}


def test_a_short_row_names_the_first_column_that_it_lacks(parse: Parse) -> None:
    assert refusal(parse, b"a,b/c,d\n1,2,3\n\n4\n") == {
        "code": "ragged_row",
        "pointer": "/rows/1/b~1c",
        "row": 2,
        "column": "b/c",
    }


def test_a_long_row_names_no_column(parse: Parse) -> None:
    assert refusal(parse, b"a,b\n1,2,3\n") == {
        "code": "ragged_row",
        "pointer": "/rows/0",
        "row": 1,
    }


def test_a_row_of_ndjson_is_counted_without_blank_lines(parse: Parse) -> None:
    place = {"pointer": "/rows/1", "row": 2}
    assert refusal(parse, b'{"a":1}\n\n{"a"\n', NDJSON) == place | {
        "code": "malformed_json",
        "line": 3,
    }
    assert refusal(parse, b'{"a":1}\n\n[1]\n', NDJSON) == place | {"code": "not_an_object"}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b'{"rows":[{"a":1},{"a":[1]}]}', "/rows/1/a"),
        (b'{"columns":{"a":[1,[1]]}}', "/columns/a/1"),
    ],
)
def test_a_nested_value_is_pointed_to_in_the_body(parse: Parse, body: bytes, pointer: str) -> None:
    place = {"pointer": pointer, "row": 2, "column": "a"}
    assert refusal(parse, body, JSON) == place | {"code": "nested_value"}


def test_columns_of_different_lengths_are_told_by_name_and_row(parse: Parse) -> None:
    assert refusal(parse, b'{"columns":{"a":[1,2],"b":[1]}}', JSON) == {
        "code": "ragged_columns",
        "pointer": "/columns/b",
        "row": 2,
        "column": "b",
    }


@pytest.mark.parametrize(
    ("data", "code", "row"),
    [
        (b"", "empty_file", None),
        (b"\n\n", "empty_file", None),
        (b"a,b\n", "header_only", None),
        (b"a,b", "header_only", None),
        (b"a,b\n1,2\n3\n4,5\n", "ragged_row", 2),
        (b"a,b\n1,2\n3,4,5\n", "ragged_row", 2),
        (b"1,2\n3,4,5\n", "ragged_row", 2),
        (b'a,b\n1,2\n3,"x\n4,5\n', "unclosed_quote", 2),
        (b'a,b\n1,2\n"x,3\n4,5\n', "unclosed_quote", 2),
        (b"a,b\n1," + b"x" * 6_000_000 + b"\n", "row_too_long", 1),
    ],
)
def test_a_broken_text_table_is_refused_with_its_row(
    parse: Parse, data: bytes, code: str, row: int | None
) -> None:
    with pytest.raises(Rejected) as refused:
        parse(data)
    assert refused.value.code == code
    assert [error.get("row") for error in refused.value.errors] == ([] if row is None else [row])


@pytest.mark.parametrize(
    ("data", "code", "row"),
    [
        (b'{"a":1}\n{"a":\n', "malformed_json", 2),
        (b'{"a":1}\n[1]\n', "not_an_object", 2),
        (b'{"a":NaN}\n', "malformed_json", 1),
        (b'{"a":1,"a":2}\n', "malformed_json", 1),
        (b'{"a":{"b":1}}\n', "nested_value", 1),
        (b'{"a":1} {"a":2}\n', "malformed_json", 1),
        (b"[" * 100_000 + b"\n", "malformed_json", 1),
        (b'{"a":"\\ud800"}\n', "lone_surrogate", 1),
        (b'{"a":1}\n' * 10_001 + b'{"a":"\\ud800"}\n', "lone_surrogate", 10_002),
    ],
)
def test_a_broken_line_of_ndjson_is_refused(
    parse: Parse, data: bytes, code: str, row: int | None
) -> None:
    with pytest.raises(Rejected) as refused:
        parse(data, NDJSON)
    assert (refused.value.code, refused.value.errors[0].get("row")) == (code, row)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"columns":{"a":[1,NaN]}}', 400),
        (b'{"columns":{"a":[1]},"columns":{"a":[2]}}', 400),
        (b"{", 400),
        (b'{"columns":{"a":[1,2],"b":[1]}}', 422),
        (b'{"columns":{}}', 422),
        (b'{"rows":[]}', 422),
        (b'{"rows":[{}]}', 422),
        (b'{"rows":[{"a":1}],"columns":{"a":[1]}}', 422),
        (b'{"rows":[{"a":1}],"colour":1}', 422),
        (b'{"rows":[{"a":[1]}]}', 422),
        (b"[]", 422),
    ],
)
def test_a_broken_json_table_is_refused(parse: Parse, body: bytes, status: int) -> None:
    with pytest.raises(Rejected) as refused:
        parse(body, JSON)
    assert refused.value.status == status


@pytest.mark.parametrize(
    "body", [b'{"a":{"0":1,"1":2}}', b'{"columns_":[]}', b'{"data":[{"a":1}]}', b"{}"]
)
def test_json_of_another_shape_is_told_the_right_one(parse: Parse, body: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        parse(body, JSON)
    assert 'to_json(orient="records")' in refused.value.detail


def test_too_many_columns_are_refused(parse: Parse) -> None:
    with pytest.raises(Rejected, match="at most 10") as refused:
        parse(b",".join([b"1"] * 11) + b"\n", max_columns=10)
    assert refused.value.code == "too_many_columns"


def test_a_file_of_another_format_is_refused(parse: Parse) -> None:
    for media_type in (PARQUET, ARROW):
        with pytest.raises(Rejected) as refused:
            parse(b"a,b\n1,2\n", media_type)
        assert refused.value.code == "wrong_format"


def forged() -> list[Any]:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": list(range(1000))}), sink)
    data = sink.getvalue().to_pybytes()
    return [data[:-1], data[: len(data) // 2], data[:200] + b"\xff" * 300 + data[500:]]


@pytest.mark.parametrize("data", forged())
def test_a_damaged_parquet_file_is_refused(parse: Parse, data: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        parse(data, PARQUET)
    assert refused.value.code == "dataset_unparseable"
