"""The input of a training, and its encoded data."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from descent.spec import LossName, RunConfig, Sgd, Task
from models.data import Floats, Integers, Table, epoch_order, release
from models.engine import EngineName
from models.engine.examples import Examples, aligned
from models.features.encoding import Features
from models.features.knots import knots_of
from models.nets.graph import Graph
from models.nets.lines import Line, is_small, largest_learning_rate, least_squares, products
from models.training.cost import needs_disk, size_of
from models.training.interface import SplitName
from models.training.scores import RowSplit, split_table
from models.training.scratch import StoredExamples, window_rows
from models.training.weights import weights_of


@dataclass(frozen=True)
class TrainingInput:
    """One attempt at a run."""

    #: Task, loss and features are decided; only the device may be "auto".
    config: RunConfig
    table: Table
    #: The folder for checkpoints; no other attempt writes in it.
    scratch: Path
    #: The checkpoint to continue from, if any.
    resume: Path | None = None
    attempt: int = 1
    #: The last metric row that is stored at `resume`; the next row is seq + 1.
    seq: int = 0
    #: Seconds of training in earlier attempts, and how many of them went into checkpoints. They are
    #: not in the checkpoint, so that equal trainings make equal files.
    elapsed_s: float = 0.0
    saving_s: float = 0.0
    #: The longest piece in seconds, after which the loop looks for orders; 0 makes one batch each.
    poll_s: float = 0.02
    #: Seconds between two signs of life.
    sign_s: float = 1.0
    #: Seconds between two checkpoints; None weighs their cost against the work that a crash loses.
    checkpoint_s: float | None = None
    #: The epoch after which the training pauses, if any.
    pause_after: int | None = None
    #: The most frames of a small net; None keeps as many as there is room for.
    frames: int | None = None
    #: Threads of the engine; None takes those that are idle.
    threads: int | None = None
    #: The memory that the process may take in bytes; None: as much as the machine has free.
    memory_bytes: int | None = None
    #: The engine to use if it can do the training; None chooses the fastest.
    engine: EngineName | None = None

    @property
    def task(self) -> Task:
        if self.config.task == "auto":
            raise ValueError("the task must be decided, got 'auto'")
        return self.config.task

    @property
    def loss(self) -> LossName:
        if self.config.loss == "auto":
            raise ValueError("the loss must be decided, got 'auto'")
        return self.config.loss

    @property
    def features(self) -> list[str]:
        if self.config.features is None:
            raise ValueError("the features must be decided, got None")
        return self.config.features

    def fit(self, rows: Integers) -> Features:
        """Return the features fitted to these rows of the table; raises `TrainingFailed`."""
        return Features.fit(
            self.table,
            rows,
            features=self.features,
            targets=self.config.targets,
            task=self.task,
            standardize=self.config.standardize,
        )


def net_of(config: RunConfig, features: Features) -> Graph:
    """Return the net that a run trains on encoded rows."""
    numbers = len(features.numbers)
    return config.model.graph_of_run(features.width, features.outputs, config.epochs, numbers)


KNOT_ROWS = 2**16  # rows whose quantiles are the knots of codes
KEPT_ORDERS = 2 * 10**6  # places in the orders of epochs that are kept, 8 bytes each


@dataclass(frozen=True)
class Window:
    """Neighbouring batches of an epoch, with the rows that they are made of."""

    rows: Examples
    #: The places of the rows in their order; None if they are trained as they lie.
    order: Integers | None
    #: The number of the first batch in the epoch, and the count of batches.
    first: int
    batches: int


class Data:
    """The rows of a training: split, encoded, and on the device or in files.

    It does not change during the training, so several trainings may share it.
    """

    def __init__(
        self,
        given: TrainingInput,
        device: torch.device,
        features: Features | None = None,
        *,
        is_stored: bool | None = None,
        split: RowSplit | None = None,
    ) -> None:
        """Split and encode the table; `features` are those of a checkpoint, else they are fitted.

        Files hold the rows if `is_stored`, by default if the memory is too small for them. `split`
        is that of a fold, else it is the configuration's. Raises `TrainingFailed`.
        """
        self.config, self.table, self.device = given.config, given.table, device
        self.split: RowSplit = split or split_table(given.config, given.table)
        self.features = features or given.fit(self.split.train)
        #: float64 (training rows,), with the mean 1.
        self.weights = weights_of(given.config, self.features.target, given.table, self.split.train)
        if is_stored is None:
            rows = sum(map(len, vars(self.split).values()))
            net = net_of(given.config, self.features)
            is_stored = needs_disk(size_of(given.config, rows, net), given.memory_bytes)
        self.is_stored = is_stored
        if is_stored:
            self._store(given.scratch)
        else:
            self._load()
        #: The last orders of epochs by seed and epoch, for trainings that share this object.
        self._orders: dict[tuple[int, int], Integers] = {}
        self._knots: dict[int, NDArray[np.float32]] = {}
        #: Scores of the baselines on the held-out rows, once a training has computed them.
        self.baseline: dict[str, Any] | None = None
        #: Predictions of the baseline trees, by what they depend on.
        self.trees: dict[tuple[int, str, int], Floats | None] = {}
        #: What is suspicious in these rows, once a training has looked.
        self.suspects: list[dict[str, Any]] | None = None
        release()

    def _load(self) -> None:
        parts = [self.split.train, self.split.validation]
        train, validation = Examples.load(self.features, self.table, parts, self.device)
        if self.weights is not None:
            weights = aligned(self.weights.astype(np.float32)).to(self.device)
            train = replace(train, weights=weights)
        self.validation: Examples | StoredExamples = validation
        self.train: Examples | StoredExamples = train
        self._test: StoredExamples | None = None

    def _store(self, folder: Path) -> None:
        parts = [self.split.train, self.split.validation, self.split.test]
        weights = None if self.weights is None else self.weights.astype(np.float32)
        self.train, self.validation, self._test = StoredExamples.load(
            self.features, self.table, parts, weights, folder, self.device
        )

    def windows(self, seed: int, epoch: int, size: int, begin: int) -> Iterator[Window]:
        """Yield the windows of an epoch, from the one that holds the batch `begin` on.

        `size` is the count of rows in a batch. A single batch of all rows keeps their order.
        """
        rows = len(self.train)
        if isinstance(self.train, Examples):
            count = -(-rows // size)
            order = None if count == 1 else self._order(seed, epoch)
            yield Window(self.train, order, 0, count)
            return
        taken = window_rows(size, self.train.row_bytes)
        for found, order, first in self.train.windows(seed, epoch, taken, begin * size // taken):
            yield Window(found, order, first // size, -(-len(found) // size))

    def _order(self, seed: int, epoch: int) -> Integers:
        rows, known = len(self.train), self._orders.get((seed, epoch))
        if known is not None:
            return known
        order = epoch_order(seed, epoch, rows)
        if rows <= KEPT_ORDERS:
            self._orders[seed, epoch] = order
            if len(self._orders) * rows > KEPT_ORDERS:
                self._orders.pop(list(self._orders)[0], None)  # noqa: RUF015  other threads add orders
        return order

    def examples(self, name: SplitName) -> "Examples | StoredExamples":
        """Return the rows of a split; test rows in memory are loaded to the device each time."""
        if name == "train":
            return self.train
        if name == "validation":
            return self.validation
        if self._test is not None:
            return self._test
        (test,) = Examples.load(self.features, self.table, [self.split.test], self.device)
        return test

    def knots(self, bins: int) -> NDArray[np.float32]:
        """Return the knots of the numbers' codes, (numbers, bins + 1), from the training rows.

        Of many rows these are the quantiles of some, evenly spread over the table.
        """
        if bins not in self._knots:
            rows = len(self.train)
            places = np.linspace(0, rows - 1, min(rows, KNOT_ROWS)).astype(np.int64)
            x = self.train.rows(places)[:, self.features.numbers]
            self._knots[bins] = knots_of(x, bins)
        return self._knots[bins]

    @cached_property
    def least_squares(self) -> Line | None:
        """The closed-form solution over the training rows, for a regression."""
        return least_squares(self.features, self.table, self.split.train, self.weights)

    def largest_learning_rate(self, loss: LossName, optimizer: Sgd) -> float | None:
        """Return the largest rate at which full batches converge to the closed form, if known."""
        rows = self.split.train
        if not is_small(len(rows), self.features.width):
            return None
        sums = products(self.features, self.table, rows, self.weights)
        return largest_learning_rate(sums, len(rows), loss, optimizer, self.features.outputs)

    def truth(self, rows: Integers) -> Floats | Integers:
        """Return the true targets of these rows of the table, which must be ascending."""
        targets = self.config.targets
        blocks = self.table.blocks(targets, [rows])
        found = [self.features.truth(block, places) for block, (places,) in blocks]
        if not found:
            return self.features.truth(self.table, rows)
        joined: Any = np.concatenate(found)
        return joined  # type: ignore[no-any-return]
