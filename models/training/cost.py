"""The cost of a training: its memory, its time, and the disk for rows that memory cannot hold.

Knows no torch. `benchmarks/memory.py` compares the estimates with trainings.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from descent.spec import ColumnSplit, KFoldSplit, NoSplit, RunConfig
from models.architectures.trees import Trees
from models.engine import CHUNK, LIBRARY, suits_kernel
from models.features.widths import count_numbers, estimate_width
from models.machine import free_memory
from models.nets.graph import Graph

#: Resident memory of a training process: of the interpreter and the libraries; of reading blocks of
#: a table, which grows up to READ_ROWS; of each parameter with its optimizer and its checkpoints.
BASE_BYTES = 270_000_000
READ_BYTES, READ_ROWS = 70_000_000, 250_000
PARAMETER_BYTES, LBFGS_BYTES = 44, 120
#: Of each row with a target: its place in the split; while the table is split, its targets and the
#: random orders of its place.
SPLIT_BYTES, SPLITTING_BYTES = 4, 24
#: Of each training row: its place in the order of an epoch.
ORDER_BYTES = 8
#: Of each row that is evaluated: its true target as float64, and for classes its shares.
TRUTH_BYTES, SHARES_BYTES = 8, 24
#: Rows in memory of fewer bytes than this are never kept in files.
SMALL_BYTES = 64 * 1024 * 1024
#: The share of the free memory that a training may take.
SHARE = 0.8
#: The memory of two windows of rows in files.
WINDOWS_BYTES = 2 * 64 * 1024 * 1024
#: Seconds of a run before and after its training; of reading and encoding a number of a row; of the
#: fixed part of an epoch and of a step; and multiplications with an addition in a second.
START_S, CELL_S, EPOCH_S, STEP_S, FLOPS = 0.1, 1.4e-7, 3e-4, 4e-5, 2e10
#: The batches of a test of learning rates, one for each rate; an epoch may have more or fewer.
RATES = 300
#: The splits that depend on the seed.
DRAWN = frozenset({"random", "group", "kfold"})
#: Seconds of a step of a net that is no dense stack, beside its work: `autograd` computes it.
GRAPH_S = 1e-3
#: Seconds of a tree beside its work; multiplications in the time of adding a cell to a sum.
TREE_S, CELL_WORK = 2e-3, 120
#: A step of L-BFGS evaluates the objective several times.
LBFGS_PASSES = 5


@dataclass(frozen=True)
class Size:
    """The numbers that the cost of a training depends on."""

    #: Rows with a target, training rows, and rows that are validated after each epoch.
    rows: int
    training: int
    validated: int
    #: Encoded numbers of a row; numbers that the net returns, and numbers in a target.
    width: int
    outputs: int
    targets: int
    is_weighted: bool
    parameters: int
    #: Rows of a batch, and numbers that its passes keep for each row.
    batch: int
    kept: int
    #: Numbers that an evaluation holds for each row.
    held: int
    kind: Literal["steps", "graph", "lbfgs", "trees"]
    #: Multiplications of a step and of an evaluation for each row.
    learning: int
    measuring: int
    #: The trainings of a cross-validation, which have the same size.
    members: int = 1

    @property
    def shape(self) -> str:
        """The kind of training, of which each machine learns how long it takes."""
        work = round(math.log2(self.batch * self.learning / 3) / 2)
        return f"{self.kind}/4^{work}"

    def training_s(self, epochs: float) -> float:
        """The seconds of so many epochs on a usual machine, without what comes before and after."""
        passes = LBFGS_PASSES if self.kind == "lbfgs" else 1
        step = passes * (STEP_S + self.batch * self.learning / FLOPS)
        step += {"trees": TREE_S, "graph": GRAPH_S}.get(self.kind, 0)
        epoch = EPOCH_S + self.validated * self.measuring / FLOPS
        return self.members * epochs * (self.steps_per_epoch * step + epoch)

    def steps(self, config: RunConfig) -> int:
        """The most steps of a run with this configuration."""
        if config.lr_range:
            return RATES
        return self.members * self.steps_per_epoch * config.epochs

    @property
    def around_s(self) -> float:
        """The seconds of a run beside its training."""
        return START_S + CELL_S * self.members * self.rows * self.width

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.training // self.batch)

    @property
    def row_bytes(self) -> int:
        """Bytes of an encoded row with its target and its weight."""
        return 4 * (self.width + max(self.targets, 2) + self.is_weighted)

    @property
    def memory_bytes(self) -> int:
        """The most resident memory of the training process with its rows in memory."""
        return self._memory(on_disk=False)

    @property
    def memory_bytes_from_disk(self) -> int:
        """The most resident memory of the training process with its rows in files."""
        return self._memory(on_disk=True)

    @property
    def disk_bytes(self) -> int:
        """The bytes of the files of the rows, if they are in files."""
        return self.members * self.rows * self.row_bytes

    @property
    def start_bytes(self) -> int:
        """Bytes of the process before it splits the table."""
        return BASE_BYTES + round(READ_BYTES * min(1.0, self.rows / READ_ROWS))

    def loaded_bytes(self, *, on_disk: bool) -> int:
        """Bytes of the encoded rows that are in memory."""
        if not on_disk:
            return self.members * (self.training + self.validated) * self.row_bytes
        window = max(WINDOWS_BYTES, 2 * self.batch * self.row_bytes)
        return self.members * min(window, 2 * self.training * self.row_bytes)

    def working_bytes(self, *, on_disk: bool) -> int:
        """Bytes of the order of an epoch, or of the answers in an evaluation, of all rows."""
        shares = SHARES_BYTES if self.outputs > self.targets else 0
        evaluating = self.training * (TRUTH_BYTES * self.targets + shares)
        if self.members > 1:  # the answers of all members are added up
            evaluating += self.rows * 3 * 8 * self.outputs
        return max(0 if on_disk else self.members * self.training * ORDER_BYTES, evaluating)

    @property
    def net_bytes(self) -> int:
        """Bytes of the parameters with their optimizer, and of the passes through the net."""
        optimizer = LBFGS_BYTES if self.kind == "lbfgs" else PARAMETER_BYTES
        last = self.training % self.batch
        passes = (self.batch + last) * self.kept + min(self.rows, CHUNK) * self.held
        return self.members * (self.parameters * optimizer + 4 * passes)

    def _memory(self, *, on_disk: bool) -> int:
        rows = self.loaded_bytes(on_disk=on_disk) + self.working_bytes(on_disk=on_disk)
        return (
            self.start_bytes
            + self.rows * SPLIT_BYTES
            + max(self.rows * SPLITTING_BYTES, rows)
            + self.net_bytes
        )


def expected_net(
    config: RunConfig,
    features: Sequence[Mapping[str, Any]],
    targets: Sequence[Mapping[str, Any]],
) -> Graph:
    """Return the net that will be trained, as far as the profiles of its columns tell."""
    outputs = len(targets) if config.task == "regression" else int(targets[0]["distinct"])
    width, numbers = max(1, estimate_width(features)), count_numbers(features)
    return config.model.graph_of_run(width, max(1, outputs), config.epochs, numbers)


def rows_with(targets: Sequence[Mapping[str, Any]], rows: int) -> int:
    """Return how many of the rows have a value in each of the columns with these profiles."""
    return rows - max((int(target["missing"]) for target in targets), default=0)


def size_of(config: RunConfig, rows: int, net: Graph) -> Size:
    """Return the size of the training of a net on `rows` rows with a target."""
    split = config.split
    validation = test = 0.0
    members = 1
    if isinstance(split, ColumnSplit):
        validation = 0.2
    elif isinstance(split, KFoldSplit):
        if config.lr_range is None:
            validation, members = 1 / split.count(rows), split.members(rows)
    elif not isinstance(split, NoSplit):
        validation, test = split.validation, split.test
    training = max(1, round(rows * (1 - validation - test)))
    return Size(
        rows=rows,
        training=training,
        validated=round(rows * validation),
        width=net.inputs,
        outputs=net.outputs,
        targets=len(config.targets),
        is_weighted=config.weight is not None or config.class_weight is not None,
        parameters=net.parameters,
        batch=training if config.batch_size == "full" else min(config.batch_size, training),
        kept=_kept(config, net),
        held=net.held,
        members=members,
        **_work(config, net),
    )


def _work(config: RunConfig, net: Graph) -> dict[str, Any]:
    """Return the kind of steps, and the work of a step and of an evaluation for each row."""
    if isinstance(config.model, Trees):
        depth, sums = config.model.depth, 1 + net.outputs
        learning = depth * sums * net.inputs * CELL_WORK
        return {"kind": "trees", "learning": learning, "measuring": depth * CELL_WORK}
    kind = "steps" if net.dense() else "graph"
    if config.optimizer.type == "lbfgs":
        kind = "lbfgs"
    return {"kind": kind, "learning": 3 * net.parameters, "measuring": net.parameters}


def _kept(config: RunConfig, net: Graph) -> int:
    """Return the count of numbers that a step of the likely engine keeps for each row."""
    if isinstance(config.model, Trees):  # bins of two bytes; float64 slopes, margins and more
        return net.inputs // 2 + 24 * (1 + net.outputs)
    layers = net.dense()
    if layers is None or config.optimizer.type == "lbfgs":
        return net.kept
    if suits_kernel(layers) and LIBRARY.exists():
        return 0  # it computes few rows at a time
    hidden = sum(
        layer.outputs * (2 + (layer.activation == "gelu") + (layer.dropout > 0))
        for layer in layers[:-1]
    )
    return net.inputs + hidden + 3 * net.outputs


def needs_disk(size: Size, limit: int | None) -> bool:
    """Return whether the rows are to be kept in files.

    `limit` is the memory that the process may take in bytes, libraries included; None means what
    the machine has free. A batch of all rows is kept in memory.
    """
    if size.steps_per_epoch == 1:
        return False
    most = memory_limit(size, limit)
    return most is not None and size.memory_bytes > most


def memory_limit(size: Size, limit: int | None) -> int | None:
    """Return the memory that a training of this size may take; None if it is not limited."""
    loaded = size.loaded_bytes(on_disk=False)
    if limit is not None or loaded < SMALL_BYTES:  # looking costs time
        return limit
    return _most_memory()


def _most_memory() -> int | None:
    """Return what a training process may take of this machine; None if the system does not say."""
    free = free_memory()
    return None if free is None else BASE_BYTES + round(SHARE * free)


def count_together(members: Sequence[tuple[Size, Hashable]], limit: int | None) -> int:
    """Return how many of these trainings, from the first on, one process has memory for.

    Each comes with a key of its data; those with equal keys share them. `limit` is the memory that
    the process may take in bytes; None means what the machine has free. It is at least one.
    """
    most = _most_memory() if limit is None else limit
    if most is None:
        return len(members)
    known: set[Hashable] = set()
    splitting = rows = rest = 0
    for count, (size, data) in enumerate(members):
        on_disk = needs_disk(size, limit)
        if data not in known:
            known.add(data)
            splitting = max(splitting, size.rows * SPLITTING_BYTES)
            rows += size.loaded_bytes(on_disk=on_disk)
            rest += size.rows * SPLIT_BYTES
        rows += size.working_bytes(on_disk=on_disk)
        rest += size.net_bytes
        if count > 0 and size.start_bytes + max(splitting, rows) + rest > most:
            return count
    return len(members)
