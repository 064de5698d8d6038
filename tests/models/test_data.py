from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from descent.spec import ColumnType
from models import data
from models.data import Categories, ColumnValues, epoch_order, open_table, read_table
from models.features import encoding
from models.features.fits import Moments
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


def mixed(path: Path, rows: int = 5_000) -> dict[str, ColumnType]:
    """Write a table of every type in several row groups; return its types."""
    random = np.random.default_rng(4)
    gaps = random.random(rows) < 0.1
    words = np.array(["b", "a", "c", "d", "é"])[random.integers(0, 5, rows)]
    table = pa.table(
        {
            "n": pa.array(random.normal(size=rows), mask=gaps),
            "i": pa.array(random.integers(-5, 5, rows), mask=gaps),
            "b": pa.array(random.random(rows) < 0.5),
            "c": pa.array(words.tolist(), mask=gaps),
            "t": pa.array(random.integers(0, 10**15, rows), pa.timestamp("us")),
            "y": pa.array(random.normal(size=rows)),
        }
    )
    pq.write_table(table, path, row_group_size=700)
    return {
        "n": "number",
        "i": "integer",
        "b": "boolean",
        "c": "category",
        "t": "datetime",
        "y": "number",
    }


def test_columns_that_are_read_when_used_are_those_of_the_whole_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = mixed(tmp_path / "t.parquet")
    whole = read_table(tmp_path / "t.parquet", types, list(types))
    for cells in (1, 10_000, 1_000_000):  # a column, two columns or all columns at a time
        monkeypatch.setattr(data, "KEPT_CELLS", cells)
        table = open_table(tmp_path / "t.parquet", types, list(types), ["y"])
        assert list(table.columns) == list(types)
        for name in ("t", "n", "c", "n", "y", "i", "b"):
            assert_equal(table.columns[name], whole.columns[name])


def test_categories_are_numbered_in_the_order_of_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    cells = ["b", None, "a", "b", "c", "a"]
    pq.write_table(pa.table({"c": cells}), path, row_group_size=2)
    found = read_table(path, {"c": "category"}, ["c"]).categories("c")
    assert list(found.values) == ["b", "a", "c"]
    assert found.codes.tolist() == [0, -1, 1, 0, 2, 1]


def test_rows_come_in_parts_with_their_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = mixed(tmp_path / "t.parquet")
    rows = np.sort(np.random.default_rng(1).permutation(5_000)[:1_234])
    whole = read_table(tmp_path / "t.parquet", types, list(types))
    monkeypatch.setattr(data, "KEPT_CELLS", 10_000)
    for table in (whole, open_table(tmp_path / "t.parquet", types, list(types), ["y"])):
        parts = list(table.parts(rows, 300))
        assert sum(part.rows for part in parts) == 1_234
        assert max(part.rows for part in parts) <= 300
        for name in ("n", "i", "b", "t", "y"):
            joined = np.concatenate([part.numbers(name) for part in parts])
            np.testing.assert_array_equal(joined, whole.numbers(name)[rows])
        joined_words = [word for part in parts for word in words_of(part.categories("c"))]
        assert joined_words == [words_of(whole.categories("c"))[row] for row in rows]


def test_encoded_rows_are_the_same_whether_columns_are_read_at_once_or_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = mixed(tmp_path / "t.parquet")
    monkeypatch.setattr(data, "KEPT_CELLS", 1)
    monkeypatch.setattr(data, "BLOCK_ROWS", 333)
    whole = read_table(tmp_path / "t.parquet", types, list(types))
    lazy = open_table(tmp_path / "t.parquet", types, list(types), ["y"])
    rows = np.arange(0, 5_000, 2)
    fitted = [
        encoding.Features.fit(
            table,
            rows,
            features=["n", "i", "b", "c", "t"],
            targets=["y"],
            task="regression",
            standardize=True,
        )
        for table in (whole, lazy)
    ]
    assert fitted[0].to_json() == fitted[1].to_json()
    at_once = fitted[0].encode(whole, rows)
    parts = [rows[:100], rows[100:]]
    blocks = list(fitted[1].encode_parts(lazy, parts))
    joined = [np.concatenate([block[part][0] for block in blocks]) for part in range(2)]
    assert np.concatenate(joined).tobytes() == at_once.tobytes()
    truth = np.concatenate([block[part][1] for part in range(2) for block in blocks])
    assert truth.tobytes() == fitted[0].encode_targets(whole, rows).tobytes()


@pytest.mark.parametrize("scale", [1.0, 1e-200, 1e306])
@pytest.mark.parametrize("shift", [0.0, 1.0, -1.0])
def test_moments_of_blocks_are_those_of_all_numbers(scale: float, shift: float) -> None:
    random = np.random.default_rng(2)
    values = (random.normal(size=10_000) + shift) * scale
    values[:100] = 7 * scale  # a block without deviation
    joined, whole = Moments(), Moments()
    whole.add(values)
    for start in range(0, len(values), 100):
        joined.add(values[start : start + 100])
    assert (joined.count, joined.low, joined.high) == (whole.count, whole.low, whole.high)
    assert joined.mean == pytest.approx(whole.mean, rel=1e-9)
    assert joined.std == pytest.approx(whole.std, rel=1e-9)


def test_equal_numbers_in_blocks_have_no_deviation() -> None:
    joined = Moments()
    for _ in range(1000):
        joined.add(np.full(64, 0.1))
    assert (joined.mean, joined.std) == (0.1, 0.0)


def words_of(column: Categories) -> list[str | None]:
    return [column.values[code] if code >= 0 else None for code in column.codes]


def assert_equal(one: ColumnValues, other: ColumnValues) -> None:
    if isinstance(one, Categories):
        assert isinstance(other, Categories)
        assert list(one.values) == list(other.values)
        np.testing.assert_array_equal(one.codes, other.codes)
        return
    assert not isinstance(other, Categories)
    np.testing.assert_array_equal(one, other)
