"""The optimizers, each as an update of one flat parameter tensor, with a state that can be saved.

Their rules are PyTorch's, and a test holds them equal to `torch.optim`; on one flat tensor they
need a few operations where `torch.optim` spends ten times as long on bookkeeping.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from inspect import unwrap
from typing import Any, TypeAlias

import torch
from torch import Tensor

from descent.spec import Adam, AdamW, Lbfgs, OptimizerSpec, RmsProp, Sgd
from models.nets import Flat

BETAS = (0.9, 0.999)
EPSILON = 1e-8
RMSPROP_DECAY = 0.99
#: Steps that L-BFGS remembers; each costs two copies of the parameters, and time at every step.
HISTORY_SIZE = 10
#: What torch's L-BFGS keeps of its last steps.
HISTORY = ("old_dirs", "old_stps", "ro")
#: Sets the gradients at the present parameters; returns the loss's sums, and what they are divided
#: by to give the objective, which most optimizers need not know.
Evaluate: TypeAlias = Callable[[], tuple[Tensor, float]]


class Optimizer(ABC):
    """Changes the parameters along their gradients."""

    def __init__(self, flat: Flat) -> None:
        self.flat = flat

    @abstractmethod
    def update(self, rate: float, evaluate: Evaluate) -> None:
        """Make one step; calls `evaluate` once, lbfgs more often."""

    def tensors(self) -> dict[str, Tensor]:
        """The state, live: what is loaded is copied into it."""
        return {}

    def scalars(self) -> dict[str, Any]:
        """The rest of the state, ready for JSON."""
        return {}

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        """Continue from a saved state."""
        del scalars
        for name, tensor in self.tensors().items():
            tensor.copy_(tensors[name])


class GradientDescent(Optimizer):
    """`sgd`, plain, with momentum (Polyak, 1964) or Nesterov's."""

    def __init__(self, flat: Flat, spec: Sgd) -> None:
        super().__init__(flat)
        self.spec = spec
        self.velocity = torch.zeros_like(flat.values) if spec.momentum else None

    def update(self, rate: float, evaluate: Evaluate) -> None:
        evaluate()
        values, gradients = self.flat.values, self.flat.gradients
        _decay(self.flat, self.spec.weight_decay)
        if self.velocity is not None:
            self.velocity.mul_(self.spec.momentum).add_(gradients)
            if self.spec.nesterov:
                gradients.add_(self.velocity, alpha=self.spec.momentum)
            else:
                gradients = self.velocity
        values.add_(gradients, alpha=-rate)

    def tensors(self) -> dict[str, Tensor]:
        return {} if self.velocity is None else {"velocity": self.velocity}


class AdaptiveMoments(Optimizer):
    """`adam` and `adamw`."""

    def __init__(self, flat: Flat, spec: Adam | AdamW) -> None:
        super().__init__(flat)
        self.spec = spec
        self.mean = torch.zeros_like(flat.values)
        self.square = torch.zeros_like(flat.values)
        self.steps = torch.zeros((), device=flat.values.device)
        # The kernels behind torch.optim's fused=True, without its bookkeeping around them.
        self.kernel = torch._fused_adamw_ if isinstance(spec, AdamW) else torch._fused_adam_

    def update(self, rate: float, evaluate: Evaluate) -> None:
        evaluate()
        self.steps += 1
        self.kernel(
            [self.flat.values],
            [self.flat.gradients],
            [self.mean],
            [self.square],
            [],
            [self.steps],
            lr=rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=self.spec.weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def tensors(self) -> dict[str, Tensor]:
        return {"mean": self.mean, "square": self.square, "steps": self.steps}


class RootMeanSquare(Optimizer):
    """`rmsprop`."""

    def __init__(self, flat: Flat, spec: RmsProp) -> None:
        super().__init__(flat)
        self.spec = spec
        self.square = torch.zeros_like(flat.values)
        self.velocity = torch.zeros_like(flat.values) if spec.momentum else None

    def update(self, rate: float, evaluate: Evaluate) -> None:
        evaluate()
        _decay(self.flat, self.spec.weight_decay)
        values, gradients = self.flat.values, self.flat.gradients
        self.square.mul_(RMSPROP_DECAY)
        self.square.addcmul_(gradients, gradients, value=1 - RMSPROP_DECAY)
        size = self.square.sqrt().add_(EPSILON)
        if self.velocity is None:
            values.addcdiv_(gradients, size, value=-rate)
        else:
            self.velocity.mul_(self.spec.momentum).addcdiv_(gradients, size)
            values.add_(self.velocity, alpha=-rate)

    def tensors(self) -> dict[str, Tensor]:
        tensors = {"square": self.square, "velocity": self.velocity}
        return {name: tensor for name, tensor in tensors.items() if tensor is not None}


class _LBFGS(torch.optim.LBFGS):
    """PyTorch's, which loads no compilers."""

    # What has `torch.compile` pass over a method imports them first: two seconds and much memory.
    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)


class QuasiNewton(Optimizer):
    """`lbfgs` with a line search that meets the strong Wolfe conditions."""

    def __init__(self, flat: Flat, spec: Lbfgs) -> None:
        super().__init__(flat)
        self.parameter = torch.nn.Parameter(flat.values)
        self.parameter.grad = flat.gradients
        self.inner = _LBFGS(
            [self.parameter],
            lr=spec.learning_rate,
            history_size=HISTORY_SIZE,
            line_search_fn="strong_wolfe",
        )

    def update(self, rate: float, evaluate: Evaluate) -> None:
        def objective() -> float:
            sums, divisor = evaluate()
            return float(sums.sum()) / divisor

        self.inner.param_groups[0]["lr"] = rate
        self.inner.step(objective)  # type: ignore[no-untyped-call]

    def tensors(self) -> dict[str, Tensor]:
        state = self.inner.state[self.parameter]
        found = {name: value for name, value in state.items() if isinstance(value, Tensor)}
        # The history: tensors of equal shape, so each list is stored as one tensor.
        return found | {name: torch.stack(state[name]) for name in HISTORY if state.get(name)}

    def scalars(self) -> dict[str, Any]:
        state = self.inner.state[self.parameter]
        found = {name: value for name, value in state.items() if isinstance(value, int | float)}
        return dict(sorted(found.items()))  # in an order that does not tell who set them first

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        state = self.inner.state[self.parameter]
        # JSON has NaN and infinities as strings.
        state.update({k: float(v) if isinstance(v, str) else v for k, v in scalars.items()})
        if scalars.get("n_iter"):
            state.update({name: [] for name in HISTORY})
        for name, tensor in tensors.items():
            # Each in memory of its own, as torch aligns it: sums depend on that in the last bits.
            rows = [row.clone() for row in tensor] if name in HISTORY else tensor.clone()
            state[name] = rows


def make_optimizer(spec: OptimizerSpec, flat: Flat) -> Optimizer:
    match spec:
        case Sgd():
            return GradientDescent(flat, spec)
        case Adam() | AdamW():
            return AdaptiveMoments(flat, spec)
        case RmsProp():
            return RootMeanSquare(flat, spec)
        case Lbfgs():
            return QuasiNewton(flat, spec)


def _decay(flat: Flat, weight_decay: float) -> None:
    if weight_decay:
        flat.gradients.add_(flat.values, alpha=weight_decay)
