"""Boosted trees: what a tree is, and that trees learn what a line cannot."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from descent.spec import Sgd
from models.architectures.trees import Trees
from models.engine.boosting import Boosting, borders
from models.engine.engine import Setup
from models.engine.examples import Examples
from models.engine.losses import Loss, choose_loss
from models.features.targets import ClassTarget, NumberTargets
from models.model import load
from models.nets.module import build_graph, flatten
from tests.models.samples import SURVIVAL, Outcome, learn, make_table, passengers

CPU = torch.device("cpu")
RECIPE: dict[str, Any] = {
    "optimizer": {"type": "sgd", "learning_rate": 0.1},
    "batch_size": "full",
    "epochs": 150,
}


def waves(tmp_path: Path, loss: str = "mse", model: dict[str, Any] | None = None) -> Outcome:
    """Learn the product of a wave and a number, which no line is."""
    random = np.random.default_rng(3)
    x, z = random.uniform(-3, 3, (2, 600))
    y = np.sin(x) * z + 0.1 * random.normal(size=600)
    names: Any = dict.fromkeys(("x", "z", "y"), "number")
    table = make_table(names, x=x.tolist(), z=z.tolist(), y=y.tolist())
    asked = {"dataset": "ds_1", "target": "y", "features": ["x", "z"], "task": "regression"}
    return learn(
        table, tmp_path, asked | RECIPE | {"loss": loss, "model": {"type": "trees"} | (model or {})}
    )


def engine_of(
    loss: Loss, x: torch.Tensor, outputs: int, rate: float = 1.0, **model: Any
) -> Boosting:
    spec = Trees(**({"l2": 0.0, "bagging_temperature": 0.0, "random_strength": 0.0} | model))
    net = build_graph(spec.graph_of_run(x.shape[1], outputs, 3, 0))
    optimizer = Sgd(learning_rate=rate)
    return Boosting(Setup(net, flatten(net, CPU), None, loss, optimizer, len(x), 0, spec), spec)


def numbers() -> NumberTargets:
    ones = (1.0,)
    return NumberTargets(("y",), ("number",), *[ones] * 6)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_trees_learn_what_no_line_is(tmp_path: Path, loss: str) -> None:
    done = waves(tmp_path, loss)
    scores = done.evaluation
    assert scores["validation"]["r2"] > 0.75
    assert scores["baseline"]["linear"]["r2"] < 0.2
    assert done.started is not None
    assert done.started.engine == "boosting"


def test_trees_learn_classes_that_lie_in_a_ring(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    x, z = random.uniform(-2, 2, (2, 500))
    ring = [["in", "at", "out"][each] for each in np.digitize(np.hypot(x, z), [0.9, 1.6])]
    names: Any = {"x": "number", "z": "number", "ring": "category"}
    table = make_table(names, x=x.tolist(), z=z.tolist(), ring=ring)
    asked = {"dataset": "ds_1", "target": "ring", "features": ["x", "z"], "task": "multiclass"}
    asked |= RECIPE | {"loss": "cross_entropy", "model": {"type": "trees"}}
    assert learn(table, tmp_path, asked).evaluation["validation"]["accuracy"] > 0.9


def test_a_step_of_rate_one_gives_each_leaf_the_mean_of_its_rows() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    y = torch.tensor([[1.0], [3.0], [10.0], [12.0]])
    engine = engine_of(choose_loss("mse", numbers(), CPU), x, 1, depth=1)
    engine.advance(Examples(x, y), None, 0, 1, 1.0, 0.0)
    with torch.no_grad():
        found = engine.net(torch.tensor([[-9.0], [1.4], [1.6], [99.0]]))
    assert found.flatten().tolist() == pytest.approx([2, 2, 11, 11])


def test_a_row_of_weight_two_counts_as_two_rows() -> None:
    x, y = torch.tensor([[0.0], [1.0], [1.0]]), torch.tensor([[1.0], [3.0], [6.0]])
    loss = choose_loss("mse", numbers(), CPU)
    weighted = engine_of(loss, x, 1, depth=1)
    weighted.advance(Examples(x, y, torch.tensor([1.0, 1.0, 2.0])), None, 0, 1, 1.0, 0.0)
    twice = torch.tensor([0, 1, 2, 2])
    repeated = engine_of(loss, x[twice], 1, depth=1)
    repeated.advance(Examples(x[twice], y[twice]), None, 0, 1, 1.0, 0.0)
    with torch.no_grad():
        assert weighted.net(x).flatten().tolist() == pytest.approx([1, 5, 5])
        assert repeated.net(x).flatten().tolist() == pytest.approx([1, 5, 5])


def test_two_classes_take_the_newton_step_of_the_logistic_loss() -> None:
    x, truth = torch.tensor([[0.0], [0.0], [1.0], [1.0]]), torch.tensor([0, 1, 1, 1])
    loss = choose_loss("cross_entropy", ClassTarget("y", "integer", (0, 1)), CPU)
    engine = engine_of(loss, x, 2, depth=1)
    engine.advance(Examples(x, truth), None, 0, 1, 1.0, 0.0)
    with torch.no_grad():
        odds = engine.net(torch.tensor([[0.0], [1.0]])) @ torch.tensor([-1.0, 1.0])
    share, begun = 0.75, np.log(3.0)
    steps = [(0.5 - share) / (share * (1 - share)), (1 - share) / (share * (1 - share))]
    assert odds.tolist() == pytest.approx([begun + step for step in steps], rel=1e-5)


def test_the_validation_loss_is_that_of_the_net_that_predicts(tmp_path: Path) -> None:
    model = {"type": "trees", "depth": 3}
    config = SURVIVAL | RECIPE | {"model": model, "epochs": 25, "early_stopping": None}
    done = learn(passengers(), tmp_path, config)
    scores = done.evaluation["validation"]
    assert min(done.values("validation")) == pytest.approx(scores["cross_entropy"], rel=1e-6)


def test_columns_that_never_vary_give_the_constant(tmp_path: Path) -> None:
    x, y = torch.ones(4, 2), torch.tensor([[1.0], [3.0], [10.0], [20.0]])
    engine = engine_of(choose_loss("mse", numbers(), CPU), x, 1)
    engine.advance(Examples(x, y), None, 0, 1, 1.0, 0.0)
    with torch.no_grad():
        assert engine.net(x * 5).flatten().tolist() == pytest.approx([8.5] * 4)


def test_each_border_divides_the_values_of_a_column() -> None:
    random = np.random.default_rng(0)
    near = np.float32(1)
    columns = [
        np.array([near, np.nextafter(near, np.float32(2))]),
        np.array([1e38, 3e38, -3e38]),
        random.normal(size=5000),
        np.round(random.normal(size=5000), 1),
        np.r_[np.zeros(5000), random.normal(size=50)],
    ]
    for values in columns:
        column = values.astype(np.float32)
        found = borders(column, 16)
        assert 1 <= len(found) <= 15
        counts = [(column > border).sum() for border in found]
        assert len(set(counts)) == len(counts)
        assert all(0 < count < len(column) for count in counts)
    assert len(borders(np.zeros(9, np.float32), 16)) == 0


def test_a_loaded_model_holds_only_the_trees_that_grew(tmp_path: Path) -> None:
    done = waves(tmp_path, model={"depth": 8, "l2": 0.0})
    best = done.saved[-1].metrics_epoch
    model = load(done.saved[-1].path)
    net, _ = model.state()
    assert net["operations"][0]["trees"] == best
    assert best is not None
    assert 0 < best < RECIPE["epochs"]


def test_batches_are_refused() -> None:
    x, y = torch.arange(4.0)[:, None], torch.arange(4.0)[:, None]
    engine = engine_of(choose_loss("mse", numbers(), CPU), x, 1)
    with pytest.raises(ValueError, match="full"):
        engine.advance(Examples(x, y), np.arange(4), 0, 1, 1.0, 0.0)
