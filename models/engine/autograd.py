"""The engine for any net and every optimizer: PyTorch's automatic differentiation."""

from typing import Any

import torch
from torch import Tensor

from models.data import Integers
from models.engine.engine import Setup, TorchEngine, is_late
from models.engine.examples import Examples
from models.engine.optimizers import make_optimizer
from models.nets.dropout import Dropout


class Autograd(TorchEngine):
    """Runs the net and differentiates it; the other engines are compared with it."""

    name = "autograd"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._trained = self.flat.of_optimizer()
        self.optimizer = make_optimizer(setup.optimizer, self._trained)
        self._dropouts = [module for module in self.net.modules() if isinstance(module, Dropout)]
        if self._dropouts:
            self.shards, self.capacity = 1, self.batch  # a net has one place of its masks
        self._parameters = [each for each in self.net.parameters() if each.requires_grad]
        self._gradients = [torch.empty_like(self._trained.gradients) for _ in range(1, self.shards)]

    def advance(
        self,
        rows: Examples,
        order: Integers | None,
        first: int,
        count: int,
        rate: float,
        until: float,
    ) -> int:
        places = None if order is None else torch.from_numpy(order).to(rows.x.device)
        for done in range(count):
            taken = slice((first + done) * self.batch, (first + done + 1) * self.batch)
            batch = rows.part(taken) if places is None else rows.at(places[taken])
            self._step(batch, rate)
            if is_late(until):
                break
        return done + 1

    def _step(self, batch: Examples, rate: float) -> None:
        divisor = self.loss.divisor(len(batch))
        measured: list[Tensor] = []

        def evaluate() -> tuple[Tensor, float]:
            sums = self._differentiate(batch, divisor)
            measured.append(sums)
            return sums, divisor

        self.optimizer.update(rate, evaluate)
        self.totals += measured[0].cpu().numpy()
        self.step += 1

    def _differentiate(self, batch: Examples, divisor: float) -> Tensor:
        """Set the gradients of the batch; return its losses, summed over the rows."""
        for dropout in self._dropouts:
            dropout.draw(self.seed, self.step)
        self._trained.gradients.zero_()
        if self.shards == 1:
            return self._pass(batch, divisor, None)
        sums = torch.zeros(self.shards, self.loss.width, dtype=torch.float64)

        def compute(shard: int) -> None:
            part = batch.part(slice(shard * self.capacity, (shard + 1) * self.capacity))
            sums[shard] = self._pass(part, divisor, shard)

        self.each_shard(compute)
        for gradients in self._gradients:
            self._trained.gradients.add_(gradients)
        return sums.sum(0)

    def _pass(self, rows: Examples, divisor: float, shard: int | None) -> Tensor:
        with torch.enable_grad():
            outputs: Tensor = self.net(rows.x)
        detached = outputs.detach()
        sums = self.loss.measure(detached, rows.truth, rows.weights)
        slopes = self.loss.slopes(detached, rows.truth, divisor, rows.weights)
        # Differentiate a number whose derivative by the outputs equals the slopes, because
        # `backward(slopes)` would import SymPy first, which takes as long as a small run.
        with torch.enable_grad():
            objective = torch.sum(outputs * slopes)
            if not shard:
                # Backward adds to the parameters' gradients, which are views of the flat tensor.
                objective.backward()  # type: ignore[no-untyped-call]
            else:
                found = torch.autograd.grad(objective, self._parameters)
                flattened = [gradient.flatten() for gradient in found]
                torch.cat(flattened, out=self._gradients[shard - 1])
        return sums

    def tensors(self) -> dict[str, Tensor]:
        return self.optimizer.tensors()

    def scalars(self) -> dict[str, Any]:
        return self.optimizer.scalars()

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        self.optimizer.load(tensors, scalars)
