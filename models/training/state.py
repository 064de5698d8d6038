"""A training in memory: its data, its net, its engine and its progress.

Knows how to make a piece of an epoch and to end an epoch; `training.loop` decides when to do so.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from models.data import Floats
from models.engine import EngineName
from models.engine.choice import make_engine
from models.engine.engine import Engine, Setup
from models.engine.examples import Examples
from models.engine.hardware import idle_processors
from models.engine.losses import Loss, choose_loss
from models.engine.optimizers import PlateauState, factor
from models.errors import NotResumable
from models.features.encoding import Features
from models.features.targets import ClassTarget
from models.nets.graph import Graph
from models.nets.module import Flat, PiecewiseLinear, build_graph, flatten
from models.nets.numeric import Net, compiled
from models.training.cost import size_of
from models.training.dataset import Data, TrainingInput, Window, net_of
from models.training.interface import (
    Best,
    EndReason,
    MetricRow,
    Piece,
    Progress,
    Speed,
    SplitName,
)
from models.training.scores import RowSplit
from models.training.scratch import StoredExamples

#: A shorter training says little about the speed of a machine.
SHORTEST_S = 0.02


@dataclass
class TrainingState:
    """The numbers of a training that change; with the tensors they are all that resuming needs."""

    #: Epochs done.
    epoch: int = 0
    #: Batches done of the present epoch.
    batch: int = 0
    step: int = 0
    #: The number of the last metric row.
    seq: int = 0
    best: Best | None = None
    #: The metrics of the best epoch, by split and name.
    best_metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    plateau: PlateauState = field(default_factory=PlateauState)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TrainingState":
        try:
            best = document["best"]
            nested = {
                "best": None if best is None else Best(**best),
                "plateau": PlateauState(**document["plateau"]),
            }
            return cls(**{**document, **nested})
        except (KeyError, TypeError) as error:
            raise NotResumable(f"the checkpoint's state cannot be read: {error}") from error


@dataclass(frozen=True)
class Epoch:
    """The result of an epoch."""

    rows: list[MetricRow]
    #: Whether the training loss and every parameter are finite.
    is_finite: bool


class Learner(ABC):
    """The subject of the loop: a training, or the members of a cross-validation."""

    def __init__(self, given: TrainingInput) -> None:
        self.given, self.config = given, given.config
        self.state = TrainingState(seq=given.seq)
        #: Seconds in which other trainings of this process had their turns.
        self.waited_s = 0.0
        self.started_at = time.monotonic()
        #: Warnings for the end of the run: `{"code", "detail"}` each.
        self.warnings: list[dict[str, str]] = []
        #: How sure the best parameters are, as `models.predict.intervals` stores it.
        self.calibration: dict[str, Any] | None = None
        #: The comparison with baselines, and what is suspicious in the data.
        self.report: dict[str, Any] | None = None
        #: Seconds that went into checkpoints, earlier attempts included.
        self.saving_s = given.saving_s

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, earlier attempts included."""
        return self.given.elapsed_s + self.now() - self.started_at

    def now(self) -> float:
        """Return the time in seconds; it stands still while other trainings have their turns."""
        return time.monotonic() - self.waited_s

    def rows_of(self, figures: Mapping[str, Mapping[str, float]]) -> list[MetricRow]:
        """Return metrics, by split and name, as the next metric rows."""
        state, at_s = self.state, self.elapsed_s
        rows = []
        for split, values in figures.items():
            for name, value in values.items():
                state.seq += 1
                row = MetricRow(state.seq, state.epoch, state.step, split, name, value, at_s)  # type: ignore[arg-type]
                rows.append(row)
        return rows

    @property
    def fraction(self) -> float:
        """The share of the steps that are done."""
        return min(1.0, self.state.step / (self.config.epochs * self.steps_per_epoch))

    def progress(self) -> Progress:
        state, fraction, elapsed_s = self.state, self.fraction, self.elapsed_s
        return Progress(
            state.epoch,
            self.config.epochs,
            state.step,
            self.config.epochs * self.steps_per_epoch,
            fraction,
            elapsed_s * (1 - fraction) / fraction if fraction else None,
            elapsed_s,
            self.saving_s,
        )

    # ---- what it is ----

    device: torch.device
    features: Features
    split: RowSplit

    @property
    @abstractmethod
    def engine_name(self) -> EngineName:
        """The name of the engine that makes the steps."""

    @property
    @abstractmethod
    def is_stored(self) -> bool:
        """Whether the rows are in files."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """The count of learned numbers."""

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int: ...

    @property
    @abstractmethod
    def speed(self) -> Speed | None:
        """How fast this attempt was; None if it was too short to tell."""

    # ---- learning ----

    @abstractmethod
    def learning_rate(self) -> float:
        """Return the learning rate of the present epoch."""

    @property
    @abstractmethod
    def is_epoch_complete(self) -> bool:
        """Whether every batch of the present epoch is made."""

    @abstractmethod
    def advance(self, rate: float, until: float) -> None:
        """Make batches of the present epoch, until about the time `until`."""

    @abstractmethod
    def end_epoch(self) -> Epoch:
        """End the epoch: measure it and note the best epoch."""

    @abstractmethod
    def adapt_threads(self) -> None:
        """Use the processors that are idle now; this does not change the bits."""

    @property
    @abstractmethod
    def rest(self) -> EndReason | None:
        """Why it needs no further epoch, if so."""

    @abstractmethod
    def is_finite(self) -> bool:
        """Return whether it can go on with its parameters; waits for the device."""

    @abstractmethod
    def recall_best(self) -> None:
        """Set the net to the best epoch's parameters."""

    @abstractmethod
    def keep_present(self) -> None:
        """Take the present parameters for the best ones where no epoch has ended."""

    @abstractmethod
    def best_place(self) -> tuple[int, int]:
        """Return the best epoch and the count of steps at its end; zeros before the first."""

    @abstractmethod
    def close(self) -> None:
        """Free the threads."""


class Training(Learner):
    """A training between its first and its last step."""

    def __init__(self, given: TrainingInput, data: Data) -> None:
        super().__init__(given)
        config, features = given.config, data.features
        self.data = data
        self.features, self.split, self.device = features, data.split, data.device
        self.loss: Loss = choose_loss(given.loss, features.target, data.device)
        self.graph: Graph = net_of(config, features)
        self.setup = self.new_setup()
        self.flat: Flat = self.setup.flat
        self.engine: Engine = make_engine(self.setup, given.engine)
        self.engine.threads = given.threads or 1
        self.best = self.flat.values.clone()
        self.zeros = torch.zeros_like(self.flat.values)
        #: The windows of the present epoch that are not done, and the first of them.
        self._windows: Iterator[Window] = iter(())
        self._window: Window | None = None
        #: Seconds of steps and of epochs' ends in this attempt, and the count of these steps.
        self.learning_s, self.steps = 0.0, 0

    def new_setup(self) -> Setup:
        """Return what an engine is made of, with a new net that has its initial parameters.

        Its knots are those of the training rows; resuming replaces them with those of the start.
        """
        config = self.config
        net = build_graph(self.graph, config.seed)
        for module in net.modules():
            if isinstance(module, PiecewiseLinear):
                module.fit(self.features.numbers, self.data.knots(module.bins))
        flat = flatten(net, self.device)
        layers, size = self.graph.dense(), self.batch_size
        return Setup(
            net, flat, layers, self.loss, config.optimizer, size, config.seed, config.model
        )

    # ---- shape ----

    @property
    def engine_name(self) -> EngineName:
        return self.engine.name

    @property
    def is_stored(self) -> bool:
        return self.data.is_stored

    @cached_property
    def parameters(self) -> int:
        return self.flat.values.numel()

    @cached_property
    def batch_size(self) -> int:
        size, rows = self.config.batch_size, len(self.data.train)
        return rows if size == "full" else min(size, rows)

    @cached_property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.data.train) / self.batch_size)

    @property
    def stopped_early(self) -> bool:
        """Whether the validation loss has not improved for `patience` epochs."""
        stopping, best = self.config.early_stopping, self.state.best
        if stopping is None or len(self.data.validation) == 0 or self.state.epoch == 0:
            return False
        return self.state.epoch - (best.epoch if best else 0) >= stopping.patience

    @property
    def rest(self) -> EndReason | None:
        return "early_stopping" if self.stopped_early else None

    # ---- learning ----

    def learning_rate(self) -> float:
        """Return the learning rate of the present epoch."""
        state, config = self.state, self.config
        share = factor(config.schedule, state.epoch, config.epochs, state.plateau)
        return config.optimizer.learning_rate * share

    @property
    def is_epoch_complete(self) -> bool:
        """Whether every batch of the present epoch is made."""
        return self.state.batch == self.steps_per_epoch

    def advance(self, rate: float, until: float) -> None:
        """Make batches of the present epoch until its window ends or until the time `until`."""
        # A thread has a mode of its own for subnormal numbers, and any thread may continue.
        torch.set_flush_denormal(True)
        begun, state = time.monotonic(), self.state
        window = self._window
        if window is None or state.batch >= window.first + window.batches:
            window = self._next_window()
        first = state.batch - window.first
        done = self.engine.advance(
            window.rows, window.order, first, window.batches - first, rate, until
        )
        state.batch += done
        state.step += done
        self.steps += done
        self.learning_s += time.monotonic() - begun

    @property
    def speed(self) -> Speed | None:
        """How fast this attempt was; None if it was too short to tell."""
        epochs, rows = self.steps / self.steps_per_epoch, sum(map(len, vars(self.split).values()))
        if self.learning_s < SHORTEST_S or epochs < 1:
            return None
        size = size_of(self.config, rows, self.graph)
        return Speed(size.shape, size.members * self.learning_s / size.training_s(epochs))

    def adapt_threads(self) -> None:
        """Give the engine the processors that are idle now; this does not change its bits."""
        engine = self.engine
        if engine.shards > 1 and self.given.threads is None:
            engine.threads = min(engine.shards, idle_processors(engine.threads))

    def _next_window(self) -> Window:
        state = self.state
        window = next(self._windows, None)
        if window is None:
            seed, epoch, size = self.config.seed, state.epoch, self.batch_size
            self._windows = self.data.windows(seed, epoch, size, state.batch)
            window = next(self._windows)
        self._window = window
        return window

    def end_epoch(self) -> Epoch:
        """End the epoch: measure it and note the best epoch."""
        torch.set_flush_denormal(True)
        begun = time.monotonic()
        self.engine.pull()
        figures = self._figures()
        is_finite = math.isfinite(figures["train"]["loss"]) and self._has_finite_parameters()
        state = self.state
        self.begin_epoch()
        if is_finite:
            self._note_best(figures)
        monitored = figures.get("validation") or figures["train"]
        state.plateau.note(self.config.schedule, monitored["loss"])
        self.learning_s += time.monotonic() - begun
        return Epoch(self.rows_of(figures), is_finite)

    def begin_epoch(self) -> None:
        """Begin the next epoch at its first batch."""
        self.state.epoch, self.state.batch = self.state.epoch + 1, 0
        self._windows, self._window = iter(()), None

    def recall_best(self) -> None:
        """Set the net to the best epoch's parameters."""
        self.flat.values.copy_(self.best)
        self.engine.push()

    def keep_present(self) -> None:
        if self.state.best is None:
            self.engine.pull()
            self.best.copy_(self.flat.values)

    def close(self) -> None:
        self.engine.close()

    def best_place(self) -> tuple[int, int]:
        epoch = self.state.best.epoch if self.state.best else 0
        return epoch, epoch * self.steps_per_epoch

    def is_finite(self) -> bool:
        """Return whether every parameter is finite; waits for the device."""
        self.engine.pull()
        return self._has_finite_parameters()

    def _has_finite_parameters(self) -> bool:
        # Zero times a finite number is zero, otherwise NaN: one pass that cannot overflow.
        return bool(torch.dot(self.flat.values, self.zeros).item() == 0)

    def _figures(self) -> dict[str, dict[str, float]]:
        """Return the metrics of the epoch, by split and name."""
        # An epoch that was ended early because a parameter is not finite has no loss.
        loss, totals = math.nan, self.engine.totals
        if self.is_epoch_complete:
            loss = self.loss.report(totals.tolist(), len(self.data.train))
        totals[:] = 0
        figures = {"train": {"loss": loss}}
        if rows := len(self.data.validation):
            sums, hits = np.zeros(self.loss.width), 0
            for piece in self.data.validation.pieces():
                losses, correct = self.engine.evaluate(piece)
                sums, hits = sums + losses, hits + correct
            figures["validation"] = {"loss": self.loss.report(sums.tolist(), rows)}
            if isinstance(self.features.target, ClassTarget):
                figures["validation"]["accuracy"] = hits / rows
        return figures

    def _note_best(self, figures: dict[str, dict[str, float]]) -> None:
        split: SplitName = "validation" if len(self.data.validation) else "train"
        value, best = figures[split]["loss"], self.state.best
        if split == "validation" and not (best is None or value < best.value):
            return
        if math.isfinite(value):
            self.state.best = Best(self.state.epoch, split, "loss", value)
            self.state.best_metrics = figures
            self.best.copy_(self.flat.values)

    # ---- predicting ----

    def predictions(self, examples: Examples | StoredExamples) -> Iterator[Floats]:
        """Predict the rows with the present parameters, block by block, as `Features.decode`."""
        with self._evaluating():
            for piece in examples.pieces():
                for chunk in piece.chunks():
                    yield self.features.decode(self.setup.net(chunk.x).cpu().numpy())

    def best_net(self) -> Net:
        """Return the net with the best epoch's parameters in NumPy, as in predictions."""
        named = self.flat.named(self.best).items()
        return compiled(self.graph, {name: tensor.cpu().numpy() for name, tensor in named})

    @contextmanager
    def best_parameters(self) -> Iterator[None]:
        """Set the net to the best epoch's parameters inside the `with` block."""
        present = self.flat.values.clone()
        self.flat.values.copy_(self.best)
        yield
        self.flat.values.copy_(present)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        self.setup.net.eval()
        with torch.no_grad():
            yield
        self.setup.net.train()


def take_turn(training: Learner) -> Iterator[Piece]:
    """Let other trainings of this process go on; the clock of this one stands still meanwhile."""
    begun = time.monotonic()
    yield Piece()
    training.waited_s += time.monotonic() - begun
