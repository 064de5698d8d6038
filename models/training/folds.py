"""The folds of a cross-validation: each row is held out once in each repeat. Knows NumPy only."""

from collections.abc import Iterator

import numpy as np

from descent.spec import KFoldSplit, RunConfig
from models.data import Integers, Table, generator
from models.errors import DataInvalid
from models.training.scores import RowSplit, groups_of, rows_to_split

#: The streams of `data.generator` that shuffle for the folds; the repeats count from here.
STREAM = 2**63 + 2**61


def fold_table(config: RunConfig, table: Table) -> list[RowSplit]:
    """Divide the rows that have a target: one division for each fold of each repeat, in order.

    The validation rows of a division are its fold, its training rows all others. Raises
    `DataInvalid` if the table does not allow so many folds.
    """
    split = config.split
    if not isinstance(split, KFoldSplit):
        raise TypeError(f"folds belong to the split kfold, got {split.type!r}")
    rows, labels = rows_to_split(config, table)
    folds = split.count(len(rows))
    if len(rows) < folds:
        raise DataInvalid(f"{len(rows)} rows with a target are too few for {folds} folds")
    return list(_divide(split, folds, table, rows, labels, config.seed))


def _divide(
    split: KFoldSplit,
    folds: int,
    table: Table,
    rows: Integers,
    labels: Integers | None,
    seed: int,
) -> Iterator[RowSplit]:
    for repeat in range(split.repeats):
        random = generator(seed, STREAM + repeat)
        if split.column is not None:
            of_row = _by_group(split.column, folds, table, rows, random)
        else:
            of_row = _by_row(folds, rows, labels, random)
        for fold in range(folds):
            held_out = of_row == fold
            yield RowSplit(rows[~held_out], rows[held_out], rows[:0])


def _by_row(
    folds: int, rows: Integers, labels: Integers | None, random: np.random.Generator
) -> Integers:
    """Return the fold of each row. The sizes of folds, and of each class in them, differ by 1."""
    order = random.permutation(len(rows))
    if labels is not None:
        # Dealt out class by class: a class takes neighbouring places.
        order = order[np.argsort(labels[rows][order], kind="stable")]
    found = np.empty(len(rows), np.int64)
    found[order] = np.arange(len(rows)) % folds
    return found


def _by_group(
    name: str, folds: int, table: Table, rows: Integers, random: np.random.Generator
) -> Integers:
    """Return the fold of each row: the groups, shuffled, each go to the smallest fold so far."""
    groups, sizes = groups_of(table, name, rows)
    if len(sizes) < folds:
        raise DataInvalid(f"{folds} folds need as many groups, but {name!r} has {len(sizes)}")
    filled, of_group = np.zeros(folds, np.int64), np.empty(len(sizes), np.int64)
    for group in random.permutation(len(sizes)):
        of_group[group] = filled.argmin()
        filled[of_group[group]] += sizes[group]
    found: Integers = of_group[groups]
    return found
