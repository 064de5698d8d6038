"""The protocol of an engine, which makes the steps of a training.

An engine holds the parameters and the state of the optimizer in its own layout. It is asked for
pieces of an epoch, so that the loop can look for orders, save and report between two of them.
Invariants, each with a test: a cut of an epoch anywhere, and any number of threads, give the same
bits; all engines agree within the rounding of float32.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from descent.spec import OptimizerSpec
from models.architectures.base import Architecture
from models.data import Floats, Integers
from models.engine import EngineName
from models.engine.examples import Examples
from models.engine.losses import Loss
from models.nets.graph import DenseLayer
from models.nets.module import Flat


@dataclass(frozen=True)
class Setup:
    """Everything that an engine is made of."""

    net: nn.Module
    #: The parameters of the net, those that are not trained last. Those of a dense stack lie in the
    #: order weight (outputs, inputs), bias (outputs,), layer after layer.
    flat: Flat
    #: None if the net is no dense stack.
    layers: tuple[DenseLayer, ...] | None
    loss: Loss
    optimizer: OptimizerSpec
    #: The rows of a batch; the last one of an epoch may have fewer.
    batch: int
    seed: int
    #: The configuration of the net; None where the net is all there is.
    architecture: Architecture | None = None

    @property
    def device(self) -> torch.device:
        return self.flat.values.device

    @property
    def work(self) -> int:
        """The multiplications of a forward pass of a batch, roughly."""
        return self.batch * self.flat.values.numel()


class Engine(ABC):
    """Makes the steps of a training and holds everything that changes with them."""

    name: ClassVar[EngineName]

    def __init__(self, setup: Setup) -> None:
        self.net, self.flat, self.loss = setup.net, setup.flat, setup.loss
        self.batch, self.seed = setup.batch, setup.seed
        #: Into how many parts each batch is cut; depends on the shape of the training alone.
        self.shards = 1
        #: How many threads compute the parts; may change between two calls of `advance`.
        self.threads = 1
        #: Steps since the start of the training.
        self.step = 0
        #: The losses of the present epoch, summed over its rows, float64 (loss.width,).
        self.totals: Floats = np.zeros(setup.loss.width)

    @abstractmethod
    def advance(
        self,
        rows: Examples,
        order: Integers | None,
        first: int,
        count: int,
        rate: float,
        until: float,
    ) -> int:
        """Make the batches `first` to `first + count - 1` of the rows; return how many were made.

        Batch b has the rows at `order[b * batch : (b + 1) * batch]`; without an order the rows as
        they lie. At least one batch is made; after each, the engine stops if `time.monotonic()` has
        reached `until`. Adds each batch's loss before its step to `totals`.
        """

    def pull(self) -> None:  # noqa: B027  an engine may use `flat` itself
        """Copy the parameters to `flat`, from which the net, checkpoints and frames read them."""

    def push(self) -> None:  # noqa: B027
        """Take the parameters from `flat`."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return the optimizer's tensors; those like the parameters are in the order of `flat`."""

    @abstractmethod
    def scalars(self) -> dict[str, Any]:
        """Return the rest of the optimizer's state, ready for JSON."""

    @abstractmethod
    def load(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        """Continue from a saved state of the optimizer, of this or another engine."""

    def evaluate(self, rows: Examples) -> tuple[Floats, int]:
        """Return the losses summed over the rows, float64 (loss.width,), and the count of hits.

        A hit is a row of a class whose output is the largest. Uses the parameters in `flat`.
        """
        sums = torch.zeros(self.loss.width, dtype=torch.float64, device=rows.x.device)
        hits = torch.zeros((), dtype=torch.int64, device=rows.x.device)
        self.net.eval()
        with torch.no_grad():
            for chunk in rows.chunks():
                outputs = self.net(chunk.x)
                sums += self.loss.measure(outputs, chunk.truth, chunk.weights)
                if chunk.truth.dtype == torch.int64:
                    hits += (outputs.argmax(1) == chunk.truth).sum()
        self.net.train()
        return sums.cpu().numpy(), int(hits)

    def close(self) -> None:  # noqa: B027  an engine may have no threads
        """Free the threads of the engine."""


#: A step with fewer multiplications is not worth several threads of torch's operations.
SHARD_WORK = 15_000_000
#: Each further shard has gradients of its own, so nets with more parameters have fewer shards.
SHARDED_PARAMETERS = 4_000_000


class TorchEngine(Engine):
    """The common part of the engines that compute with torch's operations.

    Each operation runs on one thread, so that its bits do not depend on their number; the shards of
    a batch run on several.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._pool: ThreadPoolExecutor | None = None
        if setup.device.type == "cpu":
            most = 4 if setup.flat.values.numel() <= SHARDED_PARAMETERS else 2
            self.shards = min(most, setup.batch, 1 + setup.work // SHARD_WORK)
        #: The rows of a shard of a full batch.
        self.capacity = -(-setup.batch // self.shards)

    def each_shard(self, compute: Callable[[int], None]) -> None:
        """Compute every shard, on as many threads as there should be."""
        if self.threads == 1 or self.shards == 1:
            for shard in range(self.shards):
                compute(shard)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.shards, thread_name_prefix="shard")
        workers = min(self.threads, self.shards)

        def some(first: int) -> None:
            for shard in range(first, self.shards, workers):
                compute(shard)

        waiting = [self._pool.submit(some, worker) for worker in range(1, workers)]
        some(0)
        for each in waiting:
            each.result()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def is_late(until: float) -> bool:
    """Return whether a piece must end."""
    return time.monotonic() >= until
