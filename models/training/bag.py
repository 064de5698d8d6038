"""The members of a cross-validation as one training: one for each fold, in lock step.

Each member has features that were fitted on its own training rows, an engine, a best epoch and an
early stop of its own. All make epoch after epoch together, on as many threads as there are idle
processors; no bit depends on their number. Together they are one model: see `nets.joining`.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import fmean, median_low, pstdev
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from descent.spec import KFoldSplit
from models.data import Integers
from models.engine import EngineName
from models.engine.hardware import idle_processors, processors
from models.features.between import widened
from models.features.encoding import Features
from models.nets.graph import Graph
from models.nets.joining import Part, join
from models.training.advice import explain_divergence
from models.training.dataset import Data, TrainingInput
from models.training.folds import fold_table
from models.training.interface import Best, EndReason, Speed
from models.training.scores import RowSplit, split_table
from models.training.state import Epoch, Learner, Training

#: An epoch of a member that takes less is not worth another thread.
WORTH_S = 1e-3
#: The name of the spread of a metric over the members.
SPREAD = "loss_std"
Figures = dict[str, dict[str, float]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class OutOfFold:
    """The predictions of rows by the members that did not train with them."""

    #: The row numbers in the table, ascending, int64 (rows,).
    rows: Integers
    #: Outputs in the scale of the whole model, float32 (rows, outputs): of numbers the mean over
    #: the repeats, of classes the logarithm of the mean probabilities.
    outputs: NDArray[np.float32]


class Bag(Learner):
    """All members of a cross-validation, between their first and their last step."""

    def __init__(
        self,
        given: TrainingInput,
        device: torch.device,
        features: Features | None = None,
        fitted: Sequence[Features] | None = None,
        *,
        is_stored: bool | None = None,
    ) -> None:
        """Divide the table into folds, and make a training of each.

        `features` are those of a checkpoint, `fitted` those of its members; else all are fitted.
        Raises `TrainingFailed`.
        """
        super().__init__(given)
        self.device = device
        split = given.config.split
        if not isinstance(split, KFoldSplit):
            raise TypeError(f"a bag has the split kfold, got {split.type!r}")
        divisions = fold_table(given.config, given.table)
        #: The count of folds; a repeat has so many members.
        self.folds = len(divisions) // split.repeats
        self.members: list[Training] = []
        for number, rows in enumerate(divisions):
            own = _input_of(given, number)
            known = None if fitted is None else fitted[number]
            data = Data(own, device, known, is_stored=is_stored, split=rows)
            is_stored = data.is_stored
            self.members.append(Training(own, data))
        #: All rows are training rows of the model.
        self.split: RowSplit = split_table(given.config, given.table)
        self.features = features or widened(
            given.fit(self.split.train), [each.features for each in self.members]
        )
        #: Why a member went back to its best epoch, by its number: its loss was not finite.
        self.diverged: dict[int, str] = {}
        #: A member whose loss is not finite, with the learning rate, if that ends the run.
        self.lost: tuple[Training, float] | None = None
        #: The last evaluation's; None before.
        self.out_of_fold: OutOfFold | None = None
        self._workers = given.threads or 1
        self._pool: ThreadPoolExecutor | None = None

    # ---- what it is ----

    @property
    def engine_name(self) -> EngineName:
        return self.members[0].engine.name

    @property
    def is_stored(self) -> bool:
        return self.members[0].is_stored

    @property
    def parameters(self) -> int:
        return sum(each.parameters for each in self.members)

    @property
    def steps_per_epoch(self) -> int:
        return sum(each.steps_per_epoch for each in self.members)

    @property
    def speed(self) -> Speed | None:
        return next((each.speed for each in self.members if each.speed), None)

    @property
    def fraction(self) -> float:
        made = sum(each.state.batch for each in self._active())
        share = made / max(1, sum(each.steps_per_epoch for each in self._active()))
        return min(1.0, (self.state.epoch + share) / self.config.epochs)

    def joined(self) -> tuple[Graph, dict[str, NDArray[np.float32]]]:
        """Return the one net of all members with their best parameters, and its parameters."""
        parts = []
        for each in self.members:
            named = each.flat.named(each.best).items()
            tensors = {name: tensor.detach().cpu().numpy() for name, tensor in named}
            parts.append(Part(each.features, each.graph, tensors))
        return join(self.features, parts, [1 / len(parts)] * len(parts))

    # ---- learning ----

    def _active(self) -> list[Training]:
        """Return the members that are still training."""
        return [
            each
            for number, each in enumerate(self.members)
            if not each.stopped_early and number not in self.diverged
        ]

    @property
    def rest(self) -> EndReason | None:
        if self._active():
            return None
        return "diverged" if len(self.diverged) == len(self.members) else "early_stopping"

    def learning_rate(self) -> float:
        """Return that of the first member that is still training; others may have other ones."""
        return self._active()[0].learning_rate()

    @property
    def is_epoch_complete(self) -> bool:
        return all(each.is_epoch_complete for each in self._active())

    def advance(self, rate: float, until: float) -> None:
        del rate  # each member has its own
        waiting = [each for each in self._active() if not each.is_epoch_complete]
        workers = self._workers_for(waiting)

        def work(place: int) -> None:
            # The first ones begin in any case, so that each piece makes a step.
            if place >= workers and time.monotonic() >= until:
                return
            member = waiting[place]
            while not member.is_epoch_complete:
                member.advance(member.learning_rate(), until)
                if time.monotonic() >= until:
                    return

        self._each(work, range(len(waiting)), workers)
        self._count()

    def end_epoch(self) -> Epoch:
        """End the epoch of each member; one that diverged may rest at its best epoch.

        An epoch that was ended early, because a member diverged, goes on for the others.
        """
        was_complete = self.is_epoch_complete
        ended = [each for each in self._active() if was_complete or not each.is_finite()]
        rates = [each.learning_rate() for each in ended]
        results = self._each(Training.end_epoch, ended, self._workers_for(ended))
        for each in ended:
            each.state.seq = 0  # only the mean of all members is stored
        figures = [_figures(found) for found in results if found.is_finite]
        failed = [place for place, found in enumerate(results) if not found.is_finite]
        lost = [place for place in failed if not self._may_rest(ended[place])]
        self.lost = (ended[lost[0]], rates[lost[0]]) if lost else None
        is_finite = not lost
        if is_finite:
            for place in failed:
                self._let_rest(ended[place], rates[place])
        if not was_complete and is_finite:
            self._count()
            return Epoch([], is_finite=True)
        self.state.epoch += 1
        self._count()
        if not is_finite or not figures:
            figures = [_figures(found) for found in results]
        self._note_best()
        return Epoch(self.rows_of(mean_of(figures)), is_finite)

    def _may_rest(self, member: Training) -> bool:
        return self.config.on_divergence == "keep_best" and member.state.best is not None

    def _let_rest(self, member: Training, rate: float) -> None:
        number = self.members.index(member)
        why = explain_divergence(member, rate)
        member.recall_best()
        best = member.state.best.epoch if member.state.best else 0
        self.diverged[number] = f"{self.name_of(number)}: {why}. It is that of epoch {best}"

    def name_of(self, number: int) -> str:
        """Return the name of a member for people."""
        repeat, fold = divmod(number, self.folds)
        named = f"The member of fold {fold + 1}"
        return named if len(self.members) == self.folds else f"{named} in repeat {repeat + 1}"

    def _count(self) -> None:
        self.state.batch = sum(each.state.batch for each in self._active())
        self.state.step = sum(each.state.step for each in self.members)

    def _note_best(self) -> None:
        bests = [each.state.best for each in self.members]
        known = [best for best in bests if best is not None]
        if len(known) < len(bests):
            return
        epoch, value = median_low(best.epoch for best in known), fmean(b.value for b in known)
        self.state.best = Best(epoch, known[0].split, "loss", value)
        self.state.best_metrics = mean_of([each.state.best_metrics for each in self.members])

    def adapt_threads(self) -> None:
        if self.given.threads is None:
            self._workers = idle_processors(self._workers)
        active = self._active()
        for each in active:
            if each.engine.shards > 1:
                each.engine.threads = max(1, self._workers // len(active))

    def is_finite(self) -> bool:
        return all(each.is_finite() for each in self._active())

    def recall_best(self) -> None:
        for each in self.members:
            each.recall_best()

    def keep_present(self) -> None:
        for each in self.members:
            each.keep_present()

    def best_place(self) -> tuple[int, int]:
        places = [each.best_place() for each in self.members]
        epoch = self.state.best.epoch if self.state.best else 0
        return epoch, sum(step for _, step in places)

    def close(self) -> None:
        for each in self.members:
            each.close()
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    # ---- threads ----

    def _workers_for(self, members: Sequence[Training]) -> int:
        """Return on how many threads to advance these members."""
        if self.device.type != "cpu" or self._workers == 1 or len(members) < 2:
            return 1
        first = members[0]
        epochs = first.steps / first.steps_per_epoch
        is_worth = first.learning_s >= WORTH_S * max(1.0, epochs)
        return min(self._workers, len(members)) if is_worth else 1

    def _each(
        self, work: Callable[[Any], Result], items: Sequence[Any], workers: int
    ) -> list[Result]:
        """Do the work for each item, on so many threads; return the results in order."""
        if workers == 1:
            return [work(each) for each in items]
        if self._pool is None:
            # The count of threads of an operation belongs to the thread that calls it.
            self._pool = ThreadPoolExecutor(
                processors(), "fold", initializer=torch.set_num_threads, initargs=(1,)
            )
        shared = iter(list(enumerate(items)))
        found: dict[int, Result] = {}

        def some() -> None:
            for place, item in shared:  # each thread takes the next one
                found[place] = work(item)

        waiting = [self._pool.submit(some) for _ in range(workers - 1)]
        some()
        for each in waiting:
            each.result()
        return [found[place] for place in range(len(items))]


def _input_of(given: TrainingInput, number: int) -> TrainingInput:
    """Return the input of a member: it draws its first parameters and orders by its own seed."""
    seed = (given.config.seed + number) % 2**32
    config = given.config.model_copy(update={"seed": seed})
    return replace(given, config=config, seq=0, elapsed_s=0.0, saving_s=0.0, resume=None)


def _figures(epoch: Epoch) -> Figures:
    found: Figures = {}
    for row in epoch.rows:
        found.setdefault(row.split, {})[row.name] = row.value
    return found


def mean_of(figures: Sequence[Mapping[str, Mapping[str, float]]]) -> Figures:
    """Return the mean of each metric over members, and the spread of the validation loss."""
    found = {
        split: {name: _mean(each[split][name] for each in figures) for name in values}
        for split, values in figures[0].items()
    }
    if "validation" in found:
        losses = [each["validation"]["loss"] for each in figures]
        is_finite = all(map(math.isfinite, losses))
        found["validation"][SPREAD] = pstdev(losses) if is_finite else math.nan
    return found


def _mean(values: Iterator[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
