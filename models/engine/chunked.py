"""The engine for dense stacks that needs only torch: few operations per step, on reused buffers.

The rows of several batches are gathered at once into a chunk. A chunk lies at a fixed place of its
epoch and is laid out batch by batch and there feature by feature, with a row of ones for the
biases, so that one product computes a layer with its bias, and one the gradients of both. The
derivatives are written by hand. The memory of a chunk is used again for the next one, so the calls
of torch for each of its batches are prepared once, with all their arguments.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from descent.spec import Lbfgs
from models.data import Integers
from models.engine.engine import Setup, TorchEngine, is_late
from models.engine.examples import Examples
from models.engine.losses import CrossEntropy, ErrorLoss
from models.engine.optimizers import make_optimizer
from models.nets.dropout import is_kept
from models.nets.graph import DenseLayer
from models.nets.module import Flat

CHUNK_NUMBERS = 2**18  # numbers of a chunk, unless one batch has more
CHUNK_BATCHES = 256  # at most; each has a few kilobytes of prepared calls
aten = torch.ops.aten

#: A call of torch with all its arguments.
Call: TypeAlias = Callable[[], object]
#: Makes the call that computes the activations of the sums of a layer, both (units, rows); they may
#: be one tensor.
Activate: TypeAlias = Callable[[Tensor, Tensor], Call]
#: Makes the call that multiplies slopes by the derivative, from slopes, sums and activations.
Derive: TypeAlias = Callable[[Tensor, Tensor, Tensor], Call]

ACTIVATIONS: dict[str, tuple[Activate, Derive]] = {
    "relu": (
        lambda z, _: partial(torch.relu_, z),
        lambda d, _, a: lambda: aten.threshold_backward.grad_input(d, a, 0, grad_input=d),
    ),
    "sigmoid": (
        lambda z, _: partial(torch.sigmoid_, z),
        lambda d, _, a: lambda: aten.sigmoid_backward.grad_input(d, a, grad_input=d),
    ),
    "tanh": (
        lambda z, _: partial(torch.tanh_, z),
        lambda d, _, a: lambda: aten.tanh_backward.grad_input(d, a, grad_input=d),
    ),
    "gelu": (
        lambda z, out: lambda: aten.gelu.out(z, out=out),
        lambda d, z, _: lambda: aten.gelu_backward.grad_input(d, z, grad_input=d),
    ),
}


class _Part(NamedTuple):
    """Rows of one batch, feature by feature."""

    #: (inputs + 1, rows); the last row holds ones.
    x: Tensor
    #: Of numbers (targets, rows), of classes `_Memory.scale` times one-hot (classes, rows).
    y: Tensor
    #: What comes out of the last layer (outputs, rows): for numbers their errors times
    #: `_Memory.scale`, otherwise the outputs.
    results: Tensor
    #: As in `Examples`.
    truth: Tensor
    #: (1, rows)
    weights: Tensor | None
    #: For each layer the factors of its activations (units, rows), or None without dropout.
    masks: tuple[Tensor | None, ...]

    def cut(self, size: int) -> list["_Part"]:
        """Return neighbouring parts of so many rows; the last one may have fewer."""
        count = -(-self.x.shape[1] // size)
        nothing = (None,) * count
        masks = [nothing if mask is None else torch.split(mask, size, 1) for mask in self.masks]
        return [
            _Part(*each)
            for each in zip(
                torch.split(self.x, size, 1),
                torch.split(self.y, size, 1),
                torch.split(self.results, size, 1),
                torch.split(self.truth, size),
                nothing if self.weights is None else torch.split(self.weights, size, 1),
                zip(*masks, strict=True),
                strict=True,
            )
        ]


class _Memory:
    """Memory for a chunk: neighbouring batches of one size, and the calls for each batch.

    The tensors are those of `_Part` with the batches before their other dimensions.
    """

    def __init__(self, engine: "Chunked", batches: int, rows: int, like: Examples) -> None:
        layers, loss, new = engine.layers, engine.loss, like.x.new_empty
        outputs = layers[-1].outputs
        self.batches, self.rows = batches, rows
        self.x = like.x.new_ones(batches, layers[0].inputs + 1, rows)
        self.y, self.results = new(batches, outputs, rows), new(batches, outputs, rows)
        self.truth = like.truth.new_empty(batches, rows, *like.truth.shape[1:])
        self.weights = None if like.weights is None else new(batches, 1, rows)
        self.masks = tuple(
            new(batches, layer.outputs, rows) if layer.dropout else None for layer in layers
        )
        self.divisor = loss.divisor(rows)
        self.scale = 1.0
        if isinstance(loss, ErrorLoss) and loss.is_squared:
            self.scale = loss.factor / self.divisor
        elif isinstance(loss, CrossEntropy):
            self.scale = -1 / self.divisor
        #: For each batch so far the calls of each shard.
        self._calls: list[list[list[Call]]] = []

    def fits(self, batches: int, like: Examples) -> bool:
        """Return whether a chunk like this has place."""
        return self.batches >= batches and (like.weights is None) == (self.weights is None)

    def fill(self, engine: "Chunked", rows: Examples, first_step: int) -> None:
        """Lay out the rows of one or more batches, whose first one is this step."""
        batches = len(rows) // self.rows
        x = rows.x.view(batches, self.rows, -1)
        self.x[:batches, :-1].copy_(x.transpose(1, 2))
        truth = rows.truth.view(batches, *self.truth.shape[1:])
        self.truth[:batches].copy_(truth)
        y = self.y[:batches]
        if rows.truth.dtype == torch.int64:
            y.zero_().scatter_(1, truth[:, None], self.scale)
        else:
            y.copy_(truth.transpose(1, 2))
        if self.weights is not None and rows.weights is not None:
            self.weights[:batches, 0].copy_(rows.weights.view(batches, self.rows))
        steps = range(first_step, first_step + batches)
        for number, (layer, mask) in enumerate(zip(engine.layers, self.masks, strict=True)):
            if mask is not None:
                kept = is_kept(
                    engine.seed, steps, number, range(self.rows), layer.outputs, layer.dropout
                )
                factors = torch.from_numpy(kept.transpose(1, 0, 2).astype(np.float32))
                mask[:batches].copy_(factors).mul_(1 / (1 - layer.dropout))

    def calls(self, engine: "Chunked", batch: int) -> list[list[Call]]:
        """Return the calls that set the gradients of each shard at this batch of the chunk."""
        while len(self._calls) <= batch:
            place = len(self._calls)
            part = _Part(
                self.x[place],
                self.y[place],
                self.results[place],
                self.truth[place],
                None if self.weights is None else self.weights[place],
                tuple(None if mask is None else mask[place] for mask in self.masks),
            )
            parts = [part] if engine.shards == 1 else part.cut(engine.capacity)
            shards = zip(engine.passes, parts, strict=False)
            self._calls.append([shard.calls(part, self) for shard, part in shards])
        return self._calls[batch]


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
        self._own = Flat(values, torch.zeros_like(values), {}, len(values))
        self.optimizer = make_optimizer(setup.optimizer, self._own)
        gradients = [self._own.gradients]
        gradients += [torch.zeros_like(values) for _ in range(1, self.shards)]
        #: Of each shard.
        self.passes = [_Passes(self, values, each) for each in gradients]
        self._has_dropout = any(layer.dropout for layer in self.layers)
        numbers = sum(layer.outputs for layer in self.layers if layer.dropout)
        numbers += self.layers[0].inputs + 1
        #: Batches of a chunk.
        self._per_chunk = min(CHUNK_BATCHES, max(1, CHUNK_NUMBERS // (self.batch * numbers)))
        #: By the rows of a batch: an epoch has two, the usual size and that of the last batch.
        self._memories: dict[int, _Memory] = {}
        #: What the present chunk was made of, and where it is.
        self._held: tuple[Examples, Integers | None, Any, _Memory] | None = None

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
        whole, rest = divmod(len(rows) if order is None else len(order), self.batch)
        done, is_over = 0, False
        while done < count and not is_over:
            batch = first + done
            # The last batch, if it has fewer rows, is a chunk of its own.
            begin = whole if batch == whole else batch - batch % self._per_chunk
            end = whole + 1 if batch == whole else min(begin + self._per_chunk, whole)
            size = rest if batch == whole else self.batch
            memory = self._chunk(rows, order, begin, end - begin, size, batch)
            for place in range(batch - begin, min(end, first + count) - begin):
                self._step(memory.calls(self, place), rate)
                if is_over := is_late(until):
                    break
            self._add_up(memory, batch - begin, place + 1)
            done = begin + place + 1 - first
        return done

    def pull(self) -> None:
        torch.index_select(self._own.values, 0, self._canonical, out=self.flat.values)

    def push(self) -> None:
        torch.index_select(self.flat.values, 0, self._order, out=self._own.values)

    def tensors(self) -> dict[str, Tensor]:
        return _reordered(self.optimizer.tensors(), self._canonical)

    def scalars(self) -> dict[str, Any]:
        return self.optimizer.scalars()

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        self.optimizer.load(_reordered(tensors, self._order), scalars)

    def _chunk(
        self,
        rows: Examples,
        order: Integers | None,
        begin: int,
        batches: int,
        size: int,
        batch: int,
    ) -> _Memory:
        """Return the chunk that begins at this batch; the next piece mostly needs it again."""
        step = self.step - (batch - begin)  # of the chunk's first batch
        # Only masks depend on the step: rows as they lie are laid out once for all epochs.
        place = begin, step if self._has_dropout else None
        held = self._held
        if held is None or held[0] is not rows or held[1] is not order or held[2] != place:
            taken = slice(begin * self.batch, begin * self.batch + batches * size)
            if order is None:
                found = rows.part(taken)
            else:
                found = rows.at(torch.from_numpy(order[taken]).to(rows.x.device))
            memory = self._memories.get(size)
            if memory is None or not memory.fits(batches, found):
                memory = self._memories[size] = _Memory(self, batches, size, found)
            memory.fill(self, found, step)
            self._held = held = rows, order, place, memory
        return held[3]

    def _step(self, calls: list[list[Call]], rate: float) -> None:
        if self.shards == 1:
            for call in calls[0]:
                call()
        else:
            self._step_in_shards(calls)
        self.optimizer.update(rate, _nothing)
        self.step += 1

    def _step_in_shards(self, calls: list[list[Call]]) -> None:
        def compute(number: int) -> None:
            if number < len(calls):
                for call in calls[number]:
                    call()

        self.each_shard(compute)
        for passes in self.passes[1 : len(calls)]:
            self._own.gradients.add_(passes.gradients)

    def _add_up(self, memory: _Memory, begin: int, end: int) -> None:
        """Add the losses of these batches of the chunk to the totals."""
        results, truth = memory.results[begin:end], memory.truth[begin:end]
        if isinstance(self.loss, CrossEntropy):
            # As `each`, which takes several times as long on rows of a few classes.
            likely = results.gather(1, truth[:, None])[:, 0]
            each = (torch.logsumexp(results, 1) - likely).view(-1, 1)
        else:
            outputs = results.transpose(1, 2).reshape(-1, results.shape[1])
            if isinstance(self.loss, ErrorLoss):
                each = self.loss.of_errors(outputs.div_(memory.scale))
            else:
                each = self.loss.each(outputs, truth.reshape(len(outputs), *truth.shape[2:]))
        losses = each.double()
        if memory.weights is not None:
            losses = losses * memory.weights[begin:end].reshape(-1, 1)
        # Row by row, so that the cuts of an epoch do not matter.
        rows = np.concatenate([self.totals[None], losses.cpu().numpy()])
        self.totals[:] = np.cumsum(rows, axis=0)[-1]


def _nothing() -> tuple[Tensor, float]:
    """Stand in for the evaluation of the objective, since the gradients are set already."""
    return torch.empty(0), 1.0


def _reordered(tensors: dict[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    """Return a state with each tensor like the parameters in another order."""
    return {name: each[order] if each.dim() else each for name, each in tensors.items()}


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


class _Hidden(NamedTuple):
    """A hidden layer with its intermediate results for a number of rows."""

    #: (units, inputs + 1), the biases in the last column.
    weights: Tensor
    activation: tuple[Activate, Derive] | None
    #: (units + 1, rows): what goes into the next layer, with ones in the last row; transposed too.
    results: Tensor
    transposed: Tensor
    #: The first `units` rows of `results`, (units, rows).
    active: Tensor
    #: The sums of the layer, and its activations before dropout; both may be `active` itself.
    sums: Tensor
    raw: Tensor
    #: The slopes of the objective by the sums, (units, rows).
    slopes: Tensor
    #: The gradients of the weights, and the weights of the next layer transposed, without biases.
    gradient: Tensor
    next_weights: Tensor


class _Passes:
    """Prepares the passes of one shard, with its gradients and buffers."""

    def __init__(self, engine: Chunked, values: Tensor, gradients: Tensor) -> None:
        self.loss, self.layers, self.gradients = engine.loss, engine.layers, gradients
        shapes = [(layer.outputs, layer.inputs + 1) for layer in self.layers]
        self._weights, self._slopes = _views(values, shapes), _views(gradients, shapes)
        #: By the count of rows.
        self._hidden: dict[int, list[_Hidden]] = {}

    def calls(self, part: _Part, memory: _Memory) -> list[Call]:
        """Return the calls that set the gradients of some rows."""
        calls: list[Call] = []
        rows = part.x.shape[1]
        hidden = self._hidden.get(rows)
        if hidden is None:
            hidden = self._hidden[rows] = self._made(rows)
        x = part.x
        for layer, mask in zip(hidden, part.masks, strict=False):
            calls.append(partial(torch.mm, layer.weights, x, out=layer.sums))
            if layer.activation is not None:
                calls.append(layer.activation[0](layer.sums, layer.raw))
            if mask is not None:
                calls.append(partial(torch.mul, layer.raw, mask, out=layer.active))
            x = layer.results
        slopes = self._add_loss(calls, part, x, memory)
        self._add_backward(calls, part, hidden, slopes)
        return calls

    def _add_loss(self, calls: list[Call], part: _Part, x: Tensor, memory: _Memory) -> Tensor:
        """Return where the slopes of the objective by the outputs will be, (outputs, rows)."""
        loss, results, y, weights = self.loss, part.results, part.y, part.weights
        last, scale, divisor = self._weights[-1], memory.scale, memory.divisor
        slopes = torch.empty_like(results)
        if isinstance(loss, ErrorLoss):
            calls.append(partial(torch.addmm, y, last, x, beta=-scale, alpha=scale, out=results))
            if loss.is_squared:
                if weights is None:
                    return results  # its scale is that of the slopes
                calls.append(partial(torch.mul, results, weights, out=slopes))
                return slopes
            share = loss.factor / divisor
            calls.append(lambda: torch.mul(loss.bend(results.t().clone()).t(), share, out=slopes))
        elif isinstance(loss, CrossEntropy):
            calls.append(partial(torch.mm, last, x, out=results))
            calls.append(partial(torch.softmax, results, 0, out=slopes))
            calls.append(partial(torch.add, y, slopes, alpha=-scale, out=slopes))
        else:
            calls.append(partial(torch.mm, last, x, out=results))
            truth, row_weights = part.truth, None if weights is None else weights[0]
            calls.append(
                lambda: slopes.copy_(loss.slopes(results.t(), truth, divisor, row_weights).t())
            )
            return slopes
        if weights is not None:
            calls.append(partial(torch.mul, slopes, weights, out=slopes))
        return slopes

    def _add_backward(
        self, calls: list[Call], part: _Part, hidden: list[_Hidden], slopes: Tensor
    ) -> None:
        gradient = self._slopes[-1]
        for layer, mask in zip(reversed(hidden), reversed(part.masks[:-1]), strict=True):
            calls.append(partial(torch.mm, slopes, layer.transposed, out=gradient))
            calls.append(partial(torch.mm, layer.next_weights, slopes, out=layer.slopes))
            slopes, gradient = layer.slopes, layer.gradient
            if mask is not None:
                calls.append(partial(torch.mul, slopes, mask, out=slopes))
            if layer.activation is not None:
                calls.append(layer.activation[1](slopes, layer.sums, layer.raw))
        calls.append(partial(torch.mm, slopes, part.x.t(), out=gradient))

    def _made(self, rows: int) -> list[_Hidden]:
        made = []
        for place, layer in enumerate(self.layers[:-1]):
            results = self.gradients.new_ones(layer.outputs + 1, rows)
            active = results[:-1]
            # Only gelu needs its sums again, and only dropout changes activations that are needed.
            raw = torch.empty_like(active) if layer.dropout else active
            sums = torch.empty_like(active) if layer.activation == "gelu" else raw
            activation = ACTIVATIONS[layer.activation] if layer.activation else None
            made.append(
                _Hidden(
                    self._weights[place],
                    activation,
                    results,
                    results.t(),
                    active,
                    sums,
                    raw,
                    torch.empty_like(active),
                    self._slopes[place],
                    self._weights[place + 1][:, :-1].t(),
                )
            )
        return made


def _views(flat: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    parts = torch.split(flat, [rows * columns for rows, columns in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
