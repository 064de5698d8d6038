"""Suspects in the data that make a model look better than it is.

Held-out rows that are training rows too, a column that alone tells the target, ids, and a random
split of rows that depend on time. Knows NumPy only.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from descent.codes import make_finding
from descent.spec import KFoldSplit, RandomSplit, SplitSpec
from models.data import Categories, Floats, Integers, Table, generator
from models.features.encoding import Features
from models.features.inputs import Choice, Matrix, Moment, Numeric
from models.features.targets import ClassTarget, Target

#: The share of held-out rows with a twin from which they are named; rows of tables in which most
#: training rows have a twin anyway are not.
TWINS, DISTINCT = 0.01, 0.5
#: The fewest rows that tell whether a column is an id or tells the target, and the most that are
#: looked at.
FEWEST, MOST = 20, 4_000
#: Columns that are looked at one by one.
MAX_COLUMNS = 200
#: The share of the constant's error that a column must leave to be named: of squares, of misses.
LEFT_OF_SQUARES, LEFT_OF_MISSES = 0.02, 0.03
BINS = 64
#: The first rows, in which an id has different values.
ID_ROWS = 100_000
#: An id numbers the rows with few gaps, or is called so.
GAPS = 3
NAMED_ID = re.compile(r"(?i:(^|[\W_])(id|uuid|guid|key|nr|no|number|index|row)$)|[a-z]I[Dd]$")
#: The least correlation of a target with that of the row before it in time.
FOLLOWS = 0.2
#: The stream of `data.generator` that divides rows.
STREAM = 2**63 + 5


def twins(
    train: Matrix, train_truth: Floats | Integers, held_out: Matrix, truth: Floats | Integers
) -> Iterator[dict[str, Any]]:
    """Yield a finding if held-out rows are equal to training rows, target and all."""
    known = _hashes(train, train_truth)
    distinct = np.unique(known)
    count = int(np.isin(_hashes(held_out, truth), distinct).sum())
    if count >= max(2, TWINS * len(held_out)) and len(distinct) >= DISTINCT * len(known):
        yield make_finding(
            "duplicate_rows",
            f"{count} of {len(held_out)} held-out rows ({count / len(held_out):.0%}) are equal to a"
            " training row in every column: the scores are better than for new rows. Remove"
            " duplicates, or keep equal rows together with the split 'group'.",
        )


def _hashes(x: Matrix, truth: Floats | Integers) -> NDArray[np.uint64]:
    """Return a number for each row; equal rows have equal ones."""
    targets = truth.reshape(len(truth), -1).astype(np.float32)
    whole = np.column_stack([x.astype(np.float32), targets]) + np.float32(0)  # no negative zero
    factors = generator(0, STREAM).integers(2**62, size=whole.shape[1], dtype=np.uint64) * 2 + 1
    bits = np.ascontiguousarray(whole).view(np.uint32).astype(np.uint64)
    bits ^= bits >> np.uint64(15)
    found: NDArray[np.uint64] = (bits * factors).sum(axis=1, dtype=np.uint64)
    return found


def tell_tales(features: Features, x: Matrix, truth: Floats | Integers) -> Iterator[dict[str, Any]]:
    """Yield a finding for each column that alone predicts the target nearly without error.

    Each half of the rows is predicted from the other one.
    """
    columns = features.inputs
    if len(columns) < 2 or len(x) < FEWEST or len(columns) > MAX_COLUMNS:
        return
    half = generator(0, STREAM).permutation(len(x)) % 2 == 0
    place = 0
    for column in columns:
        part = x[:, place : place + column.width].astype(np.float64)
        place += column.width
        left, most = _left(features.target, column, part, truth, half)
        if left <= most:
            yield make_finding(
                "column_tells_target",
                f"{column.name!r} alone predicts {_names(features.target)} with {left:.1%} of the"
                " error of a constant: if its value is known only together with the target, leave"
                " it out.",
                column.name,
            )


def _left(
    target: Target,
    column: Numeric | Moment | Choice,
    part: Floats,
    truth: Floats | Integers,
    half: NDArray[np.bool_],
) -> tuple[float, float]:
    """Return the share of the constant's error that a column leaves, and the most to be named."""
    halves = ((half, ~half), (~half, half))
    if isinstance(target, ClassTarget):
        misses = base = 0
        for fit, ask in halves:
            votes = np.bincount(truth[fit].astype(np.int64), minlength=target.outputs)
            shares = _means(column, part, _one_hot(truth, target.outputs), fit, ask)
            misses += int((shares.argmax(axis=1) != truth[ask]).sum())
            base += int((truth[ask] != votes.argmax()).sum())
        return (misses / base if base else math.inf), LEFT_OF_MISSES
    values: Floats = truth.reshape(len(truth), -1).astype(np.float64)
    left = []
    for one in values.T:
        squares = [0.0, 0.0]
        base_squares = 0.0
        for fit, ask in halves:
            base_squares += float(((one[ask] - one[fit].mean()) ** 2).sum())
            binned = _means(column, part, one[:, None], fit, ask)[:, 0]
            squares[0] += float(((one[ask] - binned) ** 2).sum())
            straight = np.column_stack([part, np.ones(len(part))])
            line = np.linalg.lstsq(straight[fit], one[fit], rcond=None)[0]
            squares[1] += float(((one[ask] - straight[ask] @ line) ** 2).sum())
        left.append(min(squares) / base_squares if base_squares else math.inf)
    return min(left), LEFT_OF_SQUARES


def _means(
    column: Numeric | Moment | Choice,
    part: Floats,
    values: Floats,
    fit: NDArray[np.bool_],
    ask: NDArray[np.bool_],
) -> Floats:
    """Return the means of `values` in the bin or the category of each row asked for."""
    if isinstance(column, Choice):
        codes: Integers = part.argmax(axis=1)
    else:
        numbers = part[:, 0]
        inner = np.linspace(0, 1, BINS + 1)[1:-1]
        codes = np.searchsorted(np.unique(np.quantile(numbers[fit], inner)), numbers, "right")
    count = int(codes.max()) + 1
    sums: Floats = np.zeros((count, values.shape[1]))
    np.add.at(sums, codes[fit], values[fit])
    rows = np.bincount(codes[fit], minlength=count)[:, None]
    means = np.where(rows > 0, sums / np.maximum(rows, 1), values[fit].mean(axis=0))
    found: Floats = means[codes[ask]]
    return found


def _one_hot(truth: Floats | Integers, classes: int) -> Floats:
    found: Floats = np.eye(classes)[truth.astype(np.int64)]
    return found


def ids(features: Features, table: Table) -> Iterator[dict[str, Any]]:
    """Yield a finding for each column that numbers or names the rows."""
    if table.rows < FEWEST or table.stored is not None:
        return
    for column in features.inputs[:MAX_COLUMNS]:
        if isinstance(column, Moment) or column.type == "boolean":
            continue
        if _is_id(column.name, table):
            yield make_finding(
                "column_is_id",
                f"{column.name!r} has another value in every row, as an id has: it cannot say"
                " anything of new rows, so leave it out.",
                column.name,
            )


def _is_id(name: str, table: Table) -> bool:
    values = table.columns[name]
    if isinstance(values, Categories):
        codes = values.codes[:ID_ROWS]
        codes = codes[codes >= 0]
        return len(codes) >= FEWEST and len(np.unique(codes)) >= 0.99 * len(codes)
    known = values[:ID_ROWS]
    known = known[np.isfinite(known)]
    if len(known) < FEWEST or not (known == np.floor(known)).all():
        return False
    if len(np.unique(known)) < len(known):
        return False
    is_dense = float(known.max() - known.min()) <= GAPS * len(known)
    return is_dense or NAMED_ID.search(name) is not None


def may_ignore_time(features: Features, table: Table, split: SplitSpec) -> bool:
    """Return whether rows with times were split at random."""
    has_times = any(isinstance(column, Moment) for column in features.inputs)
    return has_times and isinstance(split, RandomSplit | KFoldSplit) and table.stored is None


def time_travel(
    features: Features, table: Table, rows: Integers, truth: Floats | Integers
) -> Iterator[dict[str, Any]]:
    """Yield a finding if the targets of rows that were split at random follow each other in time.

    `truth` are the targets of `rows`.
    """
    if len(rows) < FEWEST:
        return
    for column in features.inputs:
        if not isinstance(column, Moment):
            continue
        times = table.numbers(column.name)[rows]
        known = np.isfinite(times)
        order = np.argsort(times[known], kind="stable")
        follows = _follows(features.target, truth[known][order])
        if follows > max(FOLLOWS, 3 / math.sqrt(max(1, int(known.sum())))):
            yield make_finding(
                "split_ignores_time",
                f"Rows near each other in {column.name!r} have similar targets (correlation"
                f" {follows:.2f}), and the random split trains on rows later than those that it"
                " holds out: if new rows are to come later, use the split 'time'.",
                column.name,
            )
            return


def _follows(target: Target, ordered: Floats | Integers) -> float:
    """Return the correlation of each target with the next one."""
    if isinstance(target, ClassTarget):
        shares = np.bincount(ordered.astype(np.int64)) / max(1, len(ordered))
        chance = float((shares**2).sum())
        same = float((ordered[1:] == ordered[:-1]).mean()) if len(ordered) > 1 else chance
        return (same - chance) / (1 - chance) if chance < 1 else 0.0
    values = ordered.reshape(len(ordered), -1).astype(np.float64)
    found = []
    for one in values.T:
        centred = one - one.mean()
        squares = float((centred**2).sum())
        found.append(float((centred[1:] * centred[:-1]).sum()) / squares if squares else 0.0)
    return max(found)


def _names(target: Target) -> str:
    names: Sequence[str] = [target.name] if isinstance(target, ClassTarget) else target.names
    return ", ".join(map(repr, names[:3]))
