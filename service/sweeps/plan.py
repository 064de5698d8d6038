"""Checks a sweep against its dataset, chooses its trials, and completes its configuration."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from descent.codes import make_warning
from descent.presets import CHOSEN
from descent.schemas.sweeps import (
    GridSearch,
    Halving,
    RandomSearch,
    SweepMetric,
    SweepRequest,
    Tpe,
)
from descent.spec import ColumnSplit, DatasetRef, KFoldSplit, NoSplit, RunConfig, Task
from models.training.scores import split_of
from service.errors import Invalid, invalid_at
from service.runs.plan import USUAL, Column, Estimate, Machine, Plan, make_plan
from service.sweeps import space as spaces
from service.sweeps.messages import Member
from service.sweeps.space import Parameters, kept

DEFAULT_TRIALS = 16
STARTUP = 10  # random trials before a sampler suggests others
#: all configurations of a sweep together, as JSON
MAX_BYTES = 64_000_000
METRICS: dict[str, frozenset[str]] = {
    "regression": frozenset({"loss", "sse", "mse", "mae", "rmse", "r2"}),
    "binary": frozenset({"loss", "accuracy", "cross_entropy", "auc", "f1"}),
    "multiclass": frozenset({"loss", "accuracy", "cross_entropy", "f1"}),
}
HIGHER_IS_BETTER = frozenset({"r2", "accuracy", "auc", "f1"})
#: fields that change the meaning of a loss
SCALES = ("loss", "class_weight", "weight", "split")

SearchStrategy = GridSearch | RandomSearch | Tpe | Halving
STRATEGIES: dict[str, type[SearchStrategy]] = {
    "grid": GridSearch,
    "random": RandomSearch,
    "tpe": Tpe,
    "halving": Halving,
}


@dataclass
class SweepPlan:
    """A complete sweep and its first members: all of them, unless a sampler suggests the others."""

    request: SweepRequest
    #: the fields of the base that the request gave, with the version of the dataset
    base: dict[str, Any]
    #: the plan of the base
    plan: Plan
    space: dict[str, dict[str, Any]]
    strategy: SearchStrategy
    metric: dict[str, str]
    trials: int
    rungs: list[int]
    members: list[Member]
    #: the cost of each of them
    estimates: list[Estimate]
    warnings: list[dict[str, Any]] = field(default_factory=list)

    def estimate(self) -> Estimate:
        """Return the steps and seconds of all trials, parameters and memory of the largest."""
        each = self.estimates
        scale = self.trials / len(each)
        return Estimate(
            parameters=max(one.parameters for one in each),
            steps=round(scale * sum(one.steps for one in each)),
            memory_bytes=max(one.memory_bytes for one in each),
            disk_bytes=max(one.disk_bytes for one in each),
            seconds=round(scale * sum(one.seconds for one in each), 3),
        )


def make_sweep_plan(
    request: SweepRequest,
    dataset: DatasetRef,
    columns: Sequence[Column],
    rows: int,
    machine: Machine = USUAL,
) -> SweepPlan:
    """Return the plan of a sweep on a dataset version with these columns. Raises Invalid."""
    _check_base(request.base)
    base = request.base.model_dump(mode="json", exclude_unset=True)
    base["dataset"] = dataset.model_dump(mode="json")
    space = {path: each.model_dump(mode="json") for path, each in request.space.items()}
    plan = _planned(RunConfig.model_validate(base), columns, rows, {})
    if request.base.preset:  # its fields, which the space may change
        base |= plan.config.model_dump(mode="json", include=set(CHOSEN))
    spaces.check(base, space)
    strategy = _strategy(request, space)
    chosen = _parameters(request, strategy, space)
    trials = len(chosen)
    if isinstance(strategy, Tpe):
        chosen = chosen[:STARTUP]
    made = [make_member(base, parameters, columns, rows, machine) for parameters in chosen]
    found = SweepPlan(
        request=request,
        base=base,
        plan=plan,
        space=space,
        strategy=strategy,
        metric=_metric(request, strategy, plan.config, columns),
        trials=trials,
        rungs=_rungs(strategy, plan.config, space, trials),
        members=[member for member, _estimate in made],
        estimates=[estimate for _member, estimate in made],
        warnings=list(plan.warnings),
    )
    _fit_budget(found)
    _check_size(found)
    _warn(found)
    return found


def make_member(
    base: dict[str, Any],
    parameters: Parameters,
    columns: Sequence[Column],
    rows: int,
    machine: Machine = USUAL,
) -> tuple[Member, Estimate]:
    """Return a member with these parameters, and its cost. Raises Invalid."""
    plan = _planned(spaces.configured(base, parameters), columns, rows, parameters, machine)
    return Member(parameters, plan.config.model_dump(mode="json"), plan.warnings), plan.estimate


def _planned(
    config: RunConfig,
    columns: Sequence[Column],
    rows: int,
    parameters: Parameters,
    machine: Machine = USUAL,
) -> Plan:
    try:
        return make_plan(config, columns, rows, machine)
    except Invalid as error:
        raise spaces.blame(error, parameters) from error


def _check_base(base: RunConfig) -> None:
    if base.register_as is not None:
        raise invalid_at(
            "/base/register_as",
            "not_allowed",
            "Each member would register a version: give register_best_as instead.",
        )
    if base.lr_range is not None:
        raise invalid_at(
            "/base/lr_range",
            "not_allowed",
            "Each member would test learning rates and make no model: leave lr_range out, and send"
            " the base to POST /runs/lr_range for a test.",
        )


# ---- strategy -----------------------------------------------------------------------------------


def _strategy(request: SweepRequest, space: spaces.Space) -> SearchStrategy:
    given = request.strategy
    if given is None:
        given = "grid" if all("grid" in each for each in space.values()) else "random"
    return STRATEGIES[given]() if isinstance(given, str) else given


def _parameters(
    request: SweepRequest, strategy: SearchStrategy, space: spaces.Space
) -> list[Parameters]:
    """Return the parameters of the trials that are known before the first of them ends."""
    if isinstance(strategy, GridSearch):
        found = spaces.combinations(space)
        if request.trials not in {None, len(found)}:
            raise invalid_at(
                "/trials",
                "out_of_range",
                f"The grid has {len(found)} combinations, got {request.trials} trials: leave"
                " trials out, or choose the strategy random.",
            )
        return found
    count = request.trials or DEFAULT_TRIALS
    return [spaces.draw(space, request.seed, number + 1) for number in range(count)]


def _rungs(
    strategy: SearchStrategy, config: RunConfig, space: spaces.Space, trials: int
) -> list[int]:
    """Return the epochs after which a halving compares its members, rising; see `Halving`.

    The last rung is the end of the training, and is not listed.
    """
    if not isinstance(strategy, Halving):
        return []
    if "epochs" in space:
        raise invalid_at(
            "/space/epochs",
            "not_allowed",
            "A halving compares members after equal numbers of epochs: give the base the epochs,"
            " or choose the strategy random.",
        )
    factor, least = strategy.factor, strategy.min_epochs or 1
    halvings = min(_halvings(trials, factor), _halvings(config.epochs // least, factor))
    if halvings < 1:
        raise invalid_at(
            "/strategy",
            "out_of_range",
            f"A halving by {factor} needs at least {factor} trials, and {factor * least} epochs in"
            f" the base, got {trials} trials and {config.epochs} epochs: raise them, or choose the"
            " strategy random.",
        )
    return [config.epochs // factor ** (halvings - rung) for rung in range(halvings)]


def _halvings(count: int, factor: int) -> int:
    """Return how often a count can be divided by the factor."""
    return next(times for times in itertools.count() if factor ** (times + 1) > count)


# ---- metric -------------------------------------------------------------------------------------


def _metric(
    request: SweepRequest,
    strategy: SearchStrategy,
    config: RunConfig,
    columns: Sequence[Column],
) -> dict[str, str]:
    wanted, task = request.metric or SweepMetric(), config.task
    held_out = "validation" if _has_validation(config, columns) else "train"
    _check_metric(wanted.name, task)
    if isinstance(strategy, Halving) and wanted.name != "loss":
        raise invalid_at(
            "/metric/name",
            "not_allowed",
            f"A halving compares members before they have ended, when only their loss is known,"
            f" got {wanted.name}: choose loss, or another strategy.",
        )
    split = wanted.split or held_out
    if split == "validation" and held_out != "validation":
        raise invalid_at(
            "/metric/split",
            "not_allowed",
            "The split of the base holds out no validation rows: choose another split, or compare"
            " trials by the metric of the split train.",
        )
    if wanted.name == "loss" and split != held_out:
        raise invalid_at(
            "/metric/split",
            "not_allowed",
            f"The loss is known for the rows of the split {held_out}, which choose the best epoch:"
            f" leave split out, or choose another metric for {split}.",
        )
    has_no_test = isinstance(config.split, KFoldSplit) or not getattr(config.split, "test", 1)
    if split == "test" and has_no_test:
        raise invalid_at(
            "/metric/split",
            "not_allowed",
            "The split of the base holds out no test rows: give it a share of test rows, or choose"
            " the split validation.",
        )
    default = "max" if wanted.name in HIGHER_IS_BETTER else "min"
    return {"name": wanted.name, "split": split, "direction": wanted.direction or default}


def _check_metric(name: str, task: Task | str) -> None:
    if name not in METRICS[task]:
        raise invalid_at(
            "/metric/name",
            "not_allowed",
            f"A {task} task has no metric {name}: choose one of {', '.join(sorted(METRICS[task]))}"
            ".",
        )


def _has_validation(config: RunConfig, columns: Sequence[Column]) -> bool:
    split = config.split
    if isinstance(split, NoSplit | KFoldSplit):
        return isinstance(split, KFoldSplit)
    if isinstance(split, ColumnSplit):
        column = next(each for each in columns if each["name"] == split.column)
        words = [str(top["value"]) for top in column.get("top") or []]
        return "validation" in map(split_of, words)
    return split.validation > 0


# ---- limits and warnings ------------------------------------------------------------------------


def _fit_budget(found: SweepPlan) -> None:
    """Reduce the trials to those whose epochs the budget allows."""
    budget = found.request.budget
    if budget and budget.time_s and found.rungs:
        raise invalid_at(
            "/budget/time_s",
            "not_allowed",
            "A halving trains its best members at last, so it cannot end at any time: limit the"
            " epochs instead.",
        )
    if budget is None or budget.epochs is None:
        return
    wanted = found.trials
    needs = _epochs_of(found)
    while found.trials and needs(found.trials) > budget.epochs:
        found.trials -= 1
    if not found.trials or (found.rungs and found.trials < found.strategy.factor):  # type: ignore[union-attr]
        raise invalid_at(
            "/budget/epochs",
            "out_of_range",
            f"The budget of {budget.epochs} epochs is too small for a trial: the base has"
            f" {found.plan.config.epochs} epochs.",
        )
    if found.trials < wanted:
        del found.members[found.trials :], found.estimates[found.trials :]
        detail = f"the budget of {budget.epochs} epochs allows {found.trials} of {wanted} trials"
        found.warnings.append(make_warning("fewer_trials", detail))


def _epochs_of(found: SweepPlan) -> "Callable[[int], int]":
    """Return the function from a number of trials to their epochs."""
    if not found.rungs:
        each = [member.config["epochs"] for member in found.members]
        rest = found.plan.config.epochs  # of a trial that a sampler will suggest
        return lambda trials: sum(each[:trials]) + rest * max(0, trials - len(each))
    strategy = found.strategy
    factor = strategy.factor if isinstance(strategy, Halving) else 1
    stops = [*found.rungs, found.plan.config.epochs]
    spans = [after - before for before, after in itertools.pairwise([0, *stops])]
    return lambda trials: sum(kept(trials, factor, rung) * span for rung, span in enumerate(spans))


def _check_size(found: SweepPlan) -> None:
    largest = len(json.dumps(found.plan.config.model_dump(mode="json")))
    if largest * found.trials > MAX_BYTES:
        raise invalid_at(
            "/trials",
            "too_large",
            f"{found.trials} configurations of {largest:,} bytes are more than {MAX_BYTES:,} bytes"
            f" together: choose at most {max(1, MAX_BYTES // largest)} trials, or fewer features.",
        )


def _warn(found: SweepPlan) -> None:
    metric = found.metric
    if metric["split"] == "train":
        detail = (
            "trials are compared on the rows that they learned from: the best one may be the one"
            " that overfits most"
        )
        found.warnings.append(make_warning("metric_of_training_rows", detail))
    scaled = [path for path in found.space if path.partition(".")[0] in SCALES]
    if metric["name"] == "loss" and scaled:
        detail = (
            f"{scaled[0]} changes what the loss measures, so losses of different trials are not"
            " comparable: choose another metric"
        )
        found.warnings.append(make_warning("metric_not_comparable", detail))
