"""A training in memory: its data on the device, its net, its optimizer and its progress.

Knows how to make a step and to end an epoch; `training.loop` decides when to do so.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from descent.spec import LossName, RunConfig, Sgd, Task
from models.data import Floats, Integers, Table, epoch_order
from models.engine.optimizers import PlateauState, factor, make_optimizer
from models.engine.steps import Loss, Stepper, choose_loss, choose_passes
from models.errors import NotResumable
from models.features.encoding import Features
from models.features.targets import ClassTarget
from models.nets.architectures import Flat, build, describe, flatten
from models.nets.stack import (
    Line,
    Stack,
    is_small,
    largest_learning_rate,
    least_squares,
    load_stack,
    products,
)
from models.training.interface import Best, MetricRow, Progress, SplitName
from models.training.scores import RowSplit
from models.training.weights import weights_of

#: Rows that are predicted at a time, outside of steps.
CHUNK = 16_384


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
    #: Seconds between two checks whether to stop or to save.
    poll_s: float = 0.02
    #: Seconds between two signs of life.
    sign_s: float = 1.0
    #: Seconds between two checkpoints; None weighs their cost against the work that a crash loses.
    checkpoint_s: float | None = None
    #: The epoch after which the training pauses by itself.
    pause_after: int | None = None

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
class Examples:
    """Encoded rows x (rows, width) and their targets, on the device."""

    x: Tensor
    truth: Tensor
    #: The weight of each row in the training loss, (rows,); None if all rows count once.
    weights: Tensor | None = None

    @classmethod
    def load(
        cls, features: Features, table: Table, parts: Sequence[Integers], device: torch.device
    ) -> list["Examples"]:
        """Encode the rows of each part and copy them to the device; each column is read once."""
        # Encode into memory of torch, which is aligned: NumPy's alignment differs between
        # processes, and MKL's order of addition depends on it.
        encoded = [torch.empty(len(rows), features.width) for rows in parts]
        features.encode_into(
            table, [(rows, x.numpy()) for rows, x in zip(parts, encoded, strict=True)]
        )
        return [
            cls(x.to(device), _aligned(features.encode_targets(table, rows)).to(device))
            for rows, x in zip(parts, encoded, strict=True)
        ]

    def __len__(self) -> int:
        return self.x.shape[0]

    def rows(self, places: Integers) -> NDArray[np.float32]:
        """Return the encoded rows at these places, (places, width)."""
        chosen = self.at(torch.from_numpy(places).to(self.x.device))
        found: NDArray[np.float32] = chosen.x.cpu().numpy()
        return found

    def at(self, places: Tensor) -> "Examples":
        """Return the rows at these places, a tensor on the same device."""
        weights = None if self.weights is None else self.weights.index_select(0, places)
        return Examples(self.x.index_select(0, places), self.truth.index_select(0, places), weights)

    def chunks(self) -> Iterator["Examples"]:
        """Yield the rows in parts that fit the memory of a forward pass."""
        for start in range(0, len(self), CHUNK):
            part = slice(start, start + CHUNK)
            yield Examples(self.x[part], self.truth[part])


@dataclass(frozen=True)
class Epoch:
    """The result of an epoch."""

    rows: list[MetricRow]
    #: Whether the training loss and every parameter are finite.
    is_finite: bool


class Training:
    """A training between its first and its last step."""

    def __init__(
        self, given: TrainingInput, features: Features, split: RowSplit, device: torch.device
    ) -> None:
        config = given.config
        self.given, self.config, self.features, self.split = given, config, features, split
        self.device = device
        parts = [split.train, split.validation]
        self.train, self.validation = Examples.load(features, given.table, parts, device)
        #: float64 (training rows,), with the mean 1.
        self.weights = weights_of(config, features.target, given.table, split.train)
        if self.weights is not None:
            weights = _aligned(self.weights.astype(np.float32)).to(device)
            self.train = replace(self.train, weights=weights)
        self.net = build(config.model, features.width, features.outputs, config.seed)
        self.flat: Flat = flatten(self.net, device)
        self.loss: Loss = choose_loss(given.loss, features.target, device)
        self.optimizer = make_optimizer(config.optimizer, self.flat)
        passes = choose_passes(self.net, self.flat)
        self.stepper = Stepper(passes, self.loss, self.optimizer)
        self.has_dropout = any(isinstance(module, nn.Dropout) for module in self.net)
        if self.has_dropout:
            torch.manual_seed(config.seed)
        self.state = TrainingState(seq=given.seq)
        self.best = self.flat.values.clone()
        self.zeros = torch.zeros_like(self.flat.values)
        # Read back from the device once per epoch: the sums of both losses, hits, a check.
        width = self.loss.width
        self.report = torch.zeros(2 * width + 2, dtype=torch.float64, device=device)
        self.train_sums, self.validation_sums = self.report[:width], self.report[width : 2 * width]
        self.hits, self.check = self.report[-2], self.report[-1]
        self.started_at = time.monotonic()
        #: Warnings for the end of the run: `{"code", "detail"}` each.
        self.warnings: list[dict[str, str]] = []
        #: Seconds that went into checkpoints, earlier attempts included.
        self.saving_s = given.saving_s

    # ---- shape ----

    @property
    def parameters(self) -> int:
        return self.flat.values.numel()

    @property
    def batch_size(self) -> int:
        size, rows = self.config.batch_size, len(self.train)
        return rows if size == "full" else min(size, rows)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train) / self.batch_size)

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, earlier attempts included."""
        return self.given.elapsed_s + time.monotonic() - self.started_at

    @property
    def stopped_early(self) -> bool:
        """Whether the validation loss has not improved for `patience` epochs."""
        stopping, best = self.config.early_stopping, self.state.best
        if stopping is None or len(self.validation) == 0 or self.state.epoch == 0:
            return False
        return self.state.epoch - (best.epoch if best else 0) >= stopping.patience

    @cached_property
    def least_squares(self) -> Line | None:
        """The closed-form solution over the training rows, for a regression."""
        return least_squares(self.features, self.given.table, self.split.train, self.weights)

    def largest_learning_rate(self, optimizer: Sgd) -> float | None:
        """Return the largest rate at which full batches converge to the closed form, if known."""
        features, rows = self.features, self.split.train
        if not is_small(len(rows), features.width):
            return None
        sums = products(features, self.given.table, rows, self.weights)
        return largest_learning_rate(sums, len(rows), self.given.loss, optimizer, features.outputs)

    def progress(self) -> Progress:
        state, steps = self.state, self.config.epochs * self.steps_per_epoch
        fraction = min(1.0, state.step / steps)
        elapsed_s = self.elapsed_s
        eta_s = elapsed_s * (1 - fraction) / fraction if fraction else None
        return Progress(
            state.epoch,
            self.config.epochs,
            state.step,
            steps,
            fraction,
            eta_s,
            elapsed_s,
            self.saving_s,
        )

    # ---- learning ----

    def batches(self) -> Iterator["Examples"]:
        """Yield the batches of the present epoch that are not done."""
        if self.steps_per_epoch == 1:
            if self.state.batch == 0:
                yield self.train
            return
        order = epoch_order(self.config.seed, self.state.epoch, len(self.train))
        batches = torch.split(torch.from_numpy(order).to(self.device), self.batch_size)
        for rows in batches[self.state.batch :]:
            yield self.train.at(rows)

    def learning_rate(self) -> float:
        """Return the learning rate of the present epoch."""
        state, config = self.state, self.config
        share = factor(config.schedule, state.epoch, config.epochs, state.plateau)
        return config.optimizer.learning_rate * share

    def step(self, batch: Examples, rate: float) -> None:
        """Make an optimizer step on a batch."""
        self.stepper.step(batch.x, batch.truth, rate, self.train_sums, batch.weights)
        self.state.batch += 1
        self.state.step += 1

    def end_epoch(self) -> Epoch:
        """End the epoch: measure it with one readback from the device, and note the best epoch."""
        self._validate()
        self._check()
        figures, is_finite = self._read_report()
        state = self.state
        state.epoch, state.batch = state.epoch + 1, 0
        if is_finite:
            self._note_best(figures)
        monitored = figures.get("validation") or figures["train"]
        state.plateau.note(self.config.schedule, monitored["loss"])
        return Epoch(self.rows_of(figures), is_finite)

    def recall_best(self) -> None:
        """Set the net to the best epoch's parameters."""
        self.flat.values.copy_(self.best)

    def best_place(self) -> tuple[int, int]:
        """Return the best epoch and the count of steps at its end; zeros before the first."""
        epoch = self.state.best.epoch if self.state.best else 0
        return epoch, epoch * self.steps_per_epoch

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

    def is_finite(self) -> bool:
        """Return whether every parameter is finite; waits for the device."""
        self._check()
        return self.check.item() == 0

    def _check(self) -> None:
        # Zero times a finite number is zero, otherwise NaN: one pass that cannot overflow.
        self.check.copy_(torch.dot(self.flat.values, self.zeros))

    def _validate(self) -> None:
        self.validation_sums.zero_()
        with self._evaluating():
            for chunk in self.validation.chunks():
                outputs = self.net(chunk.x)
                self.validation_sums.add_(self.loss.measure(outputs, chunk.truth))
                if isinstance(self.features.target, ClassTarget):
                    self.hits.add_((outputs.argmax(1) == chunk.truth).sum())

    def _read_report(self) -> tuple[dict[str, dict[str, float]], bool]:
        values = self.report.tolist()
        self.report.zero_()
        width, rows = self.loss.width, len(self.validation)
        # An epoch that was ended early because a parameter is not finite has no loss.
        complete = self.state.batch == self.steps_per_epoch
        train_loss = self.loss.report(values[:width], len(self.train)) if complete else math.nan
        figures = {"train": {"loss": train_loss}}
        if rows:
            figures["validation"] = {"loss": self.loss.report(values[width : 2 * width], rows)}
            if isinstance(self.features.target, ClassTarget):
                figures["validation"]["accuracy"] = values[-2] / rows
        return figures, math.isfinite(train_loss) and values[-1] == 0

    def _note_best(self, figures: dict[str, dict[str, float]]) -> None:
        split: SplitName = "validation" if len(self.validation) else "train"
        value, best = figures[split]["loss"], self.state.best
        if split == "validation" and not (best is None or value < best.value):
            return
        if math.isfinite(value):
            self.state.best = Best(self.state.epoch, split, "loss", value)
            self.state.best_metrics = figures
            self.best.copy_(self.flat.values)

    # ---- predicting ----

    def examples(self, name: SplitName) -> Examples:
        """Return the rows of a split; the test rows are loaded to the device here, each time."""
        known = {"train": self.train, "validation": self.validation}
        if name in known:
            return known[name]
        (test,) = Examples.load(self.features, self.given.table, [self.split.test], self.device)
        return test

    def decode(self, examples: Examples) -> Floats:
        """Predict with the present parameters; shapes as in `Features.decode`."""
        decoded = np.empty((len(examples), self.features.outputs))
        with self._evaluating():
            for place, chunk in enumerate(examples.chunks()):
                outputs = self.net(chunk.x).cpu().numpy()
                decoded[place * CHUNK :][: len(chunk)] = self.features.decode(outputs)
        return decoded

    def best_stack(self) -> Stack:
        """Return the net with the best epoch's parameters as a NumPy stack, as in predictions."""
        named = self.flat.named(self.best).items()
        net = describe(self.config.model, self.features.width, self.features.outputs)
        return load_stack(net, {name: tensor.cpu().numpy() for name, tensor in named})

    @contextmanager
    def best_parameters(self) -> Iterator[None]:
        """Set the net to the best epoch's parameters inside the `with` block."""
        present = self.flat.values.clone()
        self.flat.values.copy_(self.best)
        yield
        self.flat.values.copy_(present)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        if self.has_dropout:
            self.net.eval()
        with torch.no_grad():
            yield
        if self.has_dropout:
            self.net.train()


def _aligned(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(values).clone()
