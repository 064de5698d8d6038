import numpy as np
import pytest

from descent.spec import ColumnSplit, GroupSplit, NoSplit, RandomSplit, TimeSplit
from models.data import Table
from models.errors import DataInvalid
from models.training.scores import split_rows
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


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_one_row_trains(seed: int) -> None:
    labels = np.array([0] * 98 + [1, 2])
    split = split_rows(RandomSplit(validation=0.5), EMPTY, ROWS, labels=labels, seed=seed)
    assert {98, 99} <= set(split.train.tolist())
    assert len(split.validation) == 49


def test_rows_that_are_each_a_class_cannot_be_held_out() -> None:
    with pytest.raises(DataInvalid, match="each class has one row"):
        split_rows(RandomSplit(), EMPTY, ROWS, labels=np.arange(100), seed=0)


def test_each_class_trains_however_large_the_held_out_shares_are() -> None:
    labels = np.repeat(np.arange(10), 10)
    shares = RandomSplit(validation=0.45, test=0.5)
    split = split_rows(shares, EMPTY, ROWS, labels=labels, seed=0)
    assert len(np.unique(labels[split.train])) == 10
    assert sorted([*split.train, *split.validation, *split.test]) == list(range(100))


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


def test_a_column_says_the_split_in_other_words() -> None:
    words = ["Train", "VAL", "valid", "Validation", " dev ", "eval", "Test", "TRAINING"]
    table = make_table({"s": "category"}, s=words)
    split = split_rows(ColumnSplit(column="s"), table, np.arange(8), labels=None, seed=0)
    assert [part.tolist() for part in (split.train, split.validation, split.test)] == [
        [0, 7],
        [1, 2, 3, 4, 5],
        [6],
    ]


def test_another_word_in_the_split_column_is_named() -> None:
    table = make_table({"s": "category"}, s=["train", "tset"])
    with pytest.raises(DataInvalid, match="row 2 says 'tset'"):
        split_rows(ColumnSplit(column="s"), table, np.arange(2), labels=None, seed=0)
