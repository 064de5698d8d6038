"""The division of a table into the rows that train, validate and test.

A pure function of the configuration, the data and the seed, so that a resumed run sees the same
rows. Knows NumPy only.
"""

from dataclasses import dataclass

import numpy as np

from descent.spec import ColumnSplit, GroupSplit, NoSplit, RunConfig, SplitSpec, TimeSplit
from models.data import Categories, Integers, Table, generator
from models.errors import DataInvalid
from models.features.targets import fit_classes

#: The stream of `data.generator` that shuffles for a split; epochs are the streams from 0.
SPLIT_STREAM = 2**63


@dataclass(frozen=True)
class RowSplit:
    """The row numbers of each part, ascending; no row is in two parts."""

    train: Integers
    validation: Integers
    test: Integers


def columns_that_split(config: RunConfig) -> list[str]:
    """Return the columns that the split depends on: the targets, and the column of the split."""
    needed = list(config.targets)
    if isinstance(config.split, TimeSplit | GroupSplit | ColumnSplit):
        needed.append(config.split.column)
    return list(dict.fromkeys(needed))


def split_table(config: RunConfig, table: Table) -> RowSplit:
    """Divide the rows that have a value in every target column.

    Raises `DataInvalid` if the table does not allow this split, and ValueError if the task of the
    configuration is still "auto".
    """
    if config.task == "auto":
        raise ValueError("the task must be decided, got 'auto'")
    rows: Integers = np.flatnonzero(table.present(config.targets))
    labels = None
    if config.task != "regression":
        labels = fit_classes(table, config.targets[0], config.task).labels_of(table)
    return split_rows(config.split, table, rows, labels=labels, seed=config.seed)


def split_rows(
    split: SplitSpec, table: Table, rows: Integers, *, labels: Integers | None, seed: int
) -> RowSplit:
    """Divide `rows`, the rows that have a target.

    For a classification `labels` holds the class number of every row of the table, and a random
    split then draws from each class in proportion. Raises `DataInvalid` if a part with a share
    above 0 would be empty.
    """
    if len(rows) == 0:
        raise DataInvalid("no row has a value in every target column")
    if isinstance(split, NoSplit):
        return RowSplit(rows, rows[:0], rows[:0])
    if isinstance(split, ColumnSplit):
        return _split_by_column(table, split.column, rows)
    if isinstance(split, GroupSplit):
        return _split_by_group(split, table, rows, seed)
    if isinstance(split, TimeSplit):
        latest_first = _by_time(table, split.column, rows)[::-1]
        return _take(latest_first, split.validation, split.test)
    order = generator(seed, SPLIT_STREAM).permutation(rows)
    if labels is not None and split.validation + split.test > 0:
        order = _interleave_classes(order, labels)
    result = _take(order, split.validation, split.test)
    if labels is not None:
        _check_every_class_trains(labels, rows, result.train)
    return result


def _take(order: Integers, validation: float, test: float) -> RowSplit:
    """Take the test rows from the start of `order`, then the validation rows; the rest train."""
    tests = _count(test, len(order))
    validations = _count(validation, len(order))
    held_out = tests + validations
    if held_out >= len(order):
        raise DataInvalid(
            f"{len(order)} rows are too few for a split with validation {validation} and "
            f"test {test}: no row is left to train on; use smaller shares or split 'none'"
        )
    return RowSplit(
        train=np.sort(order[held_out:]),
        validation=np.sort(order[tests:held_out]),
        test=np.sort(order[:tests]),
    )


def _count(share: float, rows: int) -> int:
    return max(1, round(share * rows)) if share else 0


def _interleave_classes(order: Integers, labels: Integers) -> Integers:
    """Sort shuffled rows so that every stretch of them has the classes in proportion.

    The k-th of a class's n rows is put at the fraction (k + ½) / n of the whole.
    """
    classes = labels[order]
    place = np.empty(len(order))
    for label, count in zip(*np.unique(classes, return_counts=True), strict=True):
        place[classes == label] = (np.arange(count) + 0.5) / count
    return order[np.argsort(place, kind="stable")]


def _check_every_class_trains(labels: Integers, rows: Integers, train: Integers) -> None:
    counts = np.bincount(labels[rows])
    trained = np.bincount(labels[train], minlength=len(counts))
    # A class of one row cannot be divided: its row would either train or test, never both.
    bad = (counts > 0) & ((trained == 0) | ((counts == 1) & (len(train) < len(rows))))
    if bad.any():
        label = int(np.flatnonzero(bad)[0])
        row = int(rows[labels[rows] == label][0])
        raise DataInvalid(
            f"the class of row {row + 1} has {counts[label]} row(s), too few to hold out a share "
            "of each class: add rows, remove the class, or use split 'none'"
        )


def _by_time(table: Table, name: str, rows: Integers) -> Integers:
    _check_complete(table, name, rows)
    if isinstance(table.columns[name], Categories):
        raise DataInvalid(
            f"split 'time' needs a column of datetimes or numbers; {name!r} holds text"
        )
    return rows[np.argsort(table.numbers(name)[rows], kind="stable")]


def _split_by_group(split: GroupSplit, table: Table, rows: Integers, seed: int) -> RowSplit:
    _check_complete(table, split.column, rows)
    column = table.columns[split.column]
    values = column.codes if isinstance(column, Categories) else column
    _, groups, sizes = np.unique(values[rows], return_inverse=True, return_counts=True)
    shares = [share for share in (split.test, split.validation) if share]
    if len(sizes) <= len(shares):
        raise DataInvalid(
            f"split 'group' needs more than {len(shares)} distinct values in {split.column!r}, "
            f"found {len(sizes)}"
        )
    left = list(generator(seed, SPLIT_STREAM).permutation(len(sizes)))
    parts = []
    for later, share in ((int(split.validation > 0) + 1, split.test), (1, split.validation)):
        wanted = _count(share, len(rows))
        taken: list[int] = []
        while sum(sizes[taken]) < wanted and len(left) > later:
            taken.append(left.pop())
        parts.append(rows[np.isin(groups, taken)])
    return RowSplit(train=rows[np.isin(groups, left)], validation=parts[1], test=parts[0])


def _split_by_column(table: Table, name: str, rows: Integers) -> RowSplit:
    _check_complete(table, name, rows)
    column = table.columns[name]
    if not isinstance(column, Categories):
        raise DataInvalid(f"split 'column' needs the words train, validation and test in {name!r}")
    words = np.array([*column.values, ""], dtype=object)[column.codes[rows]]
    for row, word in zip(rows, words, strict=True):
        if word not in {"train", "validation", "test"}:
            raise DataInvalid(
                f"column {name!r} must say train, validation or test; row {row + 1} says {word!r}"
            )
    if not (words == "train").any():
        raise DataInvalid(f"column {name!r} says train in no row that has a target")
    return RowSplit(rows[words == "train"], rows[words == "validation"], rows[words == "test"])


def _check_complete(table: Table, name: str, rows: Integers) -> None:
    missing = rows[~table.present([name])[rows]]
    if len(missing):
        raise DataInvalid(
            f"column {name!r} splits the rows but is missing in {len(missing)} of them, "
            f"first in row {missing[0] + 1}"
        )
