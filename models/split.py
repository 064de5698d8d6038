"""Which rows a run learns from and which it is judged by. Knows NumPy only."""

import numpy as np

from descent.spec import ColumnSplit, GroupSplit, RunConfig, TimeSplit
from models.data import Rows, Split, Table, split_rows
from models.targets import fit_classes


def columns_that_split(config: RunConfig) -> list[str]:
    """Return the columns that the split is made from; the others do not matter to it."""
    needed = list(config.targets)
    if isinstance(config.split, TimeSplit | GroupSplit | ColumnSplit):
        needed.append(config.split.column)
    return list(dict.fromkeys(needed))


def split_table(config: RunConfig, table: Table) -> Split:
    """Divide the rows that have a target; a pure function of the data and the configuration.

    The task is decided, as in the configuration that a run shows.
    """
    if config.task == "auto":
        raise ValueError("the task must be decided, got 'auto'")
    rows: Rows = np.flatnonzero(table.present(config.targets))
    labels = None
    if config.task != "regression":
        labels = fit_classes(table, config.targets[0], config.task).labels_of(table)
    return split_rows(config.split, table, rows, labels=labels, seed=config.seed)
