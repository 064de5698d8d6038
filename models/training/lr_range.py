"""The test for a good learning rate: a short training whose rate rises with each batch.

At small rates the loss stays, then it falls, and at large rates it explodes. A rate at which it
falls fastest is a good one. Source: L. N. Smith, "Cyclical learning rates for training neural
networks", WACV 2017, section 3.3.
"""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from models.data import Floats
from models.errors import Diverged
from models.training.cost import RATES
from models.training.interface import (
    Finished,
    MetricRow,
    Metrics,
    Progress,
    StopReason,
    TrainingEvent,
)
from models.training.state import Training, take_turn

#: The test ends when the smoothed loss is this many times its least value.
EXPLODED = 4.0
#: The share of the loss before a batch in the smoothed loss after it.
MEMORY = 0.9
#: The standard deviation of the weights by which the whole curve is smoothed, in decades of rates.
WIDTH = 0.2
#: The curve is cut off at this many times its first level, so that the explosion hides no fall.
CUT = 1.5
#: A suggestion is sure if the loss falls by this share, and by this many standard errors of the
#: smoothed loss; the smoothed loss of noise alone spans three or four.
SURE_FALL, SURE_ERRORS = 0.1, 6.0


def find_rate(
    training: Training, should_stop: Callable[[], StopReason | None]
) -> Iterator[TrainingEvent]:
    """Test rates from the least to the largest of `config.lr_range`; yield a metric row for each.

    The last event has `lr_range` in its evaluation; see `evaluate_rates`. A test is never saved: it
    takes seconds, so another attempt starts from the beginning. Raises `Diverged` if the first loss
    is not finite.
    """
    limits = training.config.lr_range
    if limits is None:
        raise ValueError("the configuration must have lr_range")
    rates = np.geomspace(limits.min, limits.max, RATES)
    losses: list[float] = []
    rows: list[MetricRow] = []
    watch = Explosion()
    looks_at = time.monotonic() + training.given.poll_s
    for rate in rates.tolist():
        loss = _try(training, rate)
        is_over = watch.is_seen(loss)
        if math.isfinite(loss):
            losses.append(loss)
            rows.append(_row(training, len(losses), loss))
        if not is_over and time.monotonic() < looks_at:
            continue
        yield Metrics(rows, _progress(training, len(losses)), None)
        yield from take_turn(training)
        rows, looks_at = [], time.monotonic() + training.given.poll_s
        if reason := should_stop():
            yield Finished(reason, None)
            return
        budget = training.config.budget
        if is_over or (budget and training.elapsed_s >= budget.time_s):
            break
    yield Metrics(rows, _progress(training, len(losses)), None)
    if not losses:
        raise Diverged(
            "the loss of the first batch is not a finite number at a learning rate of"
            f" {limits.min:g}: standardize the inputs, or test lower rates"
        )
    found = evaluate_rates(rates[: len(losses)], np.array(losses))
    yield Finished(None, {"lr_range": found}, None, training.warnings)


def _try(training: Training, rate: float) -> float:
    """Make a batch with this rate; return its loss before the step, in the targets' units."""
    if training.is_epoch_complete:
        training.begin_epoch()
    size = training.batch_size
    rows = min(size, len(training.data.train) - training.state.batch * size)
    training.engine.totals[:] = 0
    training.advance(rate, until=0.0)
    return training.loss.report(training.engine.totals.tolist(), rows)


def _row(training: Training, place: int, loss: float) -> MetricRow:
    training.state.seq += 1
    return MetricRow(training.state.seq, place, place, "train", "loss", loss, training.elapsed_s)


def _progress(training: Training, done: int) -> Progress:
    elapsed_s, fraction = training.elapsed_s, done / RATES
    eta_s = elapsed_s * (1 - fraction) / fraction if done else None
    return Progress(done, RATES, done, RATES, fraction, eta_s, elapsed_s, 0.0)


class Explosion:
    """Watches the smoothed loss."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0
        self._least = math.inf

    def is_seen(self, loss: float) -> bool:
        """Return whether the loss has exploded, or is no finite number, with this batch."""
        if not math.isfinite(loss):
            return True
        self._sum = MEMORY * self._sum + (1 - MEMORY) * loss
        self._weight = MEMORY * self._weight + (1 - MEMORY)
        smoothed = self._sum / self._weight
        self._least = min(self._least, smoothed)
        return smoothed > EXPLODED * self._least


def evaluate_rates(rates: Floats, losses: Floats) -> dict[str, Any]:
    """Return the suggested rate and the reasons for it, ready for JSON.

    `rates` (batches,) rise by one factor, `losses` (batches,) are finite; there is at least one.
    `suggested` is the rate at which the smoothed loss falls fastest before its least value; None if
    it falls nowhere. `range` holds the rates around it at which it falls at least half as fast.
    """
    document: dict[str, Any] = {"learning_rates": rates.tolist(), "losses": losses.tolist()}
    level = np.median(losses[: max(1, len(losses) // 5)])
    losses = np.minimum(losses, CUT * level)
    smoothed, averaged = _smooth(np.log10(rates), losses)
    lowest = int(np.argmin(smoothed))
    if lowest < 2:
        detail = "The loss falls at no learning rate of this range: try lower ones."
        return document | {"suggested": None, "range": None, "is_sure": False, "detail": detail}
    slopes = np.gradient(smoothed[: lowest + 1], np.log10(rates[: lowest + 1]))
    place = int(np.argmin(slopes))
    is_fast = slopes <= slopes[place] / 2
    first = last = place
    while first > 0 and is_fast[first - 1]:
        first -= 1
    while last < lowest and is_fast[last + 1]:
        last += 1
    begin, end = float(smoothed[: place + 1].max()), float(smoothed[lowest])
    error = float(np.std(losses[: lowest + 1] - smoothed[: lowest + 1])) / math.sqrt(averaged)
    is_sure = begin - end >= max(SURE_FALL * abs(begin), SURE_ERRORS * error)
    low, best, high = (float(f"{rates[each]:.2g}") for each in (first, place, last))
    detail = (
        f"The loss falls from {begin:.3g} to {end:.3g}, and fastest at a learning rate of {best:g};"
        f" from {low:g} to {high:g} it falls at least half as fast."
    )
    if not is_sure:
        detail += " It falls little beside its noise: compare a few learning rates of this range."
    return document | {
        "suggested": best,
        "range": [low, high],
        "is_sure": is_sure,
        "detail": detail,
    }


def _smooth(places: Floats, values: Floats) -> tuple[Floats, float]:
    """Return at each place the mean of all values, weighted by a normal curve of their distance.

    Also returns how many values with equal weights would have means as certain.
    """
    weights = np.exp(-(((places[:, None] - places[None, :]) / WIDTH) ** 2) / 2)
    sums = weights.sum(1)
    smoothed: Floats = weights @ values / sums
    return smoothed, float(np.median(sums**2 / (weights**2).sum(1)))
