"""Checks a run's configuration against its dataset's columns and completes it.

Every error that can be found before training is found here, as a 422 that names the value and the
remedy, so that no run waits in the queue only to fail.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Literal

from descent.codes import ErrorCode, WarningCode, make_warning
from descent.spec import (
    ColumnSplit,
    GroupSplit,
    KFoldSplit,
    NoSplit,
    RandomSplit,
    RunConfig,
    Task,
    TimeSplit,
)
from models.features.targets import spelling
from models.nets.graph import MAX_OPERATIONS, Graph
from models.reading import Reading, category_key
from models.training.cost import (
    expected_net,
    memory_limit,
    needs_disk,
    rows_with,
    size_of,
)
from models.training.scores import count_of, split_of
from service.datasets.rejected import listed
from service.errors import Invalid, invalid_at

MAX_CLASSES = 1000
MAX_PARAMETERS = 500_000_000
CLASS_TYPES = frozenset({"boolean", "category", "text", "id"})
NUMBER_TYPES = frozenset({"number", "integer", "boolean"})
#: A target with so few distinct whole values may hold classes, if each has enough rows.
FEW_VALUES = 20
FEW_SHARE = 5
Column = dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """An estimate of a run's cost."""

    parameters: int
    steps: int
    memory_bytes: int
    #: Bytes of the files that hold the encoded rows; 0 if these stay in memory.
    disk_bytes: int
    seconds: float


@dataclass(frozen=True)
class Machine:
    """The memory and the speed of the machine that will train, for an estimate."""

    #: The memory that a training may take in bytes; None: as much as is free.
    memory_bytes: int | None = None
    #: By the kind of a training, its seconds divided by those of a usual machine.
    speeds: Mapping[str, float] = field(default_factory=dict)

    def speed(self, shape: str) -> float:
        """Return the ratio for a kind of training; for an unknown one the middle of all."""
        return self.speeds.get(shape) or (median(self.speeds.values()) if self.speeds else 1.0)


USUAL = Machine()


@dataclass
class Plan:
    """A complete configuration, its warnings and its estimate."""

    config: RunConfig
    warnings: list[dict[str, Any]] = field(default_factory=list)
    estimate: Estimate = field(default_factory=lambda: Estimate(0, 0, 0, 0, 0.0))
    #: the network with the expected number of inputs
    net: Graph | None = None

    def warn(self, code: WarningCode, detail: str, column: str | None = None) -> None:
        self.warnings.append(make_warning(code, detail, column))


def make_plan(
    config: RunConfig, columns: Sequence[Column], rows: int, machine: Machine = USUAL
) -> Plan:
    """Return the plan of a run on a table with these columns. Raises Invalid."""
    by_name = {column["name"]: column for column in columns}
    targets = [_known(by_name, name, "/target") for name in config.targets]
    plan = Plan(config)
    usable = rows_with(targets, rows)
    _check_split(config, by_name, usable)
    task = _task(config, targets)
    features = _features(plan, by_name)
    _check_rows(config, usable)
    plan.config = config = config.completed(max(1, usable))
    if objection := config.model.objection(config.model_dump(mode="json")):
        raise _invalid("training_does_not_fit", objection[1], objection[0])
    if task == "regression":
        _warn_of_classes(plan, targets, usable)
    else:
        _check_classes(plan, targets[0], task)
    _check_weights(config, by_name, targets, task)
    if usable < rows:
        detail = f"{rows - usable} rows without a target are left out"
        plan.warn("target_missing", detail, config.targets[0])
    has_validation = not isinstance(config.split, NoSplit) and (
        isinstance(config.split, ColumnSplit | KFoldSplit) or config.split.validation > 0
    )
    changes: dict[str, Any] = {
        "task": task,
        "features": features,
        "loss": _loss(config, task),
        "early_stopping": config.early_stopping if has_validation else None,
        "batch_size": _batch_size(plan),
    }
    if isinstance(config.split, KFoldSplit):
        folds = config.split.count(usable)
        changes["split"] = config.split.model_copy(update={"folds": folds})
    plan.config = config.model_copy(update=changes)
    plan.net = expected_net(plan.config, [by_name[name] for name in features], targets)
    _warn_of_network(plan, plan.net)
    _estimate(plan, plan.net, usable, machine)
    return plan


def _known(by_name: dict[str, Column], name: str, pointer: str) -> Column:
    if name in by_name:
        return by_name[name]
    near = difflib.get_close_matches(name, by_name, n=1)
    hint = f"perhaps {near[0]!r}" if near else f"its columns are {listed(list(by_name))}"
    raise _invalid("unknown_column", f"The dataset has no column {name!r}: {hint}.", pointer)


def _invalid(code: ErrorCode, detail: str, pointer: str) -> Invalid:
    return invalid_at(pointer, code, detail)


# ---- target and task ----------------------------------------------------------------------------


def _task(config: RunConfig, targets: list[Column]) -> Task:
    for target in targets:
        _check_varies(target)
    task = _task_of(targets[0]) if config.task == "auto" else config.task
    if len(targets) > 1:
        task = "regression" if config.task == "auto" else config.task
        if task != "regression":
            raise _invalid(
                "several_class_targets",
                "Several targets are possible for a regression only: name one target.",
                "/target",
            )
    if task == "regression":
        for target in targets:
            _check_is_number(target)
    return task


def _task_of(target: Column) -> Task:
    if target["type"] in CLASS_TYPES:
        return "binary" if target["distinct"] == 2 else "multiclass"
    if target["type"] == "integer" and target["distinct"] == 2:
        return "binary"
    return "regression"


def _check_varies(target: Column) -> None:
    name = target["name"]
    if target["distinct"] == 0:
        raise _invalid("target_missing", f"The target {name!r} is missing in every row.", "/target")
    if target["distinct"] == 1:
        raise _invalid(
            "target_constant",
            f"The target {name!r} has the same value in every row: there is nothing to learn.",
            "/target",
        )


def _check_is_number(target: Column) -> None:
    if target["type"] not in NUMBER_TYPES:
        raise _invalid(
            "target_not_numeric",
            f"A regression needs a number as its target, but {target['name']!r} is"
            f" {target['type']}: choose task multiclass, another target, or change the column's"
            " type with PATCH /datasets/{id}.",
            "/target",
        )


def _warn_of_classes(plan: Plan, targets: list[Column], rows: int) -> None:
    """Warn if the task was not named and the target has few distinct whole values."""
    target = targets[0]
    few = target["distinct"] <= FEW_VALUES and target["distinct"] * FEW_SHARE <= rows
    if plan.config.task == "auto" and len(targets) == 1 and few and _is_whole(target):
        task = "binary" if target["distinct"] == 2 else "multiclass"
        plan.warn(
            "perhaps_classes",
            f"{target['name']!r} has {target['distinct']} distinct whole values and is learned as a"
            f" number: if they are classes, choose task {task}",
            target["name"],
        )


def _is_whole(column: Column) -> bool:
    """Return whether the values of a column are whole numbers, as far as its profile tells."""
    if column["type"] == "integer":
        return True
    if column["type"] != "number":
        return False
    if column.get("top"):
        return all(float(top["value"]).is_integer() for top in column["top"])
    limits = [column.get("min"), column.get("max")]
    return all(each is not None and float(each).is_integer() for each in limits)


def _check_classes(plan: Plan, target: Column, task: Task) -> None:
    name, distinct = target["name"], target["distinct"]
    if target["type"] not in CLASS_TYPES and not _is_whole(target):
        raise _invalid(
            "target_not_a_class",
            f"{name!r} is {target['type']} with values that are not whole numbers, so it has no"
            " classes: change its type to category with PATCH /datasets/{id}, or choose task"
            " regression.",
            "/task",
        )
    if task == "binary" and distinct != 2:
        raise _invalid(
            "not_binary",
            f"Task binary needs two classes, but {name!r} has {distinct}: choose multiclass.",
            "/task",
        )
    if distinct > MAX_CLASSES:
        raise _invalid(
            "too_many_classes",
            f"{name!r} has {distinct} distinct values, more than {MAX_CLASSES} classes.",
            "/target",
        )
    split = plan.config.split
    is_drawn = isinstance(split, RandomSplit) and split.validation + split.test > 0
    if is_drawn or isinstance(split, KFoldSplit):
        _check_class_sizes(plan, target)


def _check_class_sizes(plan: Plan, target: Column) -> None:
    tops = target.get("top") or []
    single = [top["value"] for top in tops if top["count"] == 1]
    if not single:
        return
    if len(single) == target["distinct"]:
        raise _invalid(
            "class_too_small",
            f"Each class in {target['name']!r} has one row, so no row can be held out: choose split"
            " none" + (", or task regression." if target["type"] == "integer" else "."),
            "/split",
        )
    more = f" and {len(single) - 3} more" if len(single) > 3 else ""
    shown = ", ".join(repr(value) for value in single[:3])
    what = "in the training rows only, so it is never tested"
    if isinstance(plan.config.split, KFoldSplit):
        what = "unknown to the member that is tested with it"
    plan.warn("class_too_small", f"a class with one row is {what}: {shown}{more}", target["name"])


# ---- weights ------------------------------------------------------------------------------------


def _check_weights(
    config: RunConfig, by_name: dict[str, Column], targets: list[Column], task: Task
) -> None:
    if config.class_weight is not None:
        if task == "regression":
            raise _invalid(
                "weight_does_not_fit",
                "class_weight needs classes, but the task is a regression: name a weight column"
                " instead, or choose task binary or multiclass.",
                "/class_weight",
            )
        if isinstance(config.class_weight, dict):
            _check_class_names(config.class_weight, targets[0])
    if config.weight is not None:
        _check_weight_column(_known(by_name, config.weight, "/weight"))


def _check_class_names(weights: dict[str, float], target: Column) -> None:
    tops = target.get("top") or []
    if len(tops) < target["distinct"]:  # the training knows all classes
        return
    labels = [_label(top["value"], target) for top in tops]
    keys = set(labels) | {category_key(label) for label in labels}
    for name in weights:
        if name not in keys and category_key(name) not in keys:
            near = difflib.get_close_matches(name, labels, n=1)
            hint = f"perhaps {near[0]!r}" if near else f"its classes are {listed(labels)}"
            raise _invalid(
                "unknown_class",
                f"{target['name']!r} has no class {name!r}: {hint}.",
                "/class_weight",
            )


def _label(value: object, column: Column) -> str:
    """Return the name of a class as answers spell it."""
    if isinstance(value, bool):
        stored = column.get("reading")
        words = spelling(Reading.from_json(stored)) if stored else None
        return (words or ("false", "true"))[value]
    return str(value)


def _check_weight_column(column: Column) -> None:
    name = column["name"]
    if column["type"] not in NUMBER_TYPES:
        raise _invalid(
            "wrong_weight", f"Weights are numbers, but {name!r} is {column['type']}.", "/weight"
        )
    if column["missing"]:
        raise _invalid(
            "wrong_weight",
            f"The weight in {name!r} is missing in {column['missing']} rows: each row needs one.",
            "/weight",
        )
    if (least := column.get("min")) is not None and float(least) < 0:
        raise _invalid(
            "wrong_weight",
            f"The least weight in {name!r} is {least:g}: weights are 0 or above.",
            "/weight",
        )


# ---- features, split, network -------------------------------------------------------------------


def _features(plan: Plan, by_name: dict[str, Column]) -> list[str]:
    config, split = plan.config, plan.config.split
    held = {split.column} if isinstance(split, ColumnSplit | GroupSplit | KFoldSplit) else set()
    held |= {config.weight} if config.weight else set()
    if config.features is not None:
        chosen = [_known(by_name, name, "/features") for name in config.features]
    else:
        rest = [c for c in by_name.values() if c["name"] not in {*config.targets, *held}]
        chosen = [column for column in rest if column["role"] == "feature"]
        for column in rest:
            if column["role"] != "feature":
                detail = f"{column['name']!r} is {column['type']} and is left out"
                plan.warn("column_ignored", detail, column["name"])
    for column in [column for column in chosen if column["distinct"] == 0]:
        plan.warn("column_empty", f"{column['name']!r} is missing everywhere", column["name"])
        chosen.remove(column)
    if not chosen:
        raise _invalid(
            "no_features",
            f"No feature is left beside the target {listed(config.targets)}: upload a table with"
            " more columns, or name them in features.",
            "/features",
        )
    for column in chosen:
        if column["type"] in {"text", "id"}:
            detail = f"{column['name']!r} is {column['type']}; its values are taken as categories"
            plan.warn("text_as_category", detail, column["name"])
    return [column["name"] for column in chosen]


def _check_split(config: RunConfig, by_name: dict[str, Column], usable: int) -> None:
    split = config.split
    if isinstance(split, RandomSplit | NoSplit) or split.column is None:
        return
    column = _known(by_name, split.column, "/split/column")
    if split.column in config.targets:
        raise _invalid(
            "split_by_target",
            f"The target {split.column!r} cannot be the column of the split.",
            "/split/column",
        )
    if column["missing"]:
        detail = (
            f"{split.column!r} is missing in {column['missing']} rows, which then belong to no"
            " split."
        )
        raise _invalid("split_missing", detail, "/split/column")
    if isinstance(split, TimeSplit) and column["type"] not in {"datetime", "number", "integer"}:
        detail = f"A split by time needs times or numbers, but {split.column!r} is {column['type']}"
        raise _invalid("split_not_ordered", detail, "/split/column")
    if isinstance(split, ColumnSplit):
        _check_split_words(column)
    parts, of = 0, ""
    if isinstance(split, GroupSplit):
        parts = 1 + sum(share > 0 for share in (split.validation, split.test))
        of = "part with a share"
    elif isinstance(split, KFoldSplit):
        parts, of = split.count(usable), "fold"
    if column["distinct"] < parts:
        raise _invalid(
            "too_few_groups",
            f"The split needs at least {parts} groups, one for each {of}, but"
            f" {split.column!r} has {column['distinct']}.",
            "/split/column",
        )


def _check_split_words(column: Column) -> None:
    words = [str(top["value"]) for top in column.get("top") or []]
    strange = sorted(word for word in words if split_of(word) is None)
    if strange or "train" not in map(split_of, words):
        detail = f"{column['name']!r} must hold train, validation or test, and train at least once"
        raise _invalid("split_values", f"{detail}; got {listed(strange)}", "/split/column")


def _check_rows(config: RunConfig, usable: int) -> None:
    split = config.split
    least = 1
    if isinstance(split, KFoldSplit):
        least = split.count(max(0, usable))
    elif not isinstance(split, NoSplit | ColumnSplit):
        shares = (split.validation, split.test)
        least = 1 + sum(count_of(share, max(0, usable)) for share in shares)
    if usable < least:
        raise _invalid(
            "too_few_rows",
            f"{usable} rows have a target, but this split needs at least {least}.",
            "/split",
        )


def _loss(config: RunConfig, task: Task) -> str:
    is_class = task != "regression"
    if config.loss == "auto":
        return "cross_entropy" if is_class else "mse"
    if (config.loss == "cross_entropy") != is_class:
        choices = "cross_entropy" if is_class else "mse, sse, mae or huber"
        raise _invalid(
            "loss_does_not_fit",
            f"The loss {config.loss} does not fit the task {task}: choose {choices}.",
            "/loss",
        )
    return config.loss


def _batch_size(plan: Plan) -> int | Literal["full"]:
    config = plan.config
    if config.optimizer.type == "lbfgs" and config.batch_size != "full":
        plan.warn("full_batch", "lbfgs uses all training rows in each step: batch_size is full")
        return "full"
    return config.batch_size


def _warn_of_network(plan: Plan, net: Graph) -> None:
    if net.is_affine and not net.is_linear:
        plan.warn(
            "no_nonlinearity",
            "Layers without an activation between them equal one linear layer: add relu, for"
            " example",
        )


def _estimate(plan: Plan, net: Graph, rows: int, machine: Machine) -> None:
    config, size = plan.config, size_of(plan.config, rows, net)
    # Beside its net, each member may need an operation for its inputs and one for its outputs.
    if size.members > 1 and size.members * (len(net.operations) + 2) >= MAX_OPERATIONS:
        raise _invalid(
            "model_too_large",
            f"{size.members} members with {len(net.operations)} operations each make a model of"
            f" more than {MAX_OPERATIONS} operations: choose fewer repeats, folds or layers.",
            "/split",
        )
    parameters = size.members * size.parameters
    if parameters > MAX_PARAMETERS:
        raise _invalid(
            "model_too_large",
            f"The network would have {parameters:,} parameters, more than"
            f" {MAX_PARAMETERS:,}: choose narrower layers, or fewer or flatter trees.",
            "/model",
        )
    on_disk = needs_disk(size, machine.memory_bytes)
    memory = size.memory_bytes_from_disk if on_disk else size.memory_bytes
    if (limit := memory_limit(size, machine.memory_bytes)) is not None and memory > limit:
        plan.warn(
            "memory_short",
            f"the training needs about {memory / 1e6:,.0f} MB, more than the {limit / 1e6:,.0f} MB"
            " that it may take: choose a smaller batch_size or network",
        )
    steps = size.steps(config)
    epochs = steps / (size.members * size.steps_per_epoch)
    training_s = size.training_s(epochs) * machine.speed(size.shape)
    plan.estimate = Estimate(
        parameters=parameters,
        steps=steps,
        memory_bytes=memory,
        disk_bytes=size.disk_bytes if on_disk else 0,
        seconds=round(size.around_s + training_s, 3),
    )
