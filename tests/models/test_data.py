from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from models.data import Categories, epoch_order, read_table
from tests.models.samples import make_table


def test_an_epoch_has_its_own_order_of_all_rows() -> None:
    first, again, next_one = epoch_order(1, 0, 50), epoch_order(1, 0, 50), epoch_order(1, 1, 50)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, next_one)
    assert sorted(first) == list(range(50))


def test_a_stored_version_is_read_with_its_gaps(tmp_path: Path) -> None:
    path = tmp_path / "version.parquet"
    table = pa.table(
        {
            "n": pa.array([1.5, None, float("nan"), float("inf")]),
            "i": pa.array([1, None, 2**60, 3]),
            "b": pa.array([True, None, False, True]),
            "c": pa.array(["x", None, "y", "x"]),
            "t": pa.array([0, None, 1_500_000, -1], pa.timestamp("us")),
            "unused": pa.array([1, 2, 3, 4]),
        }
    )
    pq.write_table(table, path)
    read = read_table(
        path,
        {"n": "number", "i": "integer", "b": "boolean", "c": "category", "t": "datetime"},
        ["n", "i", "b", "c", "t"],
    )
    assert read.rows == 4
    assert sorted(read.columns) == ["b", "c", "i", "n", "t"]
    np.testing.assert_array_equal(read.numbers("n"), [1.5, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(read.numbers("i"), [1, np.nan, 2.0**60, 3])
    np.testing.assert_array_equal(read.numbers("b"), [1, np.nan, 0, 1])
    np.testing.assert_array_equal(read.numbers("t"), [0, np.nan, 1.5, -1e-6])
    words = read.categories("c")
    assert [words.values[code] if code >= 0 else None for code in words.codes] == [
        "x",
        None,
        "y",
        "x",
    ]


def test_a_table_knows_which_rows_are_complete() -> None:
    table = make_table({"a": "number", "c": "category"}, a=[1, None, 3], c=["x", "y", None])
    assert table.present(["a", "c"]).tolist() == [True, False, False]
    assert isinstance(table.columns["c"], Categories)
