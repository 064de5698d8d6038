"""How good predictions are: scores in the targets' own units and curves, ready for JSON.

Knows NumPy only. A score that the rows do not define, such as R² of one row, is None.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from descent.spec import (
    ColumnSplit,
    GroupSplit,
    KFoldSplit,
    NoSplit,
    RandomSplit,
    RunConfig,
    SplitSpec,
    TimeSplit,
)
from models.data import Categories, Floats, Integers, Table, generator
from models.errors import DataInvalid
from models.features.encoding import Features
from models.features.inputs import Matrix
from models.features.targets import ClassTarget, NumberTargets, Target, fit_classes
from models.nets.numeric import Net
from models.reading import WHITE
from models.training.interface import SplitName

Scores: TypeAlias = dict[str, Any]
#: Points of a curve at most; a picture would not show more.
MOST_POINTS = 200
PAIRED = 65_536  # rows that are paired with all others at a time


class Tally(Protocol):
    """Compares predictions with the truth, block by block."""

    def add(self, truth: Floats | Integers, decoded: Floats) -> None:
        """Compare the predictions of the next rows, from `Features.decode`, with the truth.

        `truth` is float64 (rows, targets) for a regression, and int64 (rows,) class numbers
        otherwise.
        """

    def scores(self) -> Scores:
        """Return the scores of all rows so far."""


def tally(target: Target) -> Tally:
    """Return an empty comparison for this target."""
    return ClassTally(target) if isinstance(target, ClassTarget) else NumberTally(target)


def evaluate(target: Target, truth: Floats | Integers, decoded: Floats) -> Scores:
    """Compare the predictions `decoded`, from `Features.decode`, with the truth."""
    compared = tally(target)
    compared.add(truth, decoded)
    return compared.scores()


FIGURES = ("sse", "mse", "mae", "rmse", "r2")


class NumberTally:
    """Counts sse, mse, mae, rmse and r2; for several targets the means, and those of each."""

    def __init__(self, target: NumberTargets) -> None:
        self.errors = {name: _Errors() for name in target.names}

    def add(self, truth: Floats | Integers, decoded: Floats) -> None:
        for place, errors in enumerate(self.errors.values()):
            errors.add(truth[:, place].astype(np.float64), decoded[:, place])

    def scores(self) -> Scores:
        each = {name: errors.figures() for name, errors in self.errors.items()}
        if len(each) == 1:
            return next(iter(each.values()))
        mean = {name: _mean([figures[name] for figures in each.values()]) for name in FIGURES}
        return mean | {"targets": each}


@dataclass
class _Errors:
    """The sums over the errors of one target, and over its distances from its mean."""

    rows: int = 0
    squares: float = 0.0
    sizes: float = 0.0
    mean: float = 0.0
    spread: float = 0.0

    def add(self, truth: Floats, predicted: Floats) -> None:
        # A net that diverged may predict numbers whose squares overflow.
        with np.errstate(over="ignore", invalid="ignore"):
            errors = predicted - truth
            self.squares += float(errors @ errors)
            self.sizes += float(np.abs(errors).sum())
            mean = float(truth.mean())
            spread = float(((truth - mean) ** 2).sum())
        rows = self.rows + len(truth)
        # The joined spread of two blocks: Chan, Golub and LeVeque (1979).
        gap = mean - self.mean
        self.spread += spread + gap**2 * (self.rows * len(truth) / rows)
        self.mean += gap * (len(truth) / rows)
        self.rows = rows

    def figures(self) -> Scores:
        mse = self.squares / self.rows
        return {
            "sse": self.squares,
            "mse": mse,
            "mae": self.sizes / self.rows,
            "rmse": math.sqrt(mse),
            "r2": 1 - self.squares / self.spread if self.spread else None,
        }


class ClassTally:
    """Counts accuracy, cross_entropy, f1, scores per class, the confusion matrix, and auc.

    `auc` is None unless there are two classes. The confusion matrix has a row per true class and a
    column per predicted class.
    """

    def __init__(self, target: ClassTarget) -> None:
        self.target = target
        self.confusion = np.zeros((len(target.classes),) * 2, np.int64)
        self.surprise = 0.0
        #: of two classes: the shares of the second one in the rows of each
        self.shares: tuple[list[Floats], list[Floats]] = ([], [])

    def add(self, truth: Floats | Integers, decoded: Floats) -> None:
        numbers, count = truth.astype(np.int64), len(self.target.classes)
        found = np.bincount(numbers * count + decoded.argmax(axis=1), minlength=count**2)
        self.confusion += found.reshape(count, count)
        likely = np.maximum(decoded[np.arange(len(numbers)), numbers], np.finfo(np.float64).tiny)
        self.surprise -= float(np.log(likely).sum())
        if count == 2:
            for place, shares in enumerate(self.shares):
                shares.append(decoded[numbers == place, 1])

    def scores(self) -> Scores:
        labels, rows = self.target.labels, int(self.confusion.sum())
        classes = {label: _class_figures(self.confusion, at) for at, label in enumerate(labels)}
        auc = None
        if len(labels) == 2:
            negative, positive = (np.sort(np.concatenate(shares)) for shares in self.shares)
            auc = _share_in_order(negative, positive)
        return {
            "accuracy": float(np.trace(self.confusion) / rows),
            "cross_entropy": self.surprise / rows,
            "auc": auc,
            "f1": _mean([figures["f1"] for figures in classes.values() if figures["support"]]),
            "classes": classes,
            "confusion": {"labels": labels, "matrix": self.confusion.tolist()},
        }


Truth: TypeAlias = Iterable[Floats | Integers]


def evaluate_baseline(target: Target, train: Truth, truth: Truth) -> Scores:
    """Score a constant prediction: the training rows' mean, or their classes' shares.

    Both true values come in blocks.
    """
    constant, compared = constant_of(target, train), tally(target)
    for block in truth:
        compared.add(block, np.tile(constant, (len(block), 1)))
    return compared.scores()


def constant_of(target: Target, train: Truth) -> Floats:
    """Return the mean of the true numbers, or the shares of the classes, (outputs,)."""
    sums, rows = np.zeros(target.outputs), 0
    for block in train:
        rows += len(block)
        if isinstance(target, ClassTarget):
            sums += np.bincount(block.astype(np.int64), minlength=target.outputs)
        else:
            sums += block.astype(np.float64).sum(axis=0)
    return sums / rows


def area_under_curve(positive: NDArray[np.bool_], scores: Floats) -> float | None:
    """Return the share of pairs of a positive and a negative row that `scores` orders correctly.

    `positive` is a mask (rows,). Ties count half (Mann and Whitney, 1947). None without pairs.
    """
    return _share_in_order(np.sort(scores[~positive]), np.sort(scores[positive]))


def _share_in_order(negative: Floats, positive: Floats) -> float | None:
    """Return the share of pairs in order; both arrays are sorted. Ties count half."""
    if not len(negative) or not len(positive):
        return None
    twice = 0
    for start in range(0, len(positive), PAIRED):
        block = positive[start : start + PAIRED]
        twice += int(np.searchsorted(negative, block, "left").sum())
        twice += int(np.searchsorted(negative, block, "right").sum())
    return twice / 2 / (len(negative) * len(positive))


def _class_figures(confusion: Integers, place: int) -> Scores:
    hits = int(confusion[place, place])
    predicted, support = int(confusion[:, place].sum()), int(confusion[place].sum())
    return {
        "precision": hits / predicted if predicted else None,
        "recall": hits / support if support else None,
        "f1": 2 * hits / (predicted + support) if predicted + support else None,
        "support": support,
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class Roc:
    """The false and the true positive rate of a class at each threshold, (points,) each."""

    auc: float | None
    false_positive_rate: Floats
    true_positive_rate: Floats
    #: A row is predicted to be of the class from this share up; the first is above all shares.
    threshold: Floats


def roc_curve(positive: NDArray[np.bool_], shares: Floats) -> Roc:
    """Return the receiver operating characteristic of a class, from (0, 0) to (1, 1).

    `positive` is a mask (rows,) of the class, `shares` its predicted shares (rows,). The curve has
    one point per distinct share, at most `MOST_POINTS`. It is empty if all rows or no rows are of
    the class.
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        empty = np.empty(0)
        return Roc(None, empty, empty, empty)
    order = np.argsort(-shares, kind="stable")
    ranked = shares[order]
    # Rows with the same share make one point: that of the last of them.
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(positive[order])[last]
    true_rate = np.concatenate([[0.0], hits / positives])
    false_rate = np.concatenate([[0.0], (last + 1 - hits) / negatives])
    threshold = np.concatenate([[np.nextafter(ranked[0], np.inf)], ranked[last]])
    kept = np.unique(np.linspace(0, len(last), MOST_POINTS).round().astype(np.int64))
    return Roc(
        area_under_curve(positive, shares), false_rate[kept], true_rate[kept], threshold[kept]
    )


def pairs(truth: Floats, predicted: Floats) -> tuple[list[float], list[float]]:
    """Return the two (rows,) arrays as lists, without rows whose prediction is not finite."""
    known: Any = np.isfinite(predicted)
    return truth[known].tolist(), predicted[known].tolist()


MAX_ROWS = 1000
SHUFFLES = 5
#: Multiplications that may be spent for any training: about 10 ms.
FLOOR = 2 * 10**7
#: Multiplications that may be spent at most: about a second.
CEILING = 2 * 10**9
#: The fixed cost of a pass through the net, in multiplications.
OVERHEAD = 10**5
#: The stream of `data.generator` that shuffles columns.
STREAM = 2**63 + 1


def permutation_importance(
    features: Features,
    net: Net,
    read: Callable[[Integers], tuple[Matrix, Floats | Integers]],
    rows: Integers,
    *,
    seed: int,
    work: int,
) -> dict[str, Any] | None:
    """Return the cost of shuffling each column over `rows`, the most important column first.

    The cost is the rise of `cross_entropy` for classes, and the fall of `r2` for numbers. `work` is
    the count of multiplications that may be spent; it limits the rows and the shuffles. The result
    is None if even few rows cost too much, or if a cost is not finite. `read` returns some of the
    rows encoded, and their true targets.
    """
    shuffles, count = _affordable(features, net, len(rows), min(max(work, FLOOR), CEILING))
    if not shuffles or not count:
        return None
    random = generator(seed, STREAM)
    encoded, truth = read(np.sort(random.permutation(rows)[:count]))
    with np.errstate(all="ignore"):
        whole = _cost(features, net, encoded, truth)
        columns: list[dict[str, Any]] = []
        for name, part in _parts(features):
            shuffled, costs = encoded.copy(), []
            for _ in range(shuffles):
                shuffled[:, part] = encoded[random.permutation(count), part]
                costs.append(_cost(features, net, shuffled, truth) - whole)
            mean, std = float(np.mean(costs)), float(np.std(costs))
            if not math.isfinite(mean + std):
                return None
            columns.append({"column": name, "mean": mean, "std": std})
    columns.sort(key=lambda entry: -entry["mean"])
    metric = "cross_entropy" if isinstance(features.target, ClassTarget) else "r2"
    return {"metric": metric, "rows": count, "shuffles": shuffles, "columns": columns}


def _affordable(features: Features, net: Net, rows: int, work: int) -> tuple[int, int]:
    """Return the shuffles and the rows that fit the work; zeros if none do."""
    for shuffles, most in ((SHUFFLES, MAX_ROWS), (SHUFFLES, 200), (2, 200), (1, 100)):
        count = min(rows, most)
        if len(features.inputs) * shuffles * (OVERHEAD + count * net.graph.work) <= work:
            return shuffles, count
    return 0, 0


def _parts(features: Features) -> Iterator[tuple[str, slice]]:
    start = 0
    for column in features.inputs:
        yield column.name, slice(start, start + column.width)
        start += column.width


def _cost(features: Features, net: Net, encoded: Matrix, truth: Floats | Integers) -> float:
    decoded = features.decode(net.forward(encoded))
    if isinstance(features.target, ClassTarget):
        likely = decoded[np.arange(len(truth)), truth]
        return float(-np.log(np.maximum(likely, np.finfo(np.float64).tiny)).mean())
    # In units of the rows' variance, so that the difference of two costs is a difference of R². One
    # row or equal rows have no variance: use that of the training rows.
    variances = truth.var(axis=0)
    variances = np.where(variances > 0, variances, np.square(features.target.std))
    return float((np.square(decoded - truth).mean(axis=0) / variances).mean())


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
    split = config.split
    if isinstance(split, TimeSplit | GroupSplit | ColumnSplit | KFoldSplit) and split.column:
        needed.append(split.column)
    return list(dict.fromkeys(needed))


def split_table(config: RunConfig, table: Table) -> RowSplit:
    """Divide the rows that have a value in every target column.

    In a cross-validation all of them are training rows of the model. Raises `DataInvalid` if the
    table does not allow this split, and ValueError if the task of the configuration is "auto".
    """
    rows, labels = rows_to_split(config, table)
    return split_rows(config.split, table, rows, labels=labels, seed=config.seed)


def rows_to_split(config: RunConfig, table: Table) -> tuple[Integers, Integers | None]:
    """Return the rows with a value in every target, and the class number of every row.

    The latter is None for a regression. Raises as `split_table`.
    """
    if config.task == "auto":
        raise ValueError("the task must be decided, got 'auto'")
    rows: Integers = np.flatnonzero(table.present(config.targets))
    if table.rows <= np.iinfo(np.int32).max:
        rows = rows.astype(np.int32)  # half the memory
    labels = None
    if config.task != "regression":
        numbers = fit_classes(table, config.targets[0], config.task).labels_of(table)
        labels = numbers.astype(np.int32)  # half the memory
        del numbers
    return rows, labels


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
    if isinstance(split, NoSplit | KFoldSplit):
        return RowSplit(rows, rows[:0], rows[:0])
    if isinstance(split, ColumnSplit):
        return _split_by_column(table, split.column, rows)
    if isinstance(split, GroupSplit):
        return _split_by_group(split, table, rows, seed)
    if isinstance(split, TimeSplit):
        latest_first = _by_time(table, split.column, rows)[::-1]
        return _take(latest_first, split.validation, split.test)
    order = generator(seed, SPLIT_STREAM).permutation(rows)
    if labels is None or split.validation + split.test == 0:
        return _take(order, split.validation, split.test)
    return _take_from_each_class(order, labels, split)


def _take_from_each_class(order: Integers, labels: Integers, split: RandomSplit) -> RowSplit:
    """Take held-out rows of each class in proportion; each class keeps a training row."""
    counts = np.bincount(labels[order])
    alone = order[:0]
    if (counts == 1).any():
        is_alone = counts[labels[order]] == 1
        alone, order = order[is_alone], order[~is_alone]
    drawn = _interleave_classes(order, labels)
    if not len(drawn):
        raise DataInvalid("each class has one row: no row can be held out; use split 'none'")
    parts = _take(drawn, split.validation, split.test)
    train = np.concatenate([parts.train, alone])
    # With large shares a class may have no training row: its last row becomes one.
    trained = np.bincount(labels[train], minlength=len(counts))
    untrained = np.flatnonzero((counts > 0) & (trained == 0))
    last = [drawn[labels[drawn] == label][-1] for label in untrained]
    moved = np.array(last, dtype=drawn.dtype)
    validation = np.setdiff1d(parts.validation, moved)
    test = np.setdiff1d(parts.test, moved)
    if (split.validation and not len(validation)) or (split.test and not len(test)):
        raise DataInvalid(
            f"{counts.sum()} rows are too few for a split with validation {split.validation} and "
            f"test {split.test} in which each class trains; use smaller shares or split 'none'"
        )
    return RowSplit(np.sort(np.concatenate([train, moved])), validation, test)


def _take(order: Integers, validation: float, test: float) -> RowSplit:
    """Take the test rows from the start of `order`, then the validation rows; the rest train."""
    tests = count_of(test, len(order))
    validations = count_of(validation, len(order))
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


def count_of(share: float, rows: int) -> int:
    """Return the count of rows that a share of held-out rows means."""
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


def _by_time(table: Table, name: str, rows: Integers) -> Integers:
    _check_complete(table, name, rows)
    if isinstance(table.columns[name], Categories):
        raise DataInvalid(
            f"split 'time' needs a column of datetimes or numbers; {name!r} holds text"
        )
    return rows[np.argsort(table.numbers(name)[rows], kind="stable")]


def groups_of(table: Table, name: str, rows: Integers) -> tuple[Integers, Integers]:
    """Return the number of the group of each row, and the count of rows of each group.

    Raises `DataInvalid` if a row has no value.
    """
    _check_complete(table, name, rows)
    column = table.columns[name]
    values = column.codes if isinstance(column, Categories) else column
    _, groups, sizes = np.unique(values[rows], return_inverse=True, return_counts=True)
    return groups, sizes


def _split_by_group(split: GroupSplit, table: Table, rows: Integers, seed: int) -> RowSplit:
    groups, sizes = groups_of(table, split.column, rows)
    shares = [share for share in (split.test, split.validation) if share]
    if len(sizes) <= len(shares):
        raise DataInvalid(
            f"split 'group' needs more than {len(shares)} distinct values in {split.column!r}, "
            f"found {len(sizes)}"
        )
    left = list(generator(seed, SPLIT_STREAM).permutation(len(sizes)))
    parts = []
    for later, share in ((int(split.validation > 0) + 1, split.test), (1, split.validation)):
        wanted = count_of(share, len(rows))
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
    places = np.array([_place_of(word) for word in column.values])[column.codes[rows]]
    strange = np.flatnonzero(places < 0)
    if len(strange):
        row = rows[strange[0]]
        word = column.values[column.codes[row]]
        raise DataInvalid(
            f"column {name!r} must say train, validation or test; row {row + 1} says {word!r}"
        )
    if not (places == 0).any():
        raise DataInvalid(f"column {name!r} says train in no row that has a target")
    return RowSplit(rows[places == 0], rows[places == 1], rows[places == 2])


#: The words that a column of a split may use for each part, in any case.
SPLIT_WORDS: dict[SplitName, frozenset[str]] = {
    "train": frozenset({"train", "training"}),
    "validation": frozenset({"validation", "valid", "val", "dev", "eval"}),
    "test": frozenset({"test", "testing"}),
}


def split_of(word: str) -> SplitName | None:
    """Return the part of a split that a word means; None if it means none."""
    word = word.strip(WHITE).lower()
    return next((name for name, words in SPLIT_WORDS.items() if word in words), None)


def _place_of(word: str) -> int:
    name = split_of(word)
    return -1 if name is None else list(SPLIT_WORDS).index(name)


def _check_complete(table: Table, name: str, rows: Integers) -> None:
    missing = rows[~table.present([name])[rows]]
    if len(missing):
        raise DataInvalid(
            f"column {name!r} splits the rows but is missing in {len(missing)} of them, "
            f"first in row {missing[0] + 1}"
        )
