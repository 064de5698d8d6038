"""The folds of a cross-validation hold each row out once in each repeat."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from descent.spec import KFoldSplit, RunConfig
from models.data import Table
from models.errors import DataInvalid
from models.training.folds import fold_table
from models.training.scores import RowSplit
from tests.models.samples import make_table

SHAPES = [(rows, folds, seed) for rows in (7, 40, 101) for folds in (2, 3, 7) for seed in range(3)]


def table(rows: int) -> Table:
    random = np.random.default_rng(rows)
    return make_table(
        {"y": "number", "c": "category", "g": "integer"},
        y=random.normal(size=rows).tolist(),
        c=random.choice(["a", "b", "b", "b", "c"], rows).tolist(),
        g=random.integers(0, max(8, rows // 4), rows).tolist(),
    )


def divided(read: Table, seed: int = 0, target: str = "y", **split: Any) -> list[RowSplit]:
    task = "regression" if target == "y" else "multiclass"
    asked = {"dataset": "ds_1", "target": target, "task": task, "seed": seed}
    config = RunConfig.model_validate(asked | {"split": {"type": "kfold"} | split})
    return fold_table(config, read)


@pytest.mark.parametrize(("rows", "folds", "seed"), SHAPES)
def test_each_row_is_held_out_once_and_trains_otherwise(rows: int, folds: int, seed: int) -> None:
    found = divided(table(rows), seed, folds=folds)
    assert len(found) == folds
    held_out = np.concatenate([each.validation for each in found])
    assert sorted(held_out.tolist()) == list(range(rows))
    sizes = [len(each.validation) for each in found]
    assert max(sizes) - min(sizes) <= 1
    for each in found:
        assert sorted([*each.train, *each.validation]) == list(range(rows))
        assert (np.diff(each.train) > 0).all()
        assert (np.diff(each.validation) > 0).all()
        assert len(each.test) == 0


@pytest.mark.parametrize(("rows", "folds", "seed"), SHAPES)
def test_a_class_has_as_many_rows_in_each_fold_as_in_another(
    rows: int, folds: int, seed: int
) -> None:
    read = table(rows)
    codes = read.categories("c").codes
    counts = np.array(
        [
            np.bincount(codes[each.validation], minlength=3)
            for each in divided(read, seed, "c", folds=folds)
        ]
    )
    assert (np.ptp(counts, axis=0) <= 1).all()
    assert np.ptp(counts.sum(axis=1)) <= 1


@pytest.mark.parametrize(("rows", "folds", "seed"), SHAPES)
def test_rows_of_a_group_are_in_one_fold(rows: int, folds: int, seed: int) -> None:
    read = table(rows)
    groups = read.numbers("g")
    if len(np.unique(groups)) < folds:
        pytest.skip("too few groups")
    found = divided(read, seed, folds=folds, column="g")
    for each in found:
        assert len(each.validation)
        assert not np.intersect1d(groups[each.train], groups[each.validation]).size
    assert sum(len(each.validation) for each in found) == rows


def test_folds_depend_on_the_seed_alone_and_repeats_differ() -> None:
    first, again, other = (divided(table(40), seed, repeats=2) for seed in (1, 1, 2))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.validation, two.validation)
    half = len(first) // 2
    assert first[0].validation.tolist() != other[0].validation.tolist()
    assert first[0].validation.tolist() != first[half].validation.tolist()


def test_few_rows_have_more_folds_unless_a_run_names_them() -> None:
    counts = [KFoldSplit().count(rows) for rows in (1, 2, 6, 13, 999, 1000)]
    assert counts == [2, 2, 6, 10, 10, 5]
    assert KFoldSplit(folds=3).count(13) == 3


def test_rows_without_a_target_are_in_no_fold() -> None:
    read = make_table({"y": "number"}, y=[1.0, None, 2.0, 4.0, None, 3.0])
    held_out = [each.validation.tolist() for each in divided(read, folds=2)]
    assert sorted(row for fold in held_out for row in fold) == [0, 2, 3, 5]


def test_too_few_rows_or_groups_are_named() -> None:
    with pytest.raises(DataInvalid, match="7 rows with a target are too few for 8 folds"):
        divided(table(7), folds=8)
    read = make_table({"y": "number", "g": "integer"}, y=[1, 2, 3, 4], g=[1, 1, 2, 2])
    with pytest.raises(DataInvalid, match="3 folds need as many groups, but 'g' has 2"):
        divided(read, folds=3, column="g")


@pytest.mark.parametrize("wrong", [{"folds": 1}, {"folds": 21}, {"repeats": 0}, {"repeats": 11}])
def test_folds_and_repeats_have_limits(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        KFoldSplit.model_validate(wrong)
