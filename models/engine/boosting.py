"""The engine of boosted oblivious trees: gradient descent in the space of functions.

A step adds a tree whose leaves go against the slopes of the loss at the training rows, divided by
its curvatures: Friedman, "Greedy Function Approximation: A Gradient Boosting Machine" (2001). A
level of a tree asks one question of all rows, the one whose leaves point best along the slopes.
Rows have random weights and the first questions noise, after Prokhorenkova et al., "CatBoost:
unbiased boosting with categorical features" (2018). Computes with NumPy on one core.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.architectures.trees import Trees
from models.data import Floats, Integers, generator
from models.engine import CHUNK
from models.engine.engine import Engine, Setup, is_late
from models.engine.examples import Examples

#: The streams of random numbers; the steps count from here.
STREAM = 2**63 + 2**62
#: Cells that are counted at a time: few enough for the processor's cache.
BLOCK = 2**14
#: Rows from which the borders of bins are taken.
BORDER_ROWS = 200_000
Numbers = NDArray[np.float32]


def borders(values: Numbers, bins: int) -> Numbers:
    """Return up to `bins - 1` borders of a column, each halfway between two neighbouring values.

    Two thirds divide the rows evenly, the others the distinct values.
    """
    distinct, counts = np.unique(values, return_counts=True)
    places = np.arange(len(distinct) - 1)
    if len(places) > bins - 1:
        by_value = np.linspace(0, len(places), (bins - 1) // 3 + 2)[1:-1].astype(np.int64)
        by_row = np.linspace(0, len(values), bins - len(by_value) + 1)[1:-1]
        places = np.union1d(by_value, np.searchsorted(counts.cumsum(), by_row)[: bins - 1])
        places = places[places < len(distinct) - 1]
    below, above = distinct[places], distinct[places + 1]
    middle = ((below.astype(np.float64) + above) / 2).astype(np.float32)
    # Between two neighbours among float32 numbers the lower one divides them.
    return np.where(middle < above, middle, below)


@dataclass(frozen=True)
class Block:
    """Some columns of the training rows as numbers of bins, whose sums are taken at once."""

    #: (columns, rows): the place of a cell's bin among the sums of this block
    codes: NDArray[np.uint16]
    #: the places of the block's sums among all sums
    sums: slice


class Binned:
    """The training rows as numbers of bins, column by column; constant columns are left out."""

    def __init__(self, x: Numbers, bins: int) -> None:
        step = -(-len(x) // BORDER_ROWS)
        #: by column: the borders, its place in a row, and that of its first sum
        self.borders: list[Numbers] = []
        features, firsts, total = [], [], 0
        most = max(1, min(BLOCK // max(1, len(x)), 2**16 // bins))
        pending: list[NDArray[np.uint16]] = []
        begin = 0
        self.blocks: list[Block] = []
        for place in range(x.shape[1]):
            column = np.ascontiguousarray(x[:, place])
            found = borders(column[::step], bins)
            if not len(found):
                continue
            pending.append((np.searchsorted(found, column) + (total - begin)).astype(np.uint16))
            self.borders.append(found)
            features.append(place)
            firsts.append(total)
            total += len(found) + 1
            if len(pending) == most:
                self.blocks.append(Block(np.array(pending), slice(begin, total)))
                pending, begin = [], total
        if pending:
            self.blocks.append(Block(np.array(pending), slice(begin, total)))
        self.total = total
        self.feature, self.first = np.array(features, dtype=np.int64), np.array(firsts, np.int64)
        self.count = np.array([len(each) for each in self.borders], dtype=np.int64)
        cuts = np.concatenate([np.arange(each) for each in self.count] or [self.count])
        #: for each question: the place of its last sum on the left, and the column's first sum
        self.left = np.repeat(self.first, self.count) + cuts
        self.base = np.repeat(self.first, self.count)
        #: by column: the place of its first question
        self.question = np.cumsum(self.count) - self.count
        self._most = most

    def bits(self, column: int, cut: int) -> NDArray[np.bool_]:
        """Return for each row whether it lies above a border of a column, (rows,)."""
        block = self.blocks[column // self._most]
        first = int(self.first[column]) - block.sums.start
        above: NDArray[np.bool_] = block.codes[column % self._most] > first + cut
        return above

    def sums(self, leaf: Integers, leaves: int, values: Floats) -> Floats:
        """Add up values by leaf and bin: (values, leaves, all bins).

        `values` are (values, columns of a block · rows): those of the rows, again and again. To add
        up only the smaller half of each leaf and to subtract it from the whole was no faster.
        """
        found = np.empty((len(values), leaves, self.total))
        for block in self.blocks:
            size = block.sums.stop - block.sums.start
            places = (leaf * size + block.codes).ravel()
            for each, total in zip(values, found, strict=True):
                counted = np.bincount(places, each[: len(places)], leaves * size)
                total[:, block.sums] = counted.reshape(leaves, size)
        return found


class Margins:
    """The outputs of the present trees for some rows, kept while trees are added."""

    def __init__(self, rows: Examples, start: Numbers) -> None:
        self.rows = rows
        self.x: Numbers = rows.x.cpu().numpy()
        #: float64 (rows, outputs), to which the trees are added one by one: always the same sum
        self.values = np.tile(start.astype(np.float64), (len(rows), 1))
        self.trees = 0


class Boosting(Engine):
    """Grows one tree with each step."""

    name = "boosting"

    def __init__(self, setup: Setup, model: Trees) -> None:
        super().__init__(setup)
        #: the shrinkage without a schedule
        self._rate = setup.optimizer.learning_rate
        self._model = model
        # NumPy's views of the parameters; those on a GPU have a copy.
        self._values = self.flat.values.cpu()
        named = {name: each.numpy() for name, each in self.flat.named(self._values).items()}
        self._feature, self._threshold, self._leaves, self._start = (
            next(each for name, each in named.items() if name.endswith(f".{part}"))
            for part in ("feature", "threshold", "leaves", "start")
        )
        self.outputs: int = self._leaves.shape[2]
        self._binned: Binned | None = None
        self._train: Margins | None = None
        self._held_out: Margins | None = None

    # ---- the protocol ----

    def advance(
        self,
        rows: Examples,
        order: Integers | None,
        first: int,
        count: int,
        rate: float,
        until: float,
    ) -> int:
        if order is not None or self.batch < len(rows):
            raise ValueError("a tree is grown from all training rows: batch_size must be full")
        del first  # every batch has all rows
        done = 0
        while done == 0 or (done < count and not is_late(until)):
            self._step(rows, rate)
            done += 1
        return done

    def pull(self) -> None:
        if self._values.data_ptr() != self.flat.values.data_ptr():
            self.flat.values.copy_(self._values)

    def push(self) -> None:
        if self._values.data_ptr() != self.flat.values.data_ptr():
            self._values.copy_(self.flat.values)
        self._train = self._held_out = None

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def scalars(self) -> dict[str, Any]:
        return {}

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        del tensors, scalars  # the trees are all there is

    def evaluate(self, rows: Examples) -> tuple[Floats, int]:
        if self._held_out is None or self._held_out.rows is not rows:
            self._held_out = Margins(rows, self._start)
        values = self._grown(self._held_out)
        sums, hits = np.zeros(self.loss.width), 0
        for begin in range(0, len(values), CHUNK):
            part = rows.part(slice(begin, begin + CHUNK))
            outputs = torch.from_numpy(values[begin : begin + CHUNK]).to(rows.x.device)
            sums += self.loss.measure(outputs, part.truth, part.weights).cpu().numpy()
            if part.truth.dtype == torch.int64:
                hits += int((outputs.argmax(1) == part.truth).sum())
        return sums, hits

    # ---- a tree ----

    def _step(self, rows: Examples, rate: float) -> None:
        if self._binned is None:
            self._binned = Binned(rows.x.cpu().numpy(), self._model.bins)
        if self.step == 0:
            start = self.loss.constant(rows.truth, rows.weights, self.outputs)
            self._start[:] = start.cpu().numpy()
        if self._train is None or self._train.rows is not rows:
            self._train = Margins(rows, self._start)
        margins = self._grown(self._train)
        outputs = torch.from_numpy(margins).to(rows.x.device)
        self.totals += self.loss.measure(outputs, rows.truth, rows.weights).cpu().numpy()
        slopes = self.loss.slopes(outputs, rows.truth, 1.0).double().cpu().numpy()
        curvatures = self.loss.curvatures(outputs).cpu().numpy()
        weights = None if rows.weights is None else rows.weights.double().cpu().numpy()
        is_pair = rows.truth.dtype == torch.int64 and self.outputs == 2
        if is_pair:  # the slopes of two classes differ by their sign only
            slopes, curvatures = slopes[:, 1:], curvatures[:, 1:]
        leaf = self._choose(self._binned, slopes, weights)
        if weights is not None:
            slopes, curvatures = slopes * weights[:, None], curvatures * weights[:, None]
        leaves = self._leaf_values(leaf, slopes, curvatures) * rate
        if is_pair:
            leaves = np.column_stack([-leaves, leaves])
        if rows.truth.dtype == torch.int64:
            # The outputs of classes move against each other: Friedman's factor for K of them.
            leaves *= (self.outputs - 1) / self.outputs
        self._leaves[self.step] = leaves
        margins += self._leaves[self.step].take(leaf, axis=0)
        self.step += 1
        self._train.trees = self.step

    def _choose(self, binned: Binned, slopes: Floats, weights: Floats | None) -> Integers:
        """Choose the questions of a tree; return the leaf of each row."""
        model = self._model
        random = generator(self.seed, STREAM + self.step)
        rows = len(slopes)
        drawn = random.exponential(size=rows) ** model.bagging_temperature
        if weights is not None:
            drawn *= weights
        columns = max((len(block.codes) for block in binned.blocks), default=0)
        values = np.tile(np.vstack([drawn, slopes.T * drawn]), columns)
        noise = self._noise(slopes)
        leaf = np.zeros(rows, dtype=np.int64)
        if not len(binned.feature):  # no column varies: every row belongs to the first leaf
            self._threshold[self.step] = np.finfo(np.float32).max
            return leaf
        for level in range(model.depth):
            scores = self._scores(binned, binned.sums(leaf, 1 << level, values))
            best = np.maximum.reduceat(scores, binned.question)
            column = int((best + noise * random.normal(size=len(best))).argmax())
            begin = int(binned.question[column])
            cut = int(scores[begin : begin + int(binned.count[column])].argmax())
            self._feature[self.step, level] = binned.feature[column]
            self._threshold[self.step, level] = binned.borders[column][cut]
            leaf |= binned.bits(column, cut).astype(np.int64) << level
        return leaf

    def _scores(self, binned: Binned, sums: Floats) -> Floats:
        """Return for each question how well its leaves point against the slopes, a cosine.

        `sums` are weights, then slopes, (1 + slopes, leaves, all bins).
        """
        running = np.zeros((*sums.shape[:2], sums.shape[2] + 1))
        np.cumsum(sums, axis=2, out=running[:, :, 1:])
        left = running[:, :, binned.left + 1] - running[:, :, binned.base]
        last = binned.count[0] + 1  # each column has all rows
        right = running[:, :, last, None] - left
        along = size = np.zeros(1)
        for side in (left, right):
            weight, totals = side[0], side[1:]
            squares = np.einsum("vlq,vlq->lq", totals, totals)
            factor = 1 / (weight + max(self._model.l2, 1e-9))
            along = along + np.einsum("lq,lq->q", squares, factor)
            factor *= factor
            factor *= weight
            size = size + np.einsum("lq,lq->q", squares, factor)
        found: Floats = along / np.sqrt(np.maximum(size, 1e-12))
        return found

    def _noise(self, slopes: Floats) -> float:
        """Return the deviation of the noise in scores, which falls with the trees."""
        left = len(slopes) * np.exp(-self.step * self._rate)
        share = left / (1 + left)
        return float(self._model.random_strength * np.sqrt((slopes**2).mean()) * share)

    def _leaf_values(self, leaf: Integers, slopes: Floats, curvatures: Floats) -> Floats:
        """Return the Newton steps of the leaves, (leaves, slopes)."""
        count = 1 << self._model.depth
        found = np.empty((count, slopes.shape[1]))
        for place in range(slopes.shape[1]):
            total = np.bincount(leaf, slopes[:, place], count)
            curve = np.bincount(leaf, curvatures[:, place], count)
            beside = self._model.l2 * curvatures[:, place].mean()
            found[:, place] = -total / np.maximum(curve + beside, 1e-12)
        return found

    def _grown(self, margins: Margins) -> Floats:
        """Add the trees that are new since the last call; return the outputs."""
        for tree in range(margins.trees, self.step):
            leaf = np.zeros(len(margins.x), dtype=np.int64)
            pairs = zip(self._feature[tree], self._threshold[tree], strict=True)
            for level, (feature, threshold) in enumerate(pairs):
                leaf |= (margins.x[:, int(feature)] > threshold).astype(np.int64) << level
            margins.values += self._leaves[tree].take(leaf, axis=0)
        margins.trees = self.step
        return margins.values
