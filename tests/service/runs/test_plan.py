from typing import Any

import pytest
from pydantic import ValidationError

from descent.spec import KFoldSplit, NoSplit, RunConfig, Sgd
from models.training.cost import size_of
from service.errors import Invalid
from service.runs.plan import USUAL, Machine, Plan, make_plan


def column(name: str, kind: str = "number", **more: Any) -> dict[str, Any]:
    role = "ignored" if kind in {"id", "text"} else "feature"
    return {"name": name, "type": kind, "role": role, "missing": 0, "distinct": 50} | more


def classes(name: str, **counts: int) -> dict[str, Any]:
    top = [{"value": value, "count": count} for value, count in counts.items()]
    return column(name, "category", distinct=len(counts), top=top)


SCORES = [column("Quiz"), column("Final")]
TREES, HEAVY = {"type": "trees"}, {"type": "sgd", "momentum": 0.9}
KFOLD: dict[str, Any] = {"type": "kfold"}
UNFIT = "training_does_not_fit"
FLOWERS = [column("a"), column("b"), classes("kind", x=30, y=30, z=40)]


def planned(
    columns: list[dict[str, Any]], rows: int = 100, machine: Machine = USUAL, **config: Any
) -> Plan:
    return make_plan(RunConfig.model_validate({"dataset": "ds_x"} | config), columns, rows, machine)


def refused(columns: list[dict[str, Any]], rows: int = 100, **config: Any) -> Invalid:
    with pytest.raises(Invalid) as caught:
        planned(columns, rows, **config)
    return caught.value


def test_numbers_are_regressed_with_mse() -> None:
    config = planned(SCORES, target="Final").config
    assert (config.task, config.loss, config.features) == ("regression", "mse", ["Quiz"])


def test_three_categories_are_multiclass_with_cross_entropy() -> None:
    config = planned(FLOWERS, target="kind").config
    assert (config.task, config.loss) == ("multiclass", "cross_entropy")


def test_two_distinct_integers_are_binary() -> None:
    survived = column(
        "s", "integer", distinct=2, top=[{"value": 0, "count": 60}, {"value": 1, "count": 40}]
    )
    assert planned([survived, column("a")], target="s").config.task == "binary"


def test_many_distinct_integers_are_regressed() -> None:
    quality = column("q", "integer", distinct=6)
    assert planned([quality, column("a")], target="q").config.task == "regression"


def test_ids_and_texts_are_left_out_with_a_warning() -> None:
    plan = planned([*SCORES, column("No", "id"), column("Essay", "text")], target="Final")
    assert plan.config.features == ["Quiz"]
    assert {w["column"] for w in plan.warnings if w["code"] == "column_ignored"} == {"No", "Essay"}


def test_trees_have_a_recipe_of_their_own_where_a_request_names_none() -> None:
    plan = planned(SCORES, target="Final", model=TREES)
    assert plan.config.optimizer == Sgd(learning_rate=0.05)
    assert (plan.config.batch_size, plan.config.epochs) == ("full", 1000)
    assert plan.net is not None
    assert plan.net.operations[0].attributes["trees"] == 1000
    assert plan.estimate.parameters == 1000 * (6 + 6 + 64) + 1
    assert plan.estimate.steps == 1000
    flat = planned(SCORES, target="Final", model=TREES | {"depth": 2})
    assert flat.estimate.seconds < plan.estimate.seconds
    named = planned(SCORES, rows=5000, target="Final", model=TREES, epochs=70)
    assert named.config.epochs == 70
    assert named.config.optimizer == Sgd(learning_rate=0.08)
    again = planned(SCORES, **plan.config.model_dump(mode="json", exclude={"dataset"}))
    assert again.config == plan.config


def test_a_preset_chooses_a_net_and_its_training_by_the_rows() -> None:
    plan = planned(SCORES, target="Final", preset="fast")
    found = plan.config.model_dump(mode="json")
    assert found["preset"] == "fast"
    assert found["model"] == {
        "type": "mlp",
        "hidden": [128, 128],
        "activation": "relu",
        "dropout": 0.1,
        "embedding": {"type": "piecewise_linear", "bins": 16, "size": 8},
    }
    assert found["optimizer"] == {"type": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01}
    assert found["schedule"] == {"type": "cosine", "warmup_epochs": 3, "final": 0.0}
    assert (found["epochs"], found["batch_size"], found["early_stopping"]) == (100, 32, None)
    assert plan.net is not None
    assert plan.net.operations[0].attributes == {"numbers": 1, "bins": 16, "size": 8}
    assert plan.estimate.parameters == plan.net.parameters
    large = planned(SCORES, rows=10_000, target="Final", preset="fast").config
    assert (large.model.hidden, large.batch_size, large.epochs) == ([256, 256], 256, 94)  # type: ignore[attr-defined]
    assert planned(SCORES, rows=10**6, target="Final", preset="fast").config.epochs == 30


def test_the_balanced_preset_is_the_net_of_fast_in_each_fold_unless_a_split_is_named() -> None:
    fast = planned(SCORES, target="Final", preset="fast").config.model_dump(mode="json")
    found = planned(SCORES, target="Final", preset="balanced").config.model_dump(mode="json")
    folds = {"type": "kfold", "folds": 10, "repeats": 1, "column": None}
    assert found == fast | {"preset": "balanced", "split": folds}
    one = planned(SCORES, target="Final", preset="balanced", split={"type": "none"}).config
    assert one.split == NoSplit()


def test_what_a_request_names_wins_over_its_preset() -> None:
    asked: dict[str, Any] = {"epochs": 7, "optimizer": {"type": "sgd"}, "early_stopping": {}}
    found = planned(SCORES, target="Final", preset="fast", **asked).config
    assert (found.epochs, found.optimizer, found.batch_size) == (7, Sgd(), 32)
    assert found.early_stopping is not None


def test_a_complete_configuration_may_name_the_preset_that_it_came_from() -> None:
    made = planned(SCORES, target="Final", preset="fast").config.model_dump(mode="json")
    again = planned(SCORES, rows=10_000, **made | {"dataset": "ds_x"}).config
    assert again.model_dump(mode="json") == made | {"dataset": "ds_x"}


def test_a_preset_and_a_model_are_refused_together() -> None:
    with pytest.raises(ValidationError, match="leave out model or preset"):
        planned(SCORES, target="Final", preset="fast", model=TREES)


def test_without_validation_rows_nothing_stops_early() -> None:
    assert planned(SCORES, target="Final", split={"type": "none"}).config.early_stopping is None


def test_an_unknown_target_names_the_nearest_column() -> None:
    error = refused(SCORES, target="final")
    assert (error.code, "'Final'" in error.detail) == ("unknown_column", True)


@pytest.mark.parametrize(
    ("columns", "config", "code"),
    [
        ([column("a")], {"target": "a"}, "no_features"),
        ([column("a", distinct=1), column("b")], {"target": "a"}, "target_constant"),
        ([column("a", distinct=0, missing=100), column("b")], {"target": "a"}, "target_missing"),
        ([column("a", "datetime"), column("b")], {"target": "a"}, "target_not_numeric"),
        (FLOWERS, {"target": "kind", "task": "regression"}, "target_not_numeric"),
        (FLOWERS, {"target": "kind", "task": "binary"}, "not_binary"),
        (FLOWERS, {"target": "a", "task": "multiclass"}, "target_not_a_class"),
        (FLOWERS, {"target": "kind", "loss": "mse"}, "loss_does_not_fit"),
        (FLOWERS, {"target": ["a", "kind"]}, "target_not_numeric"),
        (SCORES, {"target": "Final", "loss": "cross_entropy"}, "loss_does_not_fit"),
        (SCORES, {"target": "Final", "model": TREES, "optimizer": {}}, UNFIT),
        (SCORES, {"target": "Final", "model": TREES, "batch_size": 32}, UNFIT),
        (SCORES, {"target": "Final", "model": TREES, "lr_range": {}}, UNFIT),
        (SCORES, {"target": "Final", "model": TREES, "optimizer": HEAVY}, UNFIT),
        ([column("a"), classes("k", x=1, y=1)], {"target": "k"}, "class_too_small"),
        (
            [column("a"), column("f", min=0.5, max=3.0)],
            {"target": "f", "task": "multiclass"},
            "target_not_a_class",
        ),
        (SCORES, {"target": "Final", "class_weight": "balanced"}, "weight_does_not_fit"),
        (FLOWERS, {"target": "kind", "class_weight": {"w": 2.0}}, "unknown_class"),
        ([*SCORES, column("w", missing=1)], {"target": "Final", "weight": "w"}, "wrong_weight"),
        ([*SCORES, column("w", min=-1.0)], {"target": "Final", "weight": "w"}, "wrong_weight"),
        ([*SCORES, classes("w", a=60, b=40)], {"target": "Final", "weight": "w"}, "wrong_weight"),
        ([*SCORES], {"target": "Final", "weight": "v"}, "unknown_column"),
        (
            [*SCORES, classes("g", one=100)],
            {"target": "Final", "split": {"type": "group", "column": "g"}},
            "too_few_groups",
        ),
        (
            [*SCORES, classes("g", one=60, two=40)],
            {"target": "Final", "split": {"type": "group", "column": "g", "test": 0.2}},
            "too_few_groups",
        ),
        (
            SCORES,
            {"target": "Final", "split": {"type": "time", "column": "nope"}},
            "unknown_column",
        ),
        (FLOWERS, {"target": "a", "split": {"type": "column", "column": "kind"}}, "split_values"),
        (
            SCORES,
            {"target": "Final", "model": {"type": "mlp", "hidden": [60000, 60000]}},
            "model_too_large",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_it_is_queued(
    columns: list[dict[str, Any]], config: dict[str, Any], code: str
) -> None:
    assert refused(columns, **config).code == code


def test_a_class_with_one_row_trains_with_a_warning() -> None:
    plan = planned([column("a"), classes("k", x=98, y=1, z=1)], target="k")
    (warning,) = [each for each in plan.warnings if each["code"] == "class_too_small"]
    assert "'y', 'z'" in warning["detail"]


def test_two_rows_are_too_few_for_three_parts() -> None:
    split = {"type": "random", "validation": 0.2, "test": 0.2}
    assert refused(SCORES, rows=2, target="Final", split=split).code == "too_few_rows"


def test_a_number_with_whole_values_has_classes_where_the_task_says_so() -> None:
    columns = [column("a"), column("f", distinct=3, min=1.0, max=3.0)]
    config = planned(columns, target="f", task="multiclass").config
    assert (config.task, config.loss) == ("multiclass", "cross_entropy")


@pytest.mark.parametrize("kind", ["number", "integer"])
def test_few_whole_values_are_perhaps_classes(kind: str) -> None:
    columns = [column("a"), column("q", kind, distinct=6, min=0, max=5)]
    (warning,) = planned(columns, target="q").warnings
    assert (warning["code"], warning["column"]) == ("perhaps_classes", "q")
    assert planned(columns, target="q", task="regression").warnings == []
    assert planned(columns, rows=20, target="q").warnings == []


def test_the_column_of_weights_is_no_feature() -> None:
    config = planned([*SCORES, column("w", min=0.0)], target="Final", weight="w").config
    assert (config.features, config.weight) == (["Quiz"], "w")


@pytest.mark.parametrize("used", [{"target": "w"}, {"target": "Final", "features": ["w"]}])
def test_a_target_or_feature_is_no_weight(used: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a target or a feature"):
        planned([*SCORES, column("w")], weight="w", **used)


def test_a_cross_validation_gets_its_folds_and_is_counted_whole() -> None:
    few, many = (planned(SCORES, rows, target="Final", split=KFOLD) for rows in (999, 1000))
    assert isinstance(few.config.split, KFoldSplit)
    assert isinstance(many.config.split, KFoldSplit)
    assert (few.config.split.folds, many.config.split.folds) == (10, 5)
    assert few.config.early_stopping is not None
    one = planned(SCORES, 1000, target="Final").estimate
    whole = planned(SCORES, 1000, target="Final", split=KFOLD | {"repeats": 2}).estimate
    assert (whole.parameters, whole.steps) == (10 * one.parameters, 10 * one.steps)
    assert whole.seconds == pytest.approx(10 * one.seconds, rel=0.2)
    assert whole.memory_bytes > one.memory_bytes


def test_a_group_of_rows_that_stay_together_is_no_feature() -> None:
    columns = [*SCORES, column("g", "integer", distinct=9)]
    found = planned(columns, target="Final", split=KFOLD | {"folds": 9, "column": "g"})
    assert found.config.features == ["Quiz"]


@pytest.mark.parametrize(
    ("rows", "changes", "code"),
    [
        (4, {"split": KFOLD | {"folds": 5}}, "too_few_rows"),
        (100, {"split": KFOLD | {"folds": 12, "column": "g"}}, "too_few_groups"),
        (100, {"split": KFOLD | {"column": "nope"}}, "unknown_column"),
        (100, {"split": KFOLD | {"column": "Final"}}, "split_by_target"),
        (
            2000,
            {"split": KFOLD | {"folds": 20, "repeats": 10}}
            | {"model": {"type": "layers", "layers": [{"linear": 2}, "relu"] * 10}},
            "model_too_large",
        ),
    ],
)
def test_a_cross_validation_that_cannot_be_made_is_refused(
    rows: int, changes: dict[str, Any], code: str
) -> None:
    columns = [*SCORES, column("g", "integer", distinct=9)]
    assert refused(columns, rows, target="Final", **changes).code == code


def test_a_split_column_may_say_val_and_dev_in_any_case() -> None:
    words = classes("s", Train=80, VAL=10, dev=5, Test=5)
    split = {"type": "column", "column": "s"}
    assert planned([*SCORES, words], target="Final", split=split).config.features == ["Quiz"]


def test_a_class_with_one_row_may_train_without_held_out_rows() -> None:
    columns = [column("a"), classes("k", x=99, y=1)]
    assert planned(columns, target="k", split={"type": "none"}).config.task == "binary"


def test_layers_without_an_activation_are_warned_of() -> None:
    model = {"type": "layers", "layers": [{"linear": 4}]}
    plan = planned(SCORES, target="Final", model=model)
    assert "no_nonlinearity" in {warning["code"] for warning in plan.warnings}


def test_the_estimate_counts_the_parameters() -> None:
    assert planned(SCORES, target="Final", model={"type": "linear"}).estimate.parameters == 2


def test_a_table_that_needs_more_memory_than_a_training_may_take_is_read_from_files() -> None:
    gibibyte = Machine(memory_bytes=2**30)
    wide = [column(f"x{place}") for place in range(19)] + [column("y")]
    small = planned(wide, 100_000, gibibyte, target="y").estimate
    large = planned(wide, 20_000_000, gibibyte, target="y").estimate
    roomy = planned(wide, 20_000_000, Machine(memory_bytes=2**34), target="y").estimate
    assert small.disk_bytes == roomy.disk_bytes == 0
    assert large.disk_bytes >= 20_000_000 * 4 * 20
    assert large.memory_bytes < 2**30 < roomy.memory_bytes


def test_a_batch_of_all_rows_needs_all_of_them_in_memory() -> None:
    gibibyte, rows = Machine(memory_bytes=2**30), 200_000_000
    plan = planned(SCORES, rows, gibibyte, target="Final", batch_size="full")
    assert plan.estimate.disk_bytes == 0
    assert "memory_short" in {warning["code"] for warning in plan.warnings}


def test_the_estimated_time_is_that_of_the_machine() -> None:
    plan = planned(SCORES, 1_000_000, target="Final", epochs=100)
    usual = plan.estimate
    assert plan.net is not None
    shape = size_of(plan.config, 1_000_000, plan.net).shape
    for speeds in ({shape: 3.0}, {"another": 2.0, "third": 4.0}):
        slow = planned(SCORES, 1_000_000, Machine(speeds=speeds), target="Final", epochs=100)
        assert slow.estimate.seconds == pytest.approx(3 * usual.seconds, rel=0.1)


def test_rows_without_a_target_are_warned_of() -> None:
    plan = planned([column("Quiz"), column("Final", missing=3)], target="Final")
    assert "target_missing" in {warning["code"] for warning in plan.warnings}
