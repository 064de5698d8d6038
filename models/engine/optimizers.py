"""The optimizers, and the schedules of their learning rates.

An optimizer updates one flat parameter tensor and has a state that can be saved. The rules are
PyTorch's, and a test compares them with `torch.optim`. On one flat tensor they need few operations;
`torch.optim` spends ten times as long on bookkeeping.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from inspect import unwrap
from typing import Any, TypeAlias

import torch
from torch import Tensor

from descent.spec import (
    Adam,
    AdamW,
    Constant,
    Cosine,
    Lbfgs,
    OneCycle,
    OptimizerSpec,
    Plateau,
    RmsProp,
    ScheduleSpec,
    Sgd,
    Step,
)
from models.nets.module import Flat

BETAS = (0.9, 0.999)
EPSILON = 1e-8
RMSPROP_DECAY = 0.99
#: Numbers of steps that are made into tensors at a time.
AHEAD = 64
#: Steps that L-BFGS keeps; each costs two copies of the parameters, and time at every step.
HISTORY_SIZE = 10
#: Names in the state of torch's L-BFGS that hold its last steps.
HISTORY = ("old_dirs", "old_stps", "ro")
#: Sets the gradients at the present parameters; returns the loss's sums and the divisor that turns
#: them into the objective, which only L-BFGS needs.
Evaluate: TypeAlias = Callable[[], tuple[Tensor, float]]
#: The rates at which one_cycle starts and ends, as shares of its peak, as in PyTorch's OneCycleLR.
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1 / 250_000


class Optimizer(ABC):
    """Changes the parameters along their gradients."""

    def __init__(self, flat: Flat) -> None:
        self.flat = flat

    @abstractmethod
    def update(self, rate: float, evaluate: Evaluate) -> None:
        """Make one step with this learning rate; calls `evaluate` once, lbfgs several times."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the state; they are live, and `load` copies into them."""
        return {}

    def scalars(self) -> dict[str, Any]:
        """Return the rest of the state, ready for JSON."""
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
    """`adam` (Kingma and Ba, 2014) and `adamw` (Loshchilov and Hutter, 2017)."""

    def __init__(self, flat: Flat, spec: Adam | AdamW) -> None:
        super().__init__(flat)
        self.spec = spec
        self.mean = torch.zeros_like(flat.values)
        self.square = torch.zeros_like(flat.values)
        nothing: list[Tensor] = []
        self._lists = [flat.values], [flat.gradients], [self.mean], [self.square], nothing
        self.steps = 0
        #: The next numbers of steps as tensors, the last one first: made many at a time, because
        #: to make one costs as much as a small operation.
        self._ahead: list[Tensor] = []
        # The kernels of torch.optim's fused=True, without its bookkeeping.
        self.kernel = torch._fused_adamw_ if isinstance(spec, AdamW) else torch._fused_adam_

    def update(self, rate: float, evaluate: Evaluate) -> None:
        evaluate()
        if not self._ahead:
            numbers = torch.arange(self.steps + AHEAD, self.steps, -1, dtype=torch.float32)
            self._ahead = list(numbers.to(self.flat.values.device).unbind())
        self.steps += 1
        self.kernel(
            *self._lists,
            [self._ahead.pop()],
            lr=rate,
            beta1=BETAS[0],
            beta2=BETAS[1],
            weight_decay=self.spec.weight_decay,
            eps=EPSILON,
            amsgrad=False,
            maximize=False,
        )

    def tensors(self) -> dict[str, Tensor]:
        steps = torch.tensor(float(self.steps), device=self.flat.values.device)
        return {"mean": self.mean, "square": self.square, "steps": steps}

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        super().load(tensors, scalars)
        self.steps, self._ahead = int(tensors["steps"]), []


class RootMeanSquare(Optimizer):
    """`rmsprop` (Tieleman and Hinton, 2012), plain or with momentum."""

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
    """PyTorch's L-BFGS without the import of compilers."""

    # The decorator that hides this method from `torch.compile` imports the compilers first, which
    # takes two seconds and much memory.
    add_param_group = unwrap(torch.optim.Optimizer.add_param_group)


class QuasiNewton(Optimizer):
    """`lbfgs` (Liu and Nocedal, 1989) with a line search for the strong Wolfe conditions."""

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
        return dict(sorted(found.items()))  # sorted, so that equal states are equal files

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        state = self.inner.state[self.parameter]
        # NaN and infinities are strings in JSON.
        state.update({k: float(v) if isinstance(v, str) else v for k, v in scalars.items()})
        if scalars.get("n_iter"):
            state.update({name: [] for name in HISTORY})
        for name, tensor in tensors.items():
            # Clone each, so that torch aligns its memory: the last bits of sums depend on that.
            rows = [row.clone() for row in tensor] if name in HISTORY else tensor.clone()
            state[name] = rows


def make_optimizer(spec: OptimizerSpec, flat: Flat) -> Optimizer:
    """Return the optimizer of a configuration, for these parameters."""
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


@dataclass
class PlateauState:
    """The state of the plateau schedule, which a resumed run needs."""

    factor: float = 1.0
    best: float | None = None
    #: Epochs since `best`.
    waited: int = 0

    def note(self, schedule: ScheduleSpec, loss: float) -> None:
        """Take an epoch's loss into account; NaN counts as no progress."""
        if not isinstance(schedule, Plateau):
            return
        if math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best, self.waited = loss, 0
            return
        self.waited += 1
        if self.waited > schedule.patience:
            self.factor, self.waited = self.factor * schedule.factor, 0


def factor(schedule: ScheduleSpec, epoch: int, epochs: int, plateau: PlateauState) -> float:
    """Return the factor of the learning rate in `epoch`, which counts from 0."""
    warmup = schedule.warmup_epochs
    if epoch < warmup:
        return (epoch + 1) / (warmup + 1)
    if isinstance(schedule, Plateau):
        return plateau.factor
    return _CURVES[schedule.type](schedule, epoch - warmup, max(1, epochs - warmup))


def _constant(_: Constant, __: int, ___: int) -> float:
    return 1.0


def _cosine(schedule: Cosine, epoch: int, epochs: int) -> float:
    return _glide(1.0, schedule.final, epoch / epochs)


def _one_cycle(schedule: OneCycle, epoch: int, epochs: int) -> float:
    done = epoch / epochs
    if done < schedule.peak_at:
        return _glide(ONE_CYCLE_START, 1.0, done / schedule.peak_at)
    return _glide(1.0, ONE_CYCLE_END, (done - schedule.peak_at) / (1 - schedule.peak_at))


def _step(schedule: Step, epoch: int, _: int) -> float:
    return float(schedule.factor ** (epoch // schedule.every_epochs))


def _glide(start: float, end: float, share: float) -> float:
    """Return the value at `share` of the way from start to end along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


_CURVES: dict[str, Callable[..., float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "one_cycle": _one_cycle,
    "step": _step,
}
