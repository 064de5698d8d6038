"""One training in memory: its data on the device, its net, its optimizer and where it stands.

Knows how to make a step, to close an epoch and to be saved; when to do so is `models.train`'s.
"""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from models.closed_form import Line, least_squares
from models.data import Floats, Rows, Split, Table, epoch_order
from models.events import Best, Job, MetricRow, Progress, SplitName
from models.features import Features
from models.forward import Stack, load_stack
from models.losses import Loss, choose_loss
from models.nets import Flat, build, describe, flatten
from models.optimizers import make_optimizer
from models.schedules import factor
from models.state import State
from models.steps import Stepper, choose_passes
from models.targets import ClassTarget

#: Rows that are predicted at once where nothing is learned from them.
CHUNK = 16_384


@dataclass(frozen=True)
class Examples:
    """Encoded rows on the device."""

    x: Tensor
    truth: Tensor

    @classmethod
    def load(cls, features: Features, table: Table, rows: Rows, device: torch.device) -> "Examples":
        x = torch.from_numpy(features.encode(table, rows))
        truth = torch.from_numpy(features.encode_targets(table, rows))
        # A copy that torch has aligned: where NumPy's memory lies differs from process to process,
        # and with it the order in which MKL adds up.
        return cls(x.clone().to(device), truth.clone().to(device))

    def __len__(self) -> int:
        return self.x.shape[0]

    def chunks(self) -> Iterator["Examples"]:
        for start in range(0, len(self), CHUNK):
            part = slice(start, start + CHUNK)
            yield Examples(self.x[part], self.truth[part])


@dataclass(frozen=True)
class Epoch:
    """What the end of an epoch gave."""

    rows: list[MetricRow]
    #: Whether the training loss and every parameter still are numbers.
    is_finite: bool


class Training:
    """A training between its first and its last step."""

    def __init__(self, job: Job, features: Features, split: Split, device: torch.device) -> None:
        config = job.config
        self.job, self.config, self.features, self.split = job, config, features, split
        self.device = device
        self.train = Examples.load(features, job.table, split.train, device)
        self.validation = Examples.load(features, job.table, split.validation, device)
        self.net = build(config.model, features.width, features.outputs, config.seed)
        self.flat: Flat = flatten(self.net, device)
        self.loss: Loss = choose_loss(job.loss, features.target, device)
        self.optimizer = make_optimizer(config.optimizer, self.flat)
        passes = choose_passes(self.net, self.flat)
        self.stepper = Stepper(passes, self.loss, self.optimizer)
        self.has_dropout = any(isinstance(module, nn.Dropout) for module in self.net)
        if self.has_dropout:
            torch.manual_seed(config.seed)
        self.state = State(seq=job.seq)
        self.best = self.flat.values.clone()
        self.zeros = torch.zeros_like(self.flat.values)
        # What is read back once an epoch: the sums of train and validation, hits, a check.
        width = self.loss.width
        self.report = torch.zeros(2 * width + 2, dtype=torch.float64, device=device)
        self.train_sums, self.validation_sums = self.report[:width], self.report[width : 2 * width]
        self.hits, self.check = self.report[-2], self.report[-1]
        self.started_at = time.monotonic()
        #: What the run shall say at its end: `{"code", "detail"}` each.
        self.warnings: list[dict[str, str]] = []
        #: Seconds that went into checkpoints.
        self.saving_s = job.saving_s

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
        return self.job.elapsed_s + time.monotonic() - self.started_at

    @property
    def stopped_early(self) -> bool:
        stopping, best = self.config.early_stopping, self.state.best
        if stopping is None or len(self.validation) == 0 or self.state.epoch == 0:
            return False
        return self.state.epoch - (best.epoch if best else 0) >= stopping.patience

    @cached_property
    def least_squares(self) -> Line | None:
        """The closed-form solution over the training rows, for a regression."""
        return least_squares(self.features, self.job.table, self.split.train)

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

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the rest of the epoch's batches, from where the state stands."""
        x, truth = self.train.x, self.train.truth
        if self.steps_per_epoch == 1:
            if self.state.batch == 0:
                yield x, truth
            return
        order = epoch_order(self.config.seed, self.state.epoch, len(self.train))
        batches = torch.split(torch.from_numpy(order).to(self.device), self.batch_size)
        for rows in batches[self.state.batch :]:
            yield x.index_select(0, rows), truth.index_select(0, rows)

    def learning_rate(self) -> float:
        """Return the learning rate of the present epoch."""
        state, config = self.state, self.config
        share = factor(config.schedule, state.epoch, config.epochs, state.plateau)
        return config.optimizer.learning_rate * share

    def step(self, x: Tensor, truth: Tensor, rate: float) -> None:
        """Learn from a batch."""
        self.stepper.step(x, truth, rate, self.train_sums)
        self.state.batch += 1
        self.state.step += 1

    def end_epoch(self) -> Epoch:
        """Measure the epoch, with one readback from the device, and note the best."""
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
        """Go back to the best epoch's parameters, as numbers to predict with."""
        self.flat.values.copy_(self.best)

    def best_place(self) -> tuple[int, int]:
        """Return the best epoch and the steps that were made at its end; zeros before the first."""
        epoch = self.state.best.epoch if self.state.best else 0
        return epoch, epoch * self.steps_per_epoch

    def rows_of(self, figures: Mapping[str, Mapping[str, float]]) -> list[MetricRow]:
        """Number figures as the next metric rows."""
        state, at_s = self.state, self.elapsed_s
        rows = []
        for split, values in figures.items():
            for name, value in values.items():
                state.seq += 1
                row = MetricRow(state.seq, state.epoch, state.step, split, name, value, at_s)  # type: ignore[arg-type]
                rows.append(row)
        return rows

    def is_finite(self) -> bool:
        """Whether every parameter is a number; waits for the device."""
        self._check()
        return self.check.item() == 0

    def _check(self) -> None:
        # Zero times anything but a NaN or an infinity is zero: one pass, without overflow.
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
        # An epoch that was cut short because a parameter is no number has no loss.
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
        """Return the rows of a split; those of the test rows are on the device only here."""
        known = {"train": self.train, "validation": self.validation}
        if name in known:
            return known[name]
        return Examples.load(self.features, self.job.table, self.split.test, self.device)

    def decode(self, examples: Examples) -> Floats:
        """Predict with the present parameters, as `Features.decode` says."""
        with self._evaluating():
            outputs = [self.net(chunk.x).cpu().numpy() for chunk in examples.chunks()]
        return self.features.decode(np.concatenate(outputs))

    def best_stack(self) -> Stack:
        """Return the net with the best epoch's parameters as it will predict, in NumPy."""
        named = self.flat.named(self.best).items()
        net = describe(self.config.model, self.features.width, self.features.outputs)
        return load_stack(net, {name: tensor.cpu().numpy() for name, tensor in named})

    @contextmanager
    def best_parameters(self) -> Iterator[None]:
        """Predict with the best epoch's parameters for a while."""
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
