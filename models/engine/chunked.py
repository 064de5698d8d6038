"""The engine for dense stacks that needs only torch: few operations per step, on reused buffers.

The rows of several batches are gathered at once into a chunk. A chunk lies at a fixed place of its
epoch and is laid out feature by feature, with a row of ones for the biases, so that one product
computes a layer with its bias, and one the gradients of both. The derivatives are written by hand.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from descent.spec import Lbfgs
from models.data import Integers
from models.engine.engine import DenseLayer, Setup, TorchEngine, is_late
from models.engine.examples import Examples
from models.engine.losses import CrossEntropy, ErrorLoss
from models.engine.optimizers import make_optimizer
from models.nets.architectures import Flat
from models.nets.dropout import is_kept

CHUNK_NUMBERS = 2**18  # numbers of a chunk, unless one batch has more
aten = torch.ops.aten

#: Computes the activations of the sums of a layer; both are (units, rows).
Activate: TypeAlias = Callable[[Tensor, Tensor], Tensor]
#: Multiplies slopes by the derivative; its arguments: slopes, sums, activations, the result.
Derive: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

ACTIVATIONS: dict[str, tuple[Activate, Derive]] = {
    "relu": (
        lambda z, out: torch.clamp_min(z, 0, out=out),
        lambda d, _, a, out: aten.threshold_backward.grad_input(d, a, 0, grad_input=out),
    ),
    "sigmoid": (
        lambda z, out: torch.sigmoid(z, out=out),
        lambda d, _, a, out: aten.sigmoid_backward.grad_input(d, a, grad_input=out),
    ),
    "tanh": (
        lambda z, out: torch.tanh(z, out=out),
        lambda d, _, a, out: aten.tanh_backward.grad_input(d, a, grad_input=out),
    ),
    "gelu": (
        lambda z, out: aten.gelu.out(z, out=out),
        lambda d, z, _, out: aten.gelu_backward.grad_input(d, z, grad_input=out),
    ),
}


@dataclass(frozen=True)
class _Chunk:
    """The gathered rows of neighbouring batches, feature by feature."""

    #: (inputs + 1, rows); the last row holds ones.
    x: Tensor
    #: Of numbers (targets, rows), of classes one-hot (classes, rows).
    y: Tensor
    #: As in `Examples`.
    truth: Tensor
    weights: Tensor | None
    #: What comes out of the last layer: for numbers their errors, otherwise the outputs.
    results: Tensor
    #: For each layer the factors of its activations (units, rows), or None without dropout.
    masks: list[Tensor | None]


class Chunked(TorchEngine):
    """Linear layers with activations and dropout, and every optimizer but L-BFGS."""

    name = "chunked"

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        if setup.layers is None:
            raise ValueError("the engine needs a dense stack")
        self.layers = setup.layers
        self._order = _own_order(self.layers).to(setup.device)
        self._canonical = torch.argsort(self._order)
        values = self.flat.values[self._order]
        self._own = Flat(values, torch.zeros_like(values), {})
        self.optimizer = make_optimizer(setup.optimizer, self._own)
        gradients = [self._own.gradients]
        gradients += [torch.zeros_like(values) for _ in range(1, self.shards)]
        self._shards = [_Shard(self, values, each) for each in gradients]
        numbers = sum(layer.outputs for layer in self.layers if layer.dropout)
        numbers += self.layers[0].inputs + 1
        #: Batches of a chunk.
        self._per_chunk = max(1, CHUNK_NUMBERS // (self.batch * numbers))
        self._held: tuple[Any, _Chunk] | None = None

    @staticmethod
    def covers(setup: Setup) -> bool:
        """Return whether this engine can do the training."""
        return setup.layers is not None and not isinstance(setup.optimizer, Lbfgs)

    def advance(
        self,
        rows: Examples,
        order: Integers | None,
        first: int,
        count: int,
        rate: float,
        until: float,
    ) -> int:
        done, is_over = 0, False
        while done < count and not is_over:
            number = (first + done) // self._per_chunk
            chunk = self._chunk(rows, order, number, first + done)
            begin = first + done - number * self._per_chunk
            end = min(begin + count - done, self._per_chunk)
            for place in range(begin, end):
                self._step(chunk, place, rate)
                if is_over := is_late(until):
                    break
            self._add_up(chunk, begin, place + 1)
            done += place + 1 - begin
        return done

    def pull(self) -> None:
        torch.index_select(self._own.values, 0, self._canonical, out=self.flat.values)

    def push(self) -> None:
        torch.index_select(self.flat.values, 0, self._order, out=self._own.values)

    def tensors(self) -> dict[str, Tensor]:
        return {
            name: tensor[self._canonical] if tensor.dim() else tensor
            for name, tensor in self.optimizer.tensors().items()
        }

    def scalars(self) -> dict[str, Any]:
        return self.optimizer.scalars()

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        own = {
            name: tensor[self._order] if tensor.dim() else tensor
            for name, tensor in tensors.items()
        }
        self.optimizer.load(own, scalars)

    def _chunk(self, rows: Examples, order: Integers | None, number: int, batch: int) -> _Chunk:
        """Return the chunk of this number; it is kept, as the next piece mostly needs it again."""
        step = self.step - (batch - number * self._per_chunk)  # of the chunk's first batch
        key = (id(rows), id(order), number, step)
        if self._held is None or self._held[0] != key:
            self._held = None  # frees the memory of the chunk before
            size = self._per_chunk * self.batch
            taken = slice(number * size, (number + 1) * size)
            if order is None:
                found = rows.part(taken)
            else:
                found = rows.at(torch.from_numpy(order[taken]).to(rows.x.device))
            self._held = key, self._laid_out(found, step)
        return self._held[1]

    def _laid_out(self, rows: Examples, step: int) -> _Chunk:
        x = rows.x.new_empty(self.layers[0].inputs + 1, len(rows))
        x[:-1].copy_(rows.x.t())
        x[-1] = 1
        outputs = self.layers[-1].outputs
        if rows.truth.dtype == torch.int64:
            y = x.new_zeros(outputs, len(rows)).scatter_(0, rows.truth[None], 1.0)
        else:
            y = rows.truth.t().contiguous()
        masks = [
            self._mask(number, layer, len(rows), step) if layer.dropout else None
            for number, layer in enumerate(self.layers)
        ]
        return _Chunk(x, y, rows.truth, rows.weights, torch.empty_like(y), masks)

    def _mask(self, number: int, layer: DenseLayer, rows: int, step: int) -> Tensor:
        steps = range(step, step - (-rows // self.batch))
        batch = range(min(rows, self.batch))
        kept = is_kept(self.seed, steps, number, batch, layer.outputs, layer.dropout)
        # The rows of the last batch may be fewer.
        kept = kept.reshape(layer.outputs, -1)[:, :rows]
        mask = torch.from_numpy(kept.astype(np.float32)).to(self.flat.values.device)
        return mask.mul_(1 / (1 - layer.dropout))

    def _step(self, chunk: _Chunk, place: int, rate: float) -> None:
        begin = place * self.batch
        size = min(self.batch, chunk.x.shape[1] - begin)
        divisor = self.loss.divisor(size)

        def compute(shard: int) -> None:
            start = begin + min(shard * self.capacity, size)
            stop = begin + min((shard + 1) * self.capacity, size)
            self._shards[shard].differentiate(chunk, start, stop, divisor)

        self.each_shard(compute)
        for shard in self._shards[1:]:
            self._own.gradients.add_(shard.gradients)
        self.optimizer.update(rate, _nothing)
        self.step += 1

    def _add_up(self, chunk: _Chunk, begin: int, end: int) -> None:
        """Add the losses of these batches of the chunk to the totals, batch by batch."""
        taken = slice(begin * self.batch, end * self.batch)
        results, truth = chunk.results[:, taken].t(), chunk.truth[taken]
        if isinstance(self.loss, ErrorLoss):
            each = self.loss.of_errors(results)
        else:
            each = self.loss.each(results, truth)
        losses = each.double()
        if chunk.weights is not None:
            losses = losses * chunk.weights[taken, None]
        for batch in torch.split(losses, self.batch):
            self.totals += batch.sum(0).cpu().numpy()


def _nothing() -> tuple[Tensor, float]:
    """Stand in for the evaluation of the objective, since the gradients are set already."""
    return torch.empty(0), 1.0


def _own_order(layers: tuple[DenseLayer, ...]) -> Tensor:
    """Return the canonical place of each own number: a layer's rows hold weights, then the bias."""
    places, start = [], 0
    for layer in layers:
        count = layer.outputs * layer.inputs
        weight = torch.arange(start, start + count).view(layer.outputs, layer.inputs)
        bias = torch.arange(start + count, start + count + layer.outputs)[:, None]
        places.append(torch.cat([weight, bias], 1).flatten())
        start += count + layer.outputs
    return torch.cat(places)


class _Buffers(NamedTuple):
    """The intermediate results of a hidden layer for a number of rows."""

    #: (units + 1, rows): what goes into the next layer, with ones in the last row.
    inputs: Tensor
    #: The first `units` rows of `inputs`, (units, rows), and the transposed `inputs`.
    active: Tensor
    transposed: Tensor
    #: The sums of the layer, and its activations before dropout; both may be `active` itself.
    sums: Tensor
    raw: Tensor
    slopes: Tensor


class _Shard:
    """The passes of one shard, with its gradients and buffers."""

    def __init__(self, engine: Chunked, values: Tensor, gradients: Tensor) -> None:
        self.loss, self.layers, self.gradients = engine.loss, engine.layers, gradients
        shapes = [(layer.outputs, layer.inputs + 1) for layer in self.layers]
        self._weights = _views(values, shapes)
        self._slopes = _views(gradients, shapes)
        self._transposed = [weights[:, :-1].t() for weights in self._weights]
        self._acts = [
            ACTIVATIONS[each.activation] if each.activation else None for each in self.layers
        ]
        self._buffers: dict[int, list[_Buffers]] = {}
        self._rest = torch.empty(0)
        self._is_squared = isinstance(engine.loss, ErrorLoss) and engine.loss.factor == 2.0

    def differentiate(self, chunk: _Chunk, start: int, stop: int, divisor: float) -> None:
        """Set the gradients of the rows `start` to `stop` of a chunk."""
        if start == stop:
            self.gradients.zero_()
            return
        taken = slice(start, stop)
        x = chunk.x[:, taken]
        buffers = self._buffers_for(stop - start)
        masks = [None if mask is None else mask[:, taken] for mask in chunk.masks]
        last = self._forward(x, buffers, masks)
        slopes, share = self._differentiate_loss(chunk, taken, last, divisor)
        self._backward(x, slopes, share, buffers, masks)

    def _forward(self, x: Tensor, buffers: list[_Buffers], masks: list[Tensor | None]) -> Tensor:
        """Return what goes into the last layer."""
        for weights, act, held, mask in zip(
            self._weights, self._acts, buffers, masks, strict=False
        ):
            torch.mm(weights, x, out=held.sums)
            if act is not None:
                act[0](held.sums, held.raw)
            if mask is not None:
                torch.mul(held.raw, mask, out=held.active)
            x = held.inputs
        return x

    def _differentiate_loss(
        self, chunk: _Chunk, taken: slice, x: Tensor, divisor: float
    ) -> tuple[Tensor, float]:
        """Return slopes (outputs, rows) and the factor that makes them those of the objective."""
        y, results, loss = chunk.y[:, taken], chunk.results[:, taken], self.loss
        weights = None if chunk.weights is None else chunk.weights[taken]
        if isinstance(loss, ErrorLoss):
            torch.addmm(y, self._weights[-1], x, beta=-1, out=results)
            # The errors are needed again; of those losses that change them, only a copy is.
            slopes = results if self._is_squared else loss.bend(results.t().clone()).t()
            share = loss.factor / divisor
        else:
            torch.mm(self._weights[-1], x, out=results)
            if not isinstance(loss, CrossEntropy):
                truth = chunk.truth[taken]
                return loss.slopes(results.t(), truth, divisor, weights).t(), 1.0
            slopes = torch.softmax(results, 0).sub_(y)
            share = 1 / divisor
        return (slopes if weights is None else slopes * weights), share

    def _backward(
        self,
        x: Tensor,
        slopes: Tensor,
        share: float,
        buffers: list[_Buffers],
        masks: list[Tensor | None],
    ) -> None:
        for place in range(len(self.layers) - 1, -1, -1):
            before = buffers[place - 1].transposed if place else x.t()
            gradient = self._slopes[place]
            torch.addmm(gradient, slopes, before, beta=0, alpha=share, out=gradient)
            if place == 0:
                return
            held, mask, act = buffers[place - 1], masks[place - 1], self._acts[place - 1]
            torch.addmm(
                held.slopes, self._transposed[place], slopes, beta=0, alpha=share, out=held.slopes
            )
            slopes, share = held.slopes, 1.0
            if mask is not None:
                slopes.mul_(mask)
            if act is not None:
                act[1](slopes, held.sums, held.raw, slopes)

    def _buffers_for(self, rows: int) -> list[_Buffers]:
        if rows not in self._buffers:
            # An epoch has two sizes of batches: the usual size and that of the last batch.
            self._buffers[rows] = [self._buffer(layer, rows) for layer in self.layers[:-1]]
        return self._buffers[rows]

    def _buffer(self, layer: DenseLayer, rows: int) -> _Buffers:
        inputs = self.gradients.new_ones(layer.outputs + 1, rows)
        active = inputs[:-1]
        # Only gelu needs its sums again, and only dropout changes activations that are needed.
        raw = torch.empty_like(active) if layer.dropout else active
        sums = torch.empty_like(active) if layer.activation == "gelu" else raw
        return _Buffers(inputs, active, inputs.t(), sums, raw, torch.empty_like(active))


def _views(flat: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    parts = torch.split(flat, [rows * columns for rows, columns in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
