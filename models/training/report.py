"""The honest report of a run: whether its model beats simple ones, and what makes scores doubtful.

The model and the baselines are compared on the same held-out rows. Every score has a bootstrap
interval (Efron, 1979), and so has the difference to each baseline, with the same rows drawn for
both: it is smaller than the intervals of the two scores suggest. Each statement is a finding with a
stable code. All random numbers depend on the seed of the run only.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

from descent.codes import FindingCode, make_finding
from models.data import Floats, Integers, generator
from models.features.inputs import Matrix
from models.features.targets import ClassTarget, Target
from models.predict.intervals import t_quantile
from models.training import suspects
from models.training.calibration import Predicted
from models.training.interface import SplitName
from models.training.rivals import Asked, RivalName, rivals
from models.training.scores import constant_of
from models.training.state import Training

#: Held-out rows that are compared, and groups of them that are drawn.
MAX_ROWS, GROUPS = 20_000, 500
DRAWS = 1_000
#: The levels of the interval of a score, and of a difference: of many runs few may be called better
#: by chance.
LEVEL, SURE = 0.95, 0.99
#: The fewest held-out rows that tell anything.
FEW = 30
#: A model is called worse if it is so by this share of the baseline's score.
NEGLIGIBLE = 0.05
#: Encoded numbers of the rows that are compared, and of those that are searched for equal rows.
MAX_CELLS = 4 * 10**6
#: Rows that tell whether targets follow each other in time.
TIMED = 100_000
#: The calibration error, and the rows, from which probabilities are called off.
OFF, OFF_ROWS = 0.1, 200
#: The stream of `data.generator` that draws rows.
STREAM = 2**63 + 4

Verdict = Literal["better", "not_distinguishable", "worse"]
#: for sentences
TOLD: Mapping[RivalName, tuple[FindingCode, str]] = {
    "constant": (
        "no_better_than_trivial",
        "the trivial baseline, which predicts the same for every row",
    ),
    "linear": ("no_better_than_linear", "a closed-form linear model"),
    "trees": ("no_better_than_trees", "a few boosted trees"),
}


@dataclass(frozen=True)
class Metric:
    """A score: the mean loss of rows, and the number that people read. Less is better."""

    name: str
    #: losses of rows, (rows,), of a prediction
    losses: Callable[[Predicted], Floats]
    #: the number that people read, of mean losses
    told: Callable[[Floats], Floats]


def metric_of(target: Target) -> Metric:
    """Return the score that is compared: cross_entropy, rmse, or for several targets `nrmse`.

    That is the root of the mean squared error in standard deviations of each target.
    """
    if isinstance(target, ClassTarget):

        def surprises(found: Predicted) -> Floats:
            likely = found.decoded[np.arange(found.rows), found.truth.astype(np.int64)]
            return -np.log(np.maximum(likely, np.finfo(np.float64).tiny))

        return Metric("cross_entropy", surprises, lambda means: means)
    units = np.array(target.std) if len(target.names) > 1 else np.ones(1)

    def squares(found: Predicted) -> Floats:
        errors: Floats = (((found.decoded - found.truth) / units) ** 2).mean(axis=1)
        return errors

    return Metric("rmse" if len(target.names) == 1 else "nrmse", squares, np.sqrt)


class Draws:
    """Bootstrap draws of the same rows for every score."""

    def __init__(self, rows: int, seed: int) -> None:
        random = generator(seed, STREAM)
        # Many rows are put into groups at random, and groups are drawn: their means vary as much.
        self._count = min(rows, GROUPS)
        self._order = random.permutation(rows)
        self._drawn = random.integers(0, self._count, (DRAWS, self._count), dtype=np.int32)

    def means(self, losses: Floats) -> Floats:
        """Return the mean loss of each draw, (draws,)."""
        groups = losses[self._order]
        if len(groups) > self._count:
            starts = np.arange(self._count) * len(groups) // self._count
            groups = np.add.reduceat(groups, starts) / np.diff(starts, append=len(groups))
        found: Floats = groups[self._drawn].mean(axis=1)
        return found


def interval(draws: Floats, rows: int, level: float) -> tuple[float, float]:
    """Return the bounds between which the middle of the draws lies.

    The percentiles are expanded for few rows: Hesterberg, "What Teachers Should Know About the
    Bootstrap" (2015), section 4.
    """
    if rows < 2:
        return -math.inf, math.inf
    wide = math.sqrt(rows / (rows - 1)) * t_quantile(level, rows - 1)
    tail = NormalDist().cdf(-wide)
    low, high = np.quantile(draws, [tail, 1 - tail]).tolist()
    return low, high


def compare(
    metric: Metric, model: Predicted, others: Mapping[RivalName, Floats], seed: int
) -> dict[str, Any]:
    """Return the score of a model and of each baseline, with intervals and differences.

    `others` are predictions of the same rows. A baseline that is not finite is left out.
    """
    draws = Draws(model.rows, seed)
    losses = metric.losses(model)
    own, drawn = _told(metric, losses), metric.told(draws.means(losses))
    rows, compared = model.rows, []
    for name, decoded in others.items():
        theirs = metric.losses(Predicted(model.truth, decoded))
        if not np.isfinite(theirs).all():
            continue
        score, also = _told(metric, theirs), metric.told(draws.means(theirs))
        low, high = interval(drawn - also, rows, SURE)
        verdict: Verdict = "not_distinguishable"
        if high < 0:
            verdict = "better"
        elif low > NEGLIGIBLE * score:
            verdict = "worse"
        compared.append(
            {
                "name": name,
                "score": _bounded(score, interval(also, rows, LEVEL)),
                "difference": _bounded(own - score, (low, high)),
                "verdict": verdict,
            }
        )
    bounded = _bounded(own, interval(drawn, rows, LEVEL))
    return {"metric": metric.name, "score": bounded, "baselines": compared}


def _told(metric: Metric, losses: Floats) -> float:
    return float(metric.told(losses.mean(keepdims=True))[0])


def _bounded(value: float, bounds: tuple[float, float]) -> dict[str, float | None]:
    low, high = (each if math.isfinite(each) else None for each in bounds)
    return {"value": value, "low": low, "high": high}


def make_report(
    training: Training, predicted: Mapping[SplitName, Predicted], evaluation: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the report of a training whose best parameters predicted these rows.

    None if the model predicts a number that is not finite.
    """
    split: SplitName = list(predicted)[-1]
    rows, found = getattr(training.split, split), predicted[split]
    step = -(-len(rows) // found.rows)
    more = _step(found.rows, training)
    found = Predicted(found.truth[::more], found.decoded[::more])
    if not np.isfinite(found.decoded).all():
        return None
    places = np.arange(0, len(rows), step * more)[: found.rows]
    x = training.data.examples(split).rows(places)
    constant = constant_of(training.features.target, iter([predicted["train"].truth]))
    others = rivals(training, Asked(rows[places], x), constant)
    doubts = [*_held_out(split, len(rows)), *_suspects(training, split, x, found)]
    return _assembled(training, split, found, others, [*doubts, *_probabilities(evaluation)])


def report_of_folds(
    members: Sequence[Training], rows: Integers, whole: Predicted, evaluation: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the report of a cross-validation.

    `whole` are the out-of-fold predictions of `rows`, ascending, and each row is held out by one of
    the `members`. A baseline is fitted to the training rows of each fold. None if a prediction is
    not finite.
    """
    first = members[0]
    step = _step(whole.rows, first)
    rows, found = rows[::step], Predicted(whole.truth[::step], whole.decoded[::step])
    if not np.isfinite(found.decoded).all():
        return None
    joined: dict[RivalName, Floats] = {}
    suspicious: list[dict[str, Any]] = []
    for member in members:
        held_out = member.split.validation
        mine = np.flatnonzero(np.isin(rows, held_out))
        x = member.data.validation.rows(np.searchsorted(held_out, rows[mine]))
        truth = member.data.truth(member.split.train)
        constant = constant_of(member.features.target, iter([truth]))
        for name, decoded in rivals(member, Asked(rows[mine], x), constant).items():
            joined.setdefault(name, np.full(found.decoded.shape, np.nan))[mine] = decoded
        if member is first:
            part = Predicted(found.truth[mine], found.decoded[mine])
            suspicious = _suspects(member, "validation", x, part)
    # A baseline that some fold left out is not finite, and is not compared.
    doubts = [*_held_out("validation", whole.rows), *suspicious, *_probabilities(evaluation)]
    return _assembled(first, "validation", found, joined, doubts)


def _step(rows: int, training: Training) -> int:
    """Return the distance of evenly spaced rows, few enough to be compared."""
    return -(-rows // max(1, min(MAX_ROWS, MAX_CELLS // training.features.width)))


def _assembled(
    training: Training,
    split: SplitName,
    found: Predicted,
    others: Mapping[RivalName, Floats],
    doubts: list[dict[str, Any]],
) -> dict[str, Any]:
    metric = metric_of(training.features.target)
    compared = compare(metric, found, others, training.config.seed)
    levels = {"level": LEVEL, "difference_level": SURE}
    findings = [*_verdicts(compared, split, found.rows), *doubts]
    return {"split": split, "rows": found.rows, **levels, **compared, "findings": findings}


def _held_out(split: SplitName, rows: int) -> Iterator[dict[str, Any]]:
    if split == "train":
        yield make_finding(
            "nothing_held_out",
            "No rows were held out: scores of training rows say nothing of new rows. Train again"
            " with a split.",
        )
    elif rows < FEW:
        yield make_finding(
            "few_held_out_rows",
            f"Only {rows} rows were held out, so that the scores may be far from those of new rows:"
            " hold out more, or train with several splits.",
        )


def _verdicts(compared: Mapping[str, Any], split: SplitName, rows: int) -> Iterator[dict[str, Any]]:
    for each in compared["baselines"]:
        if each["verdict"] == "better":
            continue
        code, named = TOLD[each["name"]]
        is_worse = each["verdict"] == "worse"
        words = "worse than" if is_worse else "not distinguishable from"
        gap = each["difference"]
        yield make_finding(
            code,
            f"The model is {words} {named}: its {compared['metric']} on {rows} {split} rows is"
            f" {compared['score']['value']:.4g}, that of the baseline {each['score']['value']:.4g}"
            f" (difference {gap['value']:.2g}{_span(gap)}).",
        )


def _span(gap: Mapping[str, float | None]) -> str:
    low, high = gap["low"], gap["high"]
    known = low is not None and high is not None
    return f", {SURE:.0%} interval {low:.2g} to {high:.2g}" if known else ""


def _suspects(
    training: Training, split: SplitName, x: Matrix, found: Predicted
) -> list[dict[str, Any]]:
    """Return what is suspicious in the data; trainings that share the data share it."""
    data = training.data
    if data.suspects is None:
        data.suspects = list(_found_suspects(training, split, x, found))
    return data.suspects


def _found_suspects(
    training: Training, split: SplitName, x: Matrix, found: Predicted
) -> Iterator[dict[str, Any]]:
    features, data, table = training.features, training.data, training.given.table
    rows = len(data.train)
    truth = data.truth(training.split.train)
    if split != "train" and (rows + len(x)) * features.width <= MAX_CELLS:
        yield from suspects.twins(data.train.rows(np.arange(rows)), truth, x, found.truth)
    most = min(suspects.MOST, max(suspects.FEWEST, MAX_CELLS // features.width))
    places = np.arange(0, rows, -(-rows // most))
    yield from suspects.tell_tales(
        features,
        np.concatenate([data.train.rows(places), x[:most]]),
        np.concatenate([truth[places], found.truth[:most]]),
    )
    yield from suspects.ids(features, table)
    if suspects.may_ignore_time(features, table, training.config.split):
        known: Integers = np.sort(np.concatenate(list(vars(training.split).values())))
        known = known[:: -(-len(known) // TIMED)]
        yield from suspects.time_travel(features, table, known, data.truth(known))


def _probabilities(evaluation: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    reliability = evaluation.get("calibration", {}).get("reliability")
    if reliability and reliability["rows"] >= OFF_ROWS and reliability["ece"] > OFF:
        yield make_finding(
            "probabilities_off",
            f"Probabilities differ from the share of right predictions by {reliability['ece']:.2f}"
            " on average: use them to order rows, or ask for sets with interval=0.9.",
        )
