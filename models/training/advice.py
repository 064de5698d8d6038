"""Says which learning rate to take after a training diverged, found by trying.

A linear model with a quadratic loss has an exact limit for full batches. For all others, short
trainings from the same start are tried with ever smaller rates, so that one further run suffices.
"""

import math
from collections.abc import Iterator
from decimal import ROUND_FLOOR, Context

import torch

from descent.spec import Sgd
from models.data import epoch_order
from models.engine.optimizers import make_optimizer
from models.engine.steps import Stepper, choose_passes
from models.nets.architectures import build, flatten
from models.training.state import Examples, Training

STEPS = 60  # of each trial
#: Rows of a batch of a trial at most; a full batch of many rows has nearly the same slopes.
MAX_ROWS = 4096
#: Multiplications that all trials may take: about two seconds of one core.
MAX_WORK = 4 * 10**9
SMALLEST = 1e-12  # the smallest rate that is tried
#: A trial takes so many times the rate that it recommends, since later steps may be steeper.
MARGIN = 3.0
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
    is_whole = training.steps_per_epoch == 1
    if is_whole and not config.model.hidden_layers() and isinstance(config.optimizer, Sgd):
        largest = training.largest_learning_rate(config.optimizer)
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
    batches = list(_batches(training))
    work = sum(len(batch) for batch in batches) * training.parameters * 3
    trials = max(4, int(MAX_WORK / max(1, work)))
    tried = min(begun, 10.0 ** math.ceil(math.log10(begun))) / 2
    # With few trials the steps between rates are larger, so that they still reach small rates.
    ratio = max(math.sqrt(10.0), (tried / SMALLEST) ** (1 / trials))
    while tried >= SMALLEST:
        if _learns(training, batches, tried):
            return tried / MARGIN
        tried /= ratio
    return None


def _batches(training: Training) -> Iterator[Examples]:
    """Yield the batches of a trial: the first ones of the first epoch, again where they end."""
    train, size = training.train, min(training.batch_size, MAX_ROWS)
    order = torch.from_numpy(epoch_order(training.config.seed, 0, len(train)))
    chosen = torch.split(order[: STEPS * size].to(training.device), size)
    for step in range(STEPS):
        yield train.at(chosen[step % len(chosen)])


def _learns(training: Training, batches: list[Examples], rate: float) -> bool:
    """Return whether steps at this rate, from a new net, keep the loss from growing."""
    config, features = training.config, training.features
    sums = training.train_sums
    net = build(config.model, features.width, features.outputs, config.seed)
    flat = flatten(net, training.device)
    stepper = Stepper(
        choose_passes(net, flat), training.loss, make_optimizer(config.optimizer, flat)
    )
    last = len(batches) - LAST
    start = sum(_loss(training, stepper, batch) for batch in batches[last:])
    for place, batch in enumerate(batches[:last]):
        stepper.step(batch.x, batch.truth, rate, torch.zeros_like(sums), batch.weights)
        if place % LAST == 0 and not bool(torch.isfinite(flat.values).all()):
            return False
    end = 0.0
    for batch in batches[last:]:
        total = torch.zeros_like(sums)
        stepper.step(batch.x, batch.truth, rate, total, batch.weights)
        end += float(total.sum())
    return end <= GROWTH * start and bool(torch.isfinite(flat.values).all())


def _loss(training: Training, stepper: Stepper, batch: Examples) -> float:
    outputs = stepper.passes.forward(batch.x)
    sums, _ = training.loss.differentiate(outputs, batch.truth, batch.weights)
    return float(sums.sum())
