"""The losses and the optimizers, each compared with PyTorch's own."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from descent.spec import ColumnType, LossName, OptimizerSpec
from models.architectures import ModelSpec
from models.engine.autograd import Autograd
from models.engine.engine import Setup
from models.engine.examples import Examples
from models.engine.losses import ErrorLoss, Loss, choose_loss
from models.features.targets import ClassTarget, NumberTargets
from models.nets.module import build, flatten

CPU = torch.device("cpu")
OPTIMIZERS: TypeAdapter[Any] = TypeAdapter(OptimizerSpec)
MODELS: TypeAdapter[Any] = TypeAdapter(ModelSpec)


def numbers(*scale: float) -> NumberTargets:
    count = len(scale)
    names, zeros = tuple(f"y{place}" for place in range(count)), (0.0,) * count
    number: ColumnType = "number"
    return NumberTargets(names, (number,) * count, zeros, scale, zeros, zeros, zeros, scale)


CLASSES = ClassTarget("y", "integer", (0, 1, 2))


@pytest.mark.parametrize("name", ["mse", "sse", "mae", "huber"])
def test_a_losss_gradient_is_that_of_its_objective(name: LossName) -> None:
    loss = choose_loss(name, numbers(2.0, 3.0), CPU)
    check_gradient(loss, torch.randn(11, 2) * 3, torch.randn(11, 2))


def test_cross_entropys_gradient_is_that_of_its_objective() -> None:
    loss = choose_loss("cross_entropy", CLASSES, CPU)
    check_gradient(loss, torch.randn(11, 3), torch.randint(0, 3, (11,)))


def check_gradient(loss: Loss, outputs: Tensor, truth: Tensor) -> None:
    leaf = outputs.clone().requires_grad_()
    objective = loss.measure(leaf, truth).sum() / loss.divisor(len(truth))
    (expected,) = torch.autograd.grad(objective, leaf)
    slopes = loss.slopes(outputs.clone(), truth, loss.divisor(len(truth)))
    torch.testing.assert_close(slopes, expected)
    torch.testing.assert_close(Loss.slopes(loss, outputs, truth, loss.divisor(11)), expected)


@pytest.mark.parametrize("name", ["mse", "sse", "mae", "huber", "cross_entropy"])
def test_a_weight_multiplies_the_loss_of_its_row_and_its_slopes(name: LossName) -> None:
    is_class = name == "cross_entropy"
    loss = choose_loss(name, CLASSES if is_class else numbers(2.0, 3.0), CPU)
    outputs = torch.randn(11, 3 if is_class else 2) * 3
    truth = torch.randint(0, 3, (11,)) if is_class else torch.randn(11, 2)
    weights = torch.rand(11) * 2
    divisor = loss.divisor(11)
    expected = [
        loss.measure(outputs[[row]], truth[[row]]) * weight for row, weight in enumerate(weights)
    ]
    torch.testing.assert_close(loss.measure(outputs, truth, weights), sum(expected))
    slopes = [
        loss.slopes(outputs[[row]], truth[[row]], divisor) * weight
        for row, weight in enumerate(weights)
    ]
    torch.testing.assert_close(loss.slopes(outputs, truth, divisor, weights), torch.cat(slopes))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mse", nn.functional.mse_loss),
        ("mae", nn.functional.l1_loss),
        ("sse", lambda a, b: nn.functional.mse_loss(a, b, reduction="sum")),
        ("huber", lambda a, b: nn.functional.huber_loss(a, b, delta=2.0)),
    ],
)
def test_a_loss_is_reported_in_the_targets_units(
    name: LossName, expected: Callable[[Tensor, Tensor], Tensor]
) -> None:
    outputs, truth = torch.randn(50, 1) * 4, torch.randn(50, 1)
    loss = choose_loss(name, numbers(2.0), CPU)
    reported = loss.report(loss.measure(outputs.clone(), truth).tolist(), 50)
    assert reported == pytest.approx(float(expected(outputs * 2, truth * 2)), rel=1e-5)


def test_several_targets_are_averaged_in_their_own_units() -> None:
    loss = choose_loss("mse", numbers(1.0, 10.0), CPU)
    assert isinstance(loss, ErrorLoss)
    assert loss.report([5.0, 5.0], rows=5) == pytest.approx((1 + 100) / 2)


def test_cross_entropy_is_pytorchs() -> None:
    outputs, truth = torch.randn(20, 3), torch.randint(0, 3, (20,))
    loss = choose_loss("cross_entropy", CLASSES, CPU)
    reported = loss.report(loss.measure(outputs, truth).tolist(), 20)
    assert reported == pytest.approx(float(nn.functional.cross_entropy(outputs, truth)), rel=1e-5)


PYTORCH: list[tuple[dict[str, Any], Callable[[Any], torch.optim.Optimizer]]] = [
    ({"type": "sgd"}, lambda p: torch.optim.SGD(p, lr=0.01)),
    (
        {"type": "sgd", "momentum": 0.9, "weight_decay": 0.1},
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1),
    ),
    (
        {"type": "sgd", "momentum": 0.9, "nesterov": True},
        lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True),
    ),
    (
        {"type": "adam", "weight_decay": 0.1},
        lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=0.1),
    ),
    ({"type": "adamw"}, lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.01)),
    ({"type": "rmsprop"}, lambda p: torch.optim.RMSprop(p, lr=0.01)),
    (
        {"type": "rmsprop", "momentum": 0.5, "weight_decay": 0.1},
        lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5, weight_decay=0.1),
    ),
]


@pytest.mark.parametrize(
    ("spec", "reference"),
    PYTORCH,
    ids=lambda value: str(value) if isinstance(value, dict) else "torch",
)
def test_an_optimizer_follows_pytorchs(
    spec: dict[str, Any], reference: Callable[[Any], torch.optim.Optimizer]
) -> None:
    model = MODELS.validate_python({"type": "mlp", "hidden": [8]})
    x, truth = torch.randn(40, 3), torch.randn(40, 1)
    net, twin = build(model, 3, 1, seed=2), build(model, 3, 1, seed=2)
    flat = flatten(net, CPU)
    optimizer = OPTIMIZERS.validate_python(spec)
    loss = choose_loss("mse", numbers(1.0), CPU)
    engine = Autograd(Setup(net, flat, None, loss, optimizer, 40, 0))
    expected = reference(twin.parameters())
    for _ in range(20):
        engine.advance(Examples(x, truth), None, 0, 1, 0.01, math.inf)
        expected.zero_grad()
        torch.autograd.backward(nn.functional.mse_loss(twin(x), truth))
        expected.step()
    parameters = torch.cat([parameter.detach().flatten() for parameter in twin.parameters()])
    torch.testing.assert_close(flat.values, parameters, rtol=1e-4, atol=1e-5)


def test_a_step_adds_up_the_loss_before_it() -> None:
    net = build(MODELS.validate_python({"type": "linear"}), 2, 1, seed=0)
    x, truth = torch.randn(9, 2), torch.randn(9, 1)
    with torch.no_grad():
        before = float(((net(x) - truth) ** 2).sum())
    loss = choose_loss("sse", numbers(1.0), CPU)
    optimizer = OPTIMIZERS.validate_python({"type": "lbfgs"})
    engine = Autograd(Setup(net, flatten(net, CPU), None, loss, optimizer, 9, 0))
    engine.advance(Examples(x, truth), None, 0, 1, 1.0, math.inf)
    assert engine.totals.item() == pytest.approx(before, rel=1e-5)


def test_a_seed_gives_the_same_net_and_another_seed_another() -> None:
    model = MODELS.validate_python({"type": "mlp"})
    first, again, other = (
        flatten(build(model, 4, 2, seed), CPU).values.numpy() for seed in (5, 5, 6)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_building_a_net_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    build(MODELS.validate_python({"type": "mlp"}), 4, 2, seed=1)
    assert torch.equal(before, torch.get_rng_state())
