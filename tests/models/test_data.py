from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from descent.spec import ColumnSplit, GroupSplit, NoSplit, RandomSplit, TimeSplit
from models.data import Categories, Table, epoch_order, read_table, split_rows
from models.errors import DataInvalid
from tests.models.samples import make_table

ROWS = np.arange(100)
EMPTY = Table({}, {}, 100)


def test_a_random_split_has_the_shares_and_no_row_twice() -> None:
    split = split_rows(RandomSplit(validation=0.2, test=0.1), EMPTY, ROWS, labels=None, seed=3)
    assert [len(split.train), len(split.validation), len(split.test)] == [70, 20, 10]
    assert sorted([*split.train, *split.validation, *split.test]) == list(range(100))


def test_a_split_depends_on_the_seed_alone() -> None:
    first, again, other = (
        split_rows(RandomSplit(), EMPTY, ROWS, labels=None, seed=seed) for seed in (1, 1, 2)
    )
    assert np.array_equal(first.train, again.train)
    assert not np.array_equal(first.train, other.train)


@pytest.mark.parametrize("seed", range(5))
def test_a_random_split_keeps_the_proportion_of_classes(seed: int) -> None:
    labels = np.array([0] * 60 + [1] * 30 + [2] * 10)
    split = split_rows(RandomSplit(validation=0.2, test=0.2), EMPTY, ROWS, labels=labels, seed=seed)
    for part, expected in ((split.validation, [12, 6, 2]), (split.test, [12, 6, 2])):
        assert np.abs(np.bincount(labels[part], minlength=3) - expected).max() <= 1


def test_a_class_of_one_row_cannot_be_split() -> None:
    labels = np.array([0] * 99 + [1])
    with pytest.raises(DataInvalid, match="class of row 100 has 1 row"):
        split_rows(RandomSplit(), EMPTY, ROWS, labels=labels, seed=0)


def test_every_class_keeps_a_training_row() -> None:
    labels = np.repeat(np.arange(50), 2)
    split = split_rows(RandomSplit(), EMPTY, ROWS, labels=labels, seed=0)
    assert len(np.unique(labels[split.train])) == 50


def test_two_rows_are_too_few_for_three_parts() -> None:
    with pytest.raises(DataInvalid, match="2 rows are too few"):
        split_rows(RandomSplit(validation=0.2, test=0.2), EMPTY, np.arange(2), labels=None, seed=0)


def test_no_row_with_a_target_is_an_error() -> None:
    with pytest.raises(DataInvalid, match="no row has a value"):
        split_rows(NoSplit(), EMPTY, ROWS[:0], labels=None, seed=0)


def test_a_time_split_tests_the_latest_rows() -> None:
    table = make_table({"t": "datetime"}, t=[5, 1, 4, 2, 3, 9, 7, 8, 6, 0])
    split = split_rows(
        TimeSplit(column="t", validation=0.2, test=0.2), table, np.arange(10), labels=None, seed=0
    )
    when = table.numbers("t")
    assert sorted(when[split.test]) == [8, 9]
    assert sorted(when[split.validation]) == [6, 7]


def test_a_time_split_needs_every_time() -> None:
    table = make_table({"t": "datetime"}, t=[5, None, 4])
    with pytest.raises(DataInvalid, match="missing in 1 of them, first in row 2"):
        split_rows(TimeSplit(column="t"), table, np.arange(3), labels=None, seed=0)


def test_a_group_split_keeps_groups_together() -> None:
    groups = [f"g{row % 12}" for row in range(100)]
    table = make_table({"g": "category"}, g=groups)
    split = split_rows(
        GroupSplit(column="g", validation=0.2, test=0.2), table, ROWS, labels=None, seed=1
    )
    parts = [{groups[row] for row in part} for part in (split.train, split.validation, split.test)]
    assert all(parts)
    assert sum(map(len, parts)) == 12


def test_too_few_groups_are_an_error() -> None:
    table = make_table({"g": "category"}, g=["a", "b"] * 50)
    with pytest.raises(DataInvalid, match="more than 2 distinct values in 'g', found 2"):
        split_rows(
            GroupSplit(column="g", validation=0.2, test=0.2), table, ROWS, labels=None, seed=1
        )


def test_a_column_says_the_split() -> None:
    table = make_table({"s": "category"}, s=["train", "test", "validation", "train"])
    split = split_rows(ColumnSplit(column="s"), table, np.arange(4), labels=None, seed=0)
    assert [split.train.tolist(), split.validation.tolist(), split.test.tolist()] == [
        [0, 3],
        [2],
        [1],
    ]


def test_another_word_in_the_split_column_is_named() -> None:
    table = make_table({"s": "category"}, s=["train", "tset"])
    with pytest.raises(DataInvalid, match="row 2 says 'tset'"):
        split_rows(ColumnSplit(column="s"), table, np.arange(2), labels=None, seed=0)


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
