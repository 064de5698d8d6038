"""Says which learning rate to take after a training diverged, found by trying.

A linear model with a quadratic loss has an exact limit for full batches. For all others, short
trainings from the same start are tried with ever smaller rates, so that one further run suffices.
"""

import math
from dataclasses import replace
from decimal import ROUND_FLOOR, Context

import numpy as np
import torch

from descent.spec import Sgd
from models.architectures.trees import Trees
from models.data import Integers, epoch_order
from models.engine.choice import make_engine
from models.engine.examples import Examples
from models.training.state import Training

STEPS = 60  # of each trial
#: Rows of a batch of a trial at most; a full batch of many rows has nearly the same slopes.
MAX_ROWS = 4096
#: Multiplications that all trials may take: about two seconds of one core.
MAX_WORK = 4 * 10**9
SMALLEST = 1e-12  # the smallest rate that is tried
#: A trial takes so many times the rate that it recommends, since later steps may be steeper.
MARGIN = 10.0
LAST = 10  # steps of a trial whose loss is compared with that of the new net on the same rows
#: How much larger the loss may be at the end, since a target may be nothing but noise.
GROWTH = 1.05


def explain_divergence(training: Training, rate: float) -> str:
    """Return what happened and a learning rate that does not diverge, for the run's error."""
    config = training.config
    message = (
        f"The loss or a parameter was no longer finite in epoch {training.state.epoch}, at "
        f"learning rate {rate:g}"
    )
    if isinstance(config.model, Trees):
        return f"{message}; try a learning_rate below 1: it shrinks each tree's step"
    is_whole = training.steps_per_epoch == 1
    if is_whole and training.graph.is_linear and isinstance(config.optimizer, Sgd):
        largest = training.data.largest_learning_rate(training.given.loss, config.optimizer)
        if largest is not None:
            return (
                f"{message}; try a learning_rate of {_rounded_down(largest / 2, 4):g}: the largest"
                f" that converges here is {_rounded_down(largest, 4):g}"
            )
    # A schedule may have changed the rate: recommend the one of the configuration.
    begun = config.optimizer.learning_rate
    found = _largest_that_learns(training, begun)
    hint = "" if config.standardize else ", or standardize: true"
    if found is None:
        return f"{message}; no learning_rate from {SMALLEST:g} up made it learn{hint}"
    return f"{message}; try a learning_rate of {_rounded_down(found, 2):g}{hint}"


def _rounded_down(rate: float, digits: int) -> float:
    """Round a rate that converges down, so that it still converges."""
    return float(Context(prec=digits, rounding=ROUND_FLOOR).create_decimal_from_float(rate))


def _largest_that_learns(training: Training, begun: float) -> float | None:
    size = min(training.batch_size, MAX_ROWS)
    work = STEPS * size * training.parameters * 3
    trials = max(4, int(MAX_WORK / max(1, work)))
    tried = min(begun, 10.0 ** math.ceil(math.log10(begun))) / 2
    # With few trials the steps between rates are larger, so that they still reach small rates.
    ratio = max(math.sqrt(10.0), (tried / SMALLEST) ** (1 / trials))
    while tried >= SMALLEST:
        if _learns(training, size, tried):
            return tried / MARGIN
        tried /= ratio
    return None


def _learns(training: Training, size: int, rate: float) -> bool:
    """Return whether steps at this rate, from a new net, keep the loss from growing."""
    setup = replace(training.new_setup(), batch=size)
    engine = make_engine(setup)
    train, order = _rows(training, size)
    begun = STEPS - LAST
    held_out = train.at(torch.from_numpy(order[begun * size :]).to(training.device))
    start = float(engine.evaluate(held_out)[0].sum())
    for first in range(0, STEPS, LAST):
        if first == begun:
            engine.totals[:] = 0
        engine.advance(train, order, first, LAST, rate, math.inf)
        engine.pull()
        if not bool(torch.isfinite(setup.flat.values).all()):
            return False
    return float(engine.totals.sum()) <= GROWTH * start


def _rows(training: Training, size: int) -> tuple[Examples, Integers]:
    """Return the rows of a trial and their places: the first epoch's, again where they end."""
    seed, rows = training.config.seed, training.data.train
    order: Integers | None = None
    if not isinstance(rows, Examples):
        window = next(training.data.windows(seed, 0, size, 0))
        rows, order = window.rows, window.order
    if order is None:
        order = epoch_order(seed, 0, len(rows))
    whole = max(1, min(STEPS, len(order) // size)) * size
    return rows, np.resize(order[:whole], STEPS * size)
