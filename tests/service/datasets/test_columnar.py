"""Parquet and Arrow: the types of their columns, and which columns are left out."""

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq
import pytest

from service.datasets.columnar import open_parquet, stage_parquet
from service.datasets.rejected import Rejected
from tests.service.datasets.tables import ARROW, PARQUET, Parse, types

NOON = dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)
#: name → the array of the file, the type of the column, its first value
KINDS: dict[str, tuple[Any, str, Any]] = {
    "texts by number": (pa.array(["x", " y", "x"]).dictionary_encode(), "category", "x"),
    "decimals": (pa.array([Decimal("1.25"), None, 2], pa.decimal128(20, 2)), "number", 1.25),
    "large decimals": (pa.array([Decimal("1.5")] * 3, pa.decimal256(50, 2)), "number", 1.5),
    "whole decimals": (
        pa.array([Decimal(7)] * 3, pa.decimal128(38, 0)), "integer", 7,
    ),
    "durations": (pa.array([dt.timedelta(seconds=1.5)] * 3, pa.duration("ms")), "number", 1.5),
    "nanoseconds": (pa.array([1_500_000_000] * 3, pa.duration("ns")), "number", 1.5),
    "unsigned": (pa.array([255, 0, 1], pa.uint8()), "integer", 255),
    "unsigned 64": (pa.array([2**63 - 1, 0, 1], pa.uint64()), "integer", 2**63 - 1),
    "integers": (pa.array([2**53 + 1, 5, 5], pa.int64()), "integer", 2**53 + 1),
    "halves": (pa.array([1.5, float("nan"), float("inf")], pa.float16()), "number", 1.5),
    "clock": (pa.array([dt.time(9, 30)] * 3), "datetime", dt.datetime(1970, 1, 1, 9, 30)),  # noqa: DTZ001
    "clock in seconds": (
        pa.array([dt.time(9, 30)] * 3, pa.time32("s")), "datetime", dt.datetime(1970, 1, 1, 9, 30),  # noqa: DTZ001
    ),
    "zoned": (
        pa.array([NOON] * 3, pa.timestamp("ns", "Europe/Berlin")),
        "datetime",
        NOON.replace(tzinfo=None),
    ),
    "days": (pa.array([NOON.date()] * 3), "datetime", dt.datetime(2024, 1, 1)),  # noqa: DTZ001
    "days in ms": (pa.array([NOON.date()] * 3, pa.date64()), "datetime", dt.datetime(2024, 1, 1)),  # noqa: DTZ001
    "large texts": (pa.array([" a ", "b", "a"], pa.large_string()), "category", "a"),
    "views of texts": (pa.array(["a", "b", "a"], pa.string_view()), "category", "a"),
}  # fmt: skip
#: what only Arrow files hold
ONLY_ARROW: dict[str, tuple[Any, str, Any]] = {
    "numbers by number": (pa.array([7, 8, 7]).dictionary_encode(), "category", "7"),
    "views by number": (
        pa.DictionaryArray.from_arrays([0, 1, 0], pa.array(["x", "y"], pa.string_view())),
        "category",
        "x",
    ),
    "runs": (pc.call_function("run_end_encode", [pa.array(["a", "b", "a"])]), "category", "a"),
}
UNUSABLE: dict[str, Any] = {
    "bytes": pa.array([b"a"] * 3),
    "lists": pa.array([[1]] * 3),
    "objects": pa.array([{"a": 1}] * 3),
    "maps": pa.array([[("a", 1)]] * 3, pa.map_(pa.string(), pa.int64())),
    "keys": pa.array([b"0123456789abcdef"] * 3, pa.binary(16)),
}


def parquet(folder: Path, table: pa.Table) -> bytes:
    pq.write_table(table, folder / "in.parquet")
    return (folder / "in.parquet").read_bytes()


def arrow(folder: Path, table: pa.Table) -> bytes:
    with pa.ipc.new_file(str(folder / "in.arrow"), table.schema) as writer:
        writer.write_table(table)
    return (folder / "in.arrow").read_bytes()


FORMATS = pytest.mark.parametrize(("write", "form"), [(parquet, PARQUET), (arrow, ARROW)])


@FORMATS
def test_each_type_of_a_file_has_its_values(
    parse: Parse, tmp_path: Path, write: Any, form: str
) -> None:
    kinds = KINDS if form == PARQUET else KINDS | ONLY_ARROW
    parsed = parse(write(tmp_path, pa.table({name: kind[0] for name, kind in kinds.items()})), form)
    assert types(parsed) == {name: kind[1] for name, kind in kinds.items()}
    first = pq.read_table(tmp_path / "scratch" / "table.parquet").to_pylist()[0]
    assert first == {name: kind[2] for name, kind in kinds.items()}
    assert parsed["warnings"] == []


@FORMATS
def test_columns_that_no_cell_can_hold_are_left_out(
    parse: Parse, tmp_path: Path, write: Any, form: str
) -> None:
    parsed = parse(write(tmp_path, pa.table({"x": [1, 2, 3]} | UNUSABLE | {"y": [1, 1, 2]})), form)
    assert list(types(parsed)) == ["x", "y"]
    told = [(w["code"], w["column"]) for w in parsed["warnings"]]
    assert told == [("column_left_out", name) for name in UNUSABLE]


@pytest.mark.parametrize("kind", [pa.uint64(), pa.decimal128(38, 0)])
def test_whole_numbers_beyond_64_bits_are_texts_with_all_digits(tmp_path: Path, kind: Any) -> None:
    large = [Decimal(2**63 + n) if pa.types.is_decimal(kind) else 2**63 + n for n in (1, 3, 1)]
    table = pa.table({"k": pa.array(large, kind), "y": [1, 2, 3]})
    parquet(tmp_path, table)
    stage = stage_parquet(tmp_path / "in.parquet", tmp_path, max_columns=10)
    assert stage.kinds == ["text", "integer"]


@pytest.mark.parametrize(
    "index", [pd.RangeIndex(3), pd.Index([5, 2, 9]), pd.Index(["r", "s", "t"])]
)
def test_the_index_of_a_dataframe_is_no_column(parse: Parse, tmp_path: Path, index: Any) -> None:
    pd.DataFrame({"x": [1, 2, 3]}, index=index).to_parquet(tmp_path / "in.parquet")
    parsed = parse((tmp_path / "in.parquet").read_bytes(), PARQUET)
    assert types(parsed) == {"x": "integer"}
    codes = [w["code"] for w in parsed["warnings"]]
    assert codes == ([] if isinstance(index, pd.RangeIndex) else ["column_left_out"])


def test_the_index_of_a_dataframe_with_a_name_is_a_column(parse: Parse, tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1, 2, 3]}, index=pd.Index([5, 2, 9], name="age"))
    frame.to_parquet(tmp_path / "in.parquet")
    assert list(types(parse((tmp_path / "in.parquet").read_bytes(), PARQUET))) == ["x", "age"]


def test_categories_of_pandas_are_categories(parse: Parse, tmp_path: Path) -> None:
    kinds = {"numbers": [1, 2, 1], "texts": ["a", "b", "a"]}
    frame = pd.DataFrame({name: pd.Categorical(values) for name, values in kinds.items()})
    frame.to_parquet(tmp_path / "in.parquet")
    parsed = parse((tmp_path / "in.parquet").read_bytes(), PARQUET)
    assert types(parsed) == dict.fromkeys(kinds, "category")


@pytest.mark.parametrize("told", [b"[", b"[1]", b'{"columns": 5}', b'{"columns": [5]}'])
def test_metadata_that_pandas_does_not_write_is_ignored(
    parse: Parse, tmp_path: Path, told: bytes
) -> None:
    table = pa.table({"x": [1, 2]}).replace_schema_metadata({b"pandas": told})
    assert types(parse(parquet(tmp_path, table), PARQUET)) == {"x": "integer"}


def test_given_markers_are_missing_in_typed_columns_too(parse: Parse, tmp_path: Path) -> None:
    table = pa.table({"i": [-999, 1, 2], "n": [-999.0, 1.5, 2.5], "t": ["-", "a", "a"]})
    data = parquet(tmp_path, table)
    marked = parse(data, PARQUET, missing_values=["-999", "-"])
    assert [each["missing"] for each in marked["columns"]] == [1, 1, 1]
    assert [each["missing"] for each in parse(data, PARQUET)["columns"]] == [0, 0, 0]


def test_a_damaged_column_refuses_the_file(parse: Parse, tmp_path: Path) -> None:
    data = bytearray(parquet(tmp_path, pa.table({"x": list(range(1000)), "y": list(range(1000))})))
    data[300:600] = b"\xff" * 300
    with pytest.raises(Rejected) as refused:
        parse(bytes(data), PARQUET)
    assert refused.value.code == "dataset_unparseable"


def test_a_list_of_objects_is_a_table(parse: Parse) -> None:
    parsed = parse(b'[{"x": 1, "c": "a"}, {"c": "b", "z": true}, {"x": 2.5}]', "application/json")
    assert types(parsed) == {"x": "number", "c": "id", "z": "boolean"}
    assert (parsed["rows"], parsed["name"]) == (3, None)


@pytest.mark.parametrize("body", [b"[]", b"[1]", b'[{"a": [1]}]', b'"a"'])
def test_a_list_of_anything_else_is_refused(parse: Parse, body: bytes) -> None:
    with pytest.raises(Rejected) as refused:
        parse(body, "application/json")
    assert refused.value.status == 422


def test_json_with_a_byte_order_mark_is_read(parse: Parse) -> None:
    assert parse(b'\xef\xbb\xbf[{"x": 1}]', "application/json")["rows"] == 1
    assert parse(b'\xef\xbb\xbf{"x": 1}', "application/x-ndjson")["rows"] == 1
    assert parse('[{"x": "ü"}]'.encode("utf-16"), "application/json")["rows"] == 1
    assert parse('{"x": "ü"}\n'.encode("utf-16"), "application/x-ndjson")["rows"] == 1


def test_reading_a_file_takes_the_memory_of_one_row_group(tmp_path: Path) -> None:
    path, random = tmp_path / "table.parquet", np.random.default_rng(0)
    table = pa.table({f"x{place}": random.random(200_000) for place in range(5)})
    pq.write_table(table, path, row_group_size=10_000, use_dictionary=False, compression="none")
    size = table.nbytes
    del table
    before = most = pa.total_allocated_bytes()
    with open_parquet(path) as (_schema, batches):
        for _batch in batches:
            most = max(most, pa.total_allocated_bytes())
    assert most - before < size / 5
