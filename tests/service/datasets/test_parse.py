"""Parsing: from the bytes of every kind of file to typed columns."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from service.datasets.rejected import Rejected
from tests.service.datasets.tables import (
    ARROW,
    JSON,
    NDJSON,
    PARQUET,
    Parse,
    column,
    refusal,
    types,
)


def test_the_first_row_of_numbers_below_words_is_no_header(parse: Parse) -> None:
    assert types(parse(b"5.1,setosa\n4.9,setosa\n6.0,virginica\n")) == {
        "column_1": "number",
        "column_2": "category",
    }


def test_words_above_numbers_are_a_header(parse: Parse) -> None:
    parsed = parse(b"Quiz,Final\n25.2,30.5\n8.4,13.6\n")
    assert (parsed["rows"], types(parsed)) == (2, {"Quiz": "number", "Final": "number"})


def test_a_table_of_words_has_a_header_where_its_cells_never_come_back(parse: Parse) -> None:
    assert list(types(parse(b"sex,port\nm,S\nf,C\nm,C\n"))) == ["sex", "port"]


def test_a_table_of_words_has_no_header_where_its_cells_come_back(parse: Parse) -> None:
    assert list(types(parse(b"m,S\nf,C\nm,S\n"))) == ["column_1", "column_2"]


def test_a_header_is_found_below_empty_lines(parse: Parse) -> None:
    parsed = parse(b"\xef\xbb\xbf\r\n\na,b\n1,2\n\n3,4\n")
    assert (parsed["rows"], types(parsed)) == (2, {"a": "integer", "b": "integer"})
    assert refusal(parse, b"\n\na,b\n1,2\n3\n")["row"] == 2
    assert refusal(parse, b"\n\n1,2\n3\n")["row"] == 2


def test_the_header_may_be_given(parse: Parse) -> None:
    assert parse(b"1,2\n3,4\n", header="present")["rows"] == 1
    assert parse(b"a,b\n3,4\n", header="absent")["rows"] == 2


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(parse: Parse, delimiter: str) -> None:
    data = "name,x\nAnn,1.5\nBob,2.5\n".replace(",", delimiter)
    assert list(types(parse(data.encode()))) == ["name", "x"]


def test_quotes_newlines_and_a_byte_order_mark_are_read(parse: Parse, tmp_path: Path) -> None:
    parse(b'\xef\xbb\xbfname,x\r\n"a ""b"",\nc",1\r\nd,2\r\n')
    table = pq.read_table(tmp_path / "scratch" / "table.parquet")
    assert table.to_pylist() == [{"name": 'a "b",\nc', "x": 1}, {"name": "d", "x": 2}]


def test_every_type_is_told_from_its_values(parse: Parse) -> None:
    rows = [
        f"{i / 2},{i % 3},{('no', 'yes')[i % 2]},{'ab'[i % 2]},2024-01-{i + 1:02},{i:03},text {i}"
        for i in range(25)
    ]
    parsed = parse(b"n,i,b,c,d,z,t\n" + "\n".join(rows).encode())
    assert types(parsed) == {
        "n": "number",
        "i": "integer",
        "b": "boolean",
        "c": "category",
        "d": "datetime",
        "z": "id",
        "t": "id",
    }
    assert all(c["why"] for c in parsed["columns"])


def test_zero_and_one_are_integers(parse: Parse) -> None:
    assert types(parse(b"x\n0\n1\n1\n")) == {"x": "integer"}


@pytest.mark.parametrize("name", ["id", "user_id", "PassengerId", "uuid", "index"])
def test_distinct_integers_with_such_a_name_are_ids(parse: Parse, name: str) -> None:
    found = column(parse(f"{name},y\n1,1.5\n2,2.5\n".encode()), name)
    assert (found["type"], found["role"]) == ("id", "ignored")


def test_a_number_with_decimals_is_never_an_id(parse: Parse) -> None:
    assert types(parse(b"id,y\n1.5,1\n2.5,2\n"))["id"] == "number"


def test_a_whole_number_beyond_64_bits_among_others_is_a_number(parse: Parse) -> None:
    data = b"x,y\n123456789012345678901234,1\n" + b"".join(b"%d,2\n" % i for i in range(30))
    assert types(parse(data))["x"] == "number"


def test_missing_values_are_missing(parse: Parse) -> None:
    parsed = parse(b"x,y\n1,a\n NA ,b\n?,a\nnull,b\n,a\n3,b\n")
    assert (column(parsed, "x")["type"], column(parsed, "x")["missing"]) == ("integer", 4)


def test_missing_values_may_be_given(parse: Parse) -> None:
    found = column(parse(b"x,y\n1,a\n-9,b\n3,a\n", missing_values=["-9"]), "x")
    assert (found["missing"], found["min"]) == (1, 1)


def test_a_text_in_the_last_row_of_a_numeric_column_is_counted(parse: Parse) -> None:
    data = b"x,y\n" + b"".join(b"%d,1.5\n" % (i % 50) for i in range(30_000)) + b"oops,1.5\n"
    parsed = parse(data)
    assert (parsed["rows"], column(parsed, "x")["type"]) == (30_001, "category")
    told = "1 of 30001 values is not a number, first in row 30001: 'oops'"
    assert told in column(parsed, "x")["why"]
    assert parsed["warnings"][0]["code"] == "mostly_numbers"


def test_a_given_type_makes_what_does_not_fit_missing(parse: Parse) -> None:
    parsed = parse(b"x,y\n1,2\noops,3\n5,4\n", types={"x": "number"})
    found = column(parsed, "x")
    assert (found["type"], found["missing"], found["max"]) == ("number", 1, 5.0)
    assert [w["code"] for w in parsed["warnings"]] == ["values_lost"]


def test_infinities_are_missing(parse: Parse, tmp_path: Path) -> None:
    found = column(parse(b"x,y\n1.5,1\ninf,2\n-inf,3\n1e999,4\n"), "x")
    assert (found["missing"], found["max"]) == (3, 1.5)
    stored = pq.read_table(tmp_path / "scratch" / "table.parquet")["x"].to_pylist()
    assert stored == [1.5, None, None, None]


def test_numbers_that_are_not_finite_are_counted_in_the_reason(parse: Parse) -> None:
    found = column(parse(b"x,y\n1.5,1\ninf,2\n1e999,4\n"), "x")
    told = "every value parses as a number; 2 of 3 values are not finite and become missing"
    assert found["why"] == told
    parsed = parse(b'{"columns":{"a":[1e400]}}', JSON)
    assert column(parsed, "a")["why"].endswith("; 1 of 1 values is not finite and becomes missing")
    assert [w["code"] for w in parsed["warnings"]] == ["values_lost"]


@pytest.mark.parametrize("cell", ["0x10", "0b11"])
def test_numbers_of_another_base_are_texts(parse: Parse, cell: str) -> None:
    parsed = parse(f"x,y\n{cell},1\n5,2\n6,2\n".encode())
    assert types(parsed)["x"] == "id"
    assert f"first in row 1: {cell!r}" in column(parsed, "x")["why"]
    assert column(parsed, "x")["missing"] == 0


def test_numbers_are_profiled(parse: Parse) -> None:
    found = column(parse(b"x,y\n1,a\n2,b\n3,a\n4.5,b\n"), "x")
    assert found["mean"] == pytest.approx(2.625)
    assert found["std"] == pytest.approx(1.4930394)  # of a sample
    assert (found["min"], found["max"], found["distinct"]) == (1.0, 4.5, 4)
    assert sum(found["histogram"]["counts"]) == 4
    assert len(found["histogram"]["edges"]) == len(found["histogram"]["counts"]) + 1


def test_the_largest_numbers_are_profiled_without_overflow(parse: Parse) -> None:
    found = column(parse(b"x,y\n1.7e308,1\n-1.7e308,2\n1e308,3\n"), "x")
    assert found["max"] == 1.7e308
    assert sum(found["histogram"]["counts"]) == 3
    json.dumps(found, allow_nan=False)


def test_frequent_values_come_most_frequent_first(parse: Parse) -> None:
    found = column(parse(b"x,y\n1,b\n2,a\n3,a\n"), "y")
    assert found["top"] == [{"value": "a", "count": 2}, {"value": "b", "count": 1}]


def test_dates_with_offsets_are_stored_in_utc(parse: Parse, tmp_path: Path) -> None:
    parsed = parse(b"t,y\n2024-01-01T12:00:00+02:00,1\n2024-06-01,2\n")
    assert column(parsed, "t")["min"] == "2024-01-01T10:00:00Z"
    field = pq.read_schema(tmp_path / "scratch" / "table.parquet").field("t")
    assert field.type == pa.timestamp("us")


def test_an_ambiguous_date_gets_a_warning(parse: Parse) -> None:
    parsed = parse(b"t,y\n01/02/2024,1\n03/04/2024,2\n")
    assert types(parsed)["t"] == "datetime"
    assert parsed["warnings"][0]["code"] == "ambiguous_date"


def test_a_day_beyond_twelve_tells_the_order(parse: Parse) -> None:
    parsed = parse(b"t,y\n13/02/2024,1\n03/04/2024,2\n")
    assert (column(parsed, "t")["min"], parsed["warnings"]) == ("2024-02-13T00:00:00Z", [])


def test_where_no_feature_would_remain_texts_stay_features(parse: Parse) -> None:
    parsed = parse(b"a,b\nx1,y1\nx2,y2\nx3,y3\n")
    assert {c["role"] for c in parsed["columns"]} == {"feature"}
    assert [w["code"] for w in parsed["warnings"]] == ["only_ids_and_text"]


BARE = {
    "dates": ("t\n2020-01-01\n2020-02-01\n", ["datetime"]),
    "missing": ("a,b\n,\n,\n", ["text", "text"]),
    "ids": ("a\n" + "".join(f"x{i}\n" for i in range(1500)), ["id"]),
    "dates and messages": (
        "t,m\n" + "".join(f"2020-01-01,said {i}\n" for i in range(1500)),
        ["datetime", "id"],
    ),
}


@pytest.mark.parametrize("name", BARE)
def test_a_table_without_histogram_and_top_values_is_a_table(
    parse: Parse, tmp_path: Path, name: str
) -> None:
    data, wanted = BARE[name]
    parsed = parse(data.encode())
    assert list(types(parsed).values()) == wanted
    assert pq.read_metadata(tmp_path / "scratch" / "table.parquet").num_rows == parsed["rows"]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [(pa.array([0, 1], pa.timestamp("us")), "datetime"), (pa.nulls(2), "text")],
)
def test_a_parquet_file_may_have_nothing_to_count(
    parse: Parse, tmp_path: Path, values: Any, wanted: str
) -> None:
    pq.write_table(pa.table({"a": values}), tmp_path / "in.parquet")
    parsed = parse((tmp_path / "in.parquet").read_bytes(), PARQUET)
    assert (parsed["rows"], types(parsed)) == (2, {"a": wanted})


def test_repeated_and_empty_names_are_made_unique(parse: Parse) -> None:
    parsed = parse(b"a,,a,A\n1,2,3,4\n5,6,7,8\n")
    assert list(types(parsed)) == ["a", "column_2", "a_2", "A"]
    assert [w["code"] for w in parsed["warnings"]] == ["unnamed_column", "duplicate_column"]


def test_names_that_mean_something_to_sql_are_only_names(parse: Parse, tmp_path: Path) -> None:
    parse(b'"a\'; DROP TABLE x; --","select "" from",a.b\n1,2,3\n4,5,6\n')
    names = pq.read_schema(tmp_path / "scratch" / "table.parquet").names
    assert names == ["a'; DROP TABLE x; --", 'select " from', "a.b"]


def test_more_columns_than_one_slab_keep_their_order(parse: Parse, tmp_path: Path) -> None:
    header = ",".join(f"x{i}" for i in range(110))
    rows = "\n".join(",".join(str(i * 1000 + r) for i in range(110)) for r in range(2))
    assert len(parse(f"{header}\n{rows}\n".encode())["columns"]) == 110
    row = pq.read_table(tmp_path / "scratch" / "table.parquet").to_pylist()[1]
    assert list(row.values()) == [i * 1000 + 1 for i in range(110)]


# ---- other formats --------------------------------------------------------------------------


def test_ndjson_may_begin_columns_late(parse: Parse, tmp_path: Path) -> None:
    parsed = parse(b'{"a":1,"b":"x"}\n\n{"a":2.5,"c":true}\n{"b":null}\n', NDJSON)
    assert types(parsed) == {"a": "number", "b": "id", "c": "boolean"}
    rows = pq.read_table(tmp_path / "scratch" / "table.parquet").to_pylist()
    assert rows[2] == {"a": None, "b": None, "c": None}


def test_json_columns_and_rows_are_the_same_table(parse: Parse) -> None:
    columns = parse(b'{"name":"t","columns":{"a":[1,null,3],"b":["x","y","x"]}}', JSON)
    rows = parse(b'{"name":"t","rows":[{"a":1,"b":"x"},{"b":"y"},{"a":3,"b":"x"}]}', JSON)
    assert columns == rows
    assert columns["name"] == "t"


def test_parquet_keeps_its_types(parse: Parse, tmp_path: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([1.5, float("nan"), None]),
            "i": pa.array([1, 2, 2], pa.int16()),
            "b": pa.array([True, None, False]),
            "c": pa.array(["x", "x", "y"]).dictionary_encode(),
            "t": pa.array([0, 1, 2], pa.timestamp("ns", "UTC")),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    parsed = parse((tmp_path / "in.parquet").read_bytes(), PARQUET)
    assert list(types(parsed).values()) == ["number", "integer", "boolean", "category", "datetime"]
    assert column(parsed, "n")["missing"] == 2


def test_an_arrow_file_is_read(parse: Parse, tmp_path: Path) -> None:
    table = pa.table({"a": [1.5, 2.5], "b": ["x", "y"]})
    with pyarrow.ipc.new_file(str(tmp_path / "in.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert parse((tmp_path / "in.arrow").read_bytes(), ARROW)["rows"] == 2


def test_a_nested_column_is_left_out_by_name(parse: Parse, tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1], "deep": [[1, 2]]}), tmp_path / "in.parquet")
    parsed = parse((tmp_path / "in.parquet").read_bytes(), PARQUET)
    assert types(parsed) == {"a": "integer"}
    assert (parsed["warnings"][0]["code"], parsed["warnings"][0]["column"]) == (
        "column_left_out",
        "deep",
    )


def test_a_file_without_any_usable_column_is_refused(parse: Parse, tmp_path: Path) -> None:
    pq.write_table(pa.table({"deep": [[1, 2]]}), tmp_path / "in.parquet")
    with pytest.raises(Rejected, match="deep") as refused:
        parse((tmp_path / "in.parquet").read_bytes(), PARQUET)
    assert refused.value.code == "unsupported_type"


def test_numbers_may_have_a_decimal_comma_where_no_comma_separates_cells(parse: Parse) -> None:
    parsed = parse(b"Gewicht;Alter\n63,5;7\n70;8\n", types={"Alter": "number"})
    assert types(parsed) == {"Gewicht": "number", "Alter": "number"}
    assert column(parsed, "Gewicht")["mean"] == pytest.approx(66.75)


def test_a_decimal_comma_is_no_name_of_a_column(parse: Parse) -> None:
    assert list(types(parse(b"63,5;1,5\n70,1;2,5\n"))) == ["column_1", "column_2"]


def test_quoted_thousands_are_not_taken_for_decimals(parse: Parse) -> None:
    assert types(parse(b'a,b\n"1,000",x\n"2,500",y\n'))["a"] != "number"
