"""Small tables to learn from, and one call that trains and collects the results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from descent.spec import TEXTUAL, ColumnType, RunConfig
from models.data import Categories, ColumnValues, Table
from models.errors import TrainingFailed
from models.training.dataset import TrainingInput
from models.training.interface import (
    Alive,
    Finished,
    MetricRow,
    Metrics,
    Noted,
    Saved,
    Started,
    StopReason,
)
from models.training.loop import train

QUIZ = [25.2, 8.4, 4.9, 11.1, 9.0, 7.8, 3.0, 16.0, 2.5, 13.8, 9.6, 11.8, 16.9]
FINAL = [30.5, 13.6, 14.0, 16.6, 15.8, 6.3, 2.4, 27.7, 0.0, 16.8, 14.9, 7.6, 25.9]

Cells = Sequence[Any]


def make_table(types: Mapping[str, ColumnType], **columns: Cells) -> Table:
    """Build a table from cells; None is a missing value."""
    rows = len(next(iter(columns.values())))
    converted = {name: make_column(types[name], cells) for name, cells in columns.items()}
    return Table(dict(types), converted, rows)


def make_column(column_type: ColumnType, cells: Cells) -> ColumnValues:
    if column_type in TEXTUAL:
        values = sorted({cell for cell in cells if cell is not None})
        codes = [-1 if cell is None else values.index(cell) for cell in cells]
        return Categories(np.array(codes, dtype=np.int32), values)
    return np.array([np.nan if cell is None else float(cell) for cell in cells])


def scores() -> Table:
    return make_table({"Quiz": "number", "Final": "number"}, Quiz=QUIZ, Final=FINAL)


def passengers(rows: int = 120) -> Table:
    """People of whom some survive: numbers, categories, booleans, datetimes and gaps."""
    random = np.random.default_rng(7)
    sex = random.choice(["female", "male"], rows).tolist()
    age = random.uniform(1, 80, rows).round(1).tolist()
    port: list[str | None] = random.choice(["C", "Q", "S"], rows).tolist()
    age[3] = age[11] = None
    port[5] = None
    survived = [a == "female" or random.random() < 0.2 for a in sex]
    return make_table(
        {
            "Sex": "category",
            "Age": "number",
            "Port": "category",
            "Alone": "boolean",
            "Boarded": "datetime",
            "Class": "integer",
            "Survived": "boolean",
            "Fare": "number",
        },
        Sex=sex,
        Age=age,
        Port=port,
        Alone=(random.random(rows) < 0.5).tolist(),
        Boarded=(1.6e9 + random.uniform(0, 3e7, rows)).tolist(),
        Class=random.integers(1, 4, rows).tolist(),
        Survived=survived,
        Fare=random.uniform(0, 100, rows).tolist(),
    )


PASSENGER_FEATURES = ["Sex", "Age", "Port", "Alone", "Boarded", "Class"]
LINE = {
    "dataset": "ds_1",
    "target": "Final",
    "features": ["Quiz"],
    "task": "regression",
    "loss": "mse",
    "model": {"type": "linear"},
    "split": {"type": "none"},
}
SURVIVAL = {
    "dataset": "ds_1",
    "target": "Survived",
    "features": PASSENGER_FEATURES,
    "task": "binary",
    "loss": "cross_entropy",
    "model": {"type": "mlp", "hidden": [8]},
    "split": {"validation": 0.2, "test": 0.2},
    "epochs": 3,
}


@dataclass
class Outcome:
    """Everything that a training reported."""

    started: Started | None = None
    rows: list[MetricRow] = field(default_factory=list)
    metrics: list[Metrics] = field(default_factory=list)
    saved: list[Saved] = field(default_factory=list)
    noted: list[Noted] = field(default_factory=list)
    alive: list[Alive] = field(default_factory=list)
    finished: Finished | None = None
    error: TrainingFailed | None = None

    @property
    def curve(self) -> list[tuple[int, int, int, str, str, bytes]]:
        """Every row without its wall time, the value bit for bit."""
        return [
            (row.seq, row.epoch, row.step, row.split, row.name, np.float64(row.value).tobytes())
            for row in self.rows
        ]

    @property
    def evaluation(self) -> dict[str, Any]:
        assert self.finished is not None
        assert self.finished.evaluation is not None
        return self.finished.evaluation

    @property
    def parameters(self) -> dict[str, Any]:
        assert self.finished is not None
        assert self.finished.parameters is not None
        return self.finished.parameters

    def values(self, split: str, name: str = "loss") -> list[float]:
        return [row.value for row in self.rows if (row.split, row.name) == (split, name)]


def learn(
    table: Table,
    scratch: Path,
    config: Mapping[str, Any],
    should_stop: Callable[[], StopReason | None] = lambda: None,
    **job: Any,
) -> Outcome:
    """Train to the end, or to an error, which is recorded."""
    outcome = Outcome()
    scratch.mkdir(exist_ok=True)
    order = TrainingInput(
        config=RunConfig.model_validate(config), table=table, scratch=scratch, **job
    )
    try:
        for event in train(order, should_stop):
            if isinstance(event, Metrics):
                outcome.metrics.append(event)
                outcome.rows += event.rows
            elif isinstance(event, Saved):
                outcome.saved.append(event)
            elif isinstance(event, Started):
                outcome.started = event
            elif isinstance(event, Noted):
                outcome.noted.append(event)
            elif isinstance(event, Alive):
                outcome.alive.append(event)
            elif isinstance(event, Finished):
                outcome.finished = event
    except TrainingFailed as error:
        outcome.error = error
    return outcome
