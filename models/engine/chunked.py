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
from models.engine.engine import Setup, TorchEngine, is_late
from models.engine.examples import Examples
from models.engine.losses import CrossEntropy, ErrorLoss
from models.engine.optimizers import make_optimizer
from models.nets.dropout import is_kept
from models.nets.graph import DenseLayer
from models.nets.module import Flat

CHUNK_NUMBERS = 2**18  # numbers of a chunk, unless one batch has more
aten = torch.ops.aten

#: Computes the activations of the sums of a layer, both (units, rows); they may be one tensor.
Activate: TypeAlias = Callable[[Tensor, Tensor], Tensor]
#: Multiplies slopes by the derivative; its arguments: slopes, sums, activations, the result.
Derive: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

ACTIVATIONS: dict[str, tuple[Activate, Derive]] = {
    "relu": (
        lambda z, _: torch.relu_(z),
        lambda d, _, a, out: aten.threshold_backward.grad_input(d, a, 0, grad_input=out),
    ),
    "sigmoid": (
        lambda z, _: torch.sigmoid_(z),
        lambda d, _, a, out: aten.sigmoid_backward.grad_input(d, a, grad_input=out),
    ),
    "tanh": (
        lambda z, _: torch.tanh_(z),
        lambda d, _, a, out: aten.tanh_backward.grad_input(d, a, grad_input=out),
    ),
    "gelu": (
        lambda z, out: aten.gelu.out(z, out=out),
        lambda d, z, _, out: aten.gelu_backward.grad_input(d, z, grad_input=out),
    ),
}


class _Part(NamedTuple):
    """Gathered rows, feature by feature."""

    #: (inputs + 1, rows); the last row holds ones.
    x: Tensor
    #: `x` transposed.
    rows: Tensor
    #: Of numbers (targets, rows), of classes one-hot (classes, rows).
    y: Tensor
    #: What comes out of the last layer: for numbers their errors, otherwise the outputs.
    results: Tensor
    #: As in `Examples`.
    truth: Tensor
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
                torch.split(self.rows, size),
                torch.split(self.y, size, 1),
                torch.split(self.results, size, 1),
                torch.split(self.truth, size),
                nothing if self.weights is None else torch.split(self.weights, size),
                zip(*masks, strict=True),
                strict=True,
            )
        ]


@dataclass(frozen=True)
class _Chunk:
    """Neighbouring batches, each cut into the parts of its shards."""

    whole: _Part
    batches: list[list[_Part]]


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
        self._has_dropout = any(layer.dropout for layer in self.layers)
        numbers = sum(layer.outputs for layer in self.layers if layer.dropout)
        numbers += self.layers[0].inputs + 1
        #: Batches of a chunk.
        self._per_chunk = max(1, CHUNK_NUMBERS // (self.batch * numbers))
        self._held: tuple[Examples, Integers | None, Any, _Chunk] | None = None

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
                self._step(chunk.batches[place], rate)
                if is_over := is_late(until):
                    break
            self._add_up(chunk.whole, begin, place + 1)
            done += place + 1 - begin
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

    def _chunk(self, rows: Examples, order: Integers | None, number: int, batch: int) -> _Chunk:
        """Return the chunk of this number; it is kept, as the next piece mostly needs it again."""
        step = self.step - (batch - number * self._per_chunk)  # of the chunk's first batch
        # Only masks depend on the step: rows as they lie are laid out once for all epochs.
        place = number, step if self._has_dropout else None
        held = self._held
        if held is None or held[0] is not rows or held[1] is not order or held[2] != place:
            self._held = held = None  # frees the memory of the chunk before
            size = self._per_chunk * self.batch
            taken = slice(number * size, (number + 1) * size)
            if order is None:
                found = rows.part(taken)
            else:
                found = rows.at(torch.from_numpy(order[taken]).to(rows.x.device))
            self._held = held = rows, order, place, self._laid_out(found, step)
        return held[3]

    def _laid_out(self, rows: Examples, step: int) -> _Chunk:
        x = rows.x.new_empty(self.layers[0].inputs + 1, len(rows))
        x[:-1].copy_(rows.x.t())
        x[-1] = 1
        outputs = self.layers[-1].outputs
        if rows.truth.dtype == torch.int64:
            y = x.new_zeros(outputs, len(rows)).scatter_(0, rows.truth[None], 1.0)
        else:
            y = rows.truth.t().contiguous()
        masks = tuple(
            self._mask(number, layer, len(rows), step) if layer.dropout else None
            for number, layer in enumerate(self.layers)
        )
        whole = _Part(x, x.t(), y, torch.empty_like(y), rows.truth, rows.weights, masks)
        batches = whole.cut(self.batch)
        if self.shards == 1:
            return _Chunk(whole, [[batch] for batch in batches])
        return _Chunk(whole, [batch.cut(self.capacity) for batch in batches])

    def _mask(self, number: int, layer: DenseLayer, rows: int, step: int) -> Tensor:
        steps = range(step, step - (-rows // self.batch))
        batch = range(min(rows, self.batch))
        kept = is_kept(self.seed, steps, number, batch, layer.outputs, layer.dropout)
        # The rows of the last batch may be fewer.
        kept = kept.reshape(layer.outputs, -1)[:, :rows]
        mask = torch.from_numpy(kept.astype(np.float32)).to(self.flat.values.device)
        return mask.mul_(1 / (1 - layer.dropout))

    def _step(self, parts: list[_Part], rate: float) -> None:
        if self.shards == 1:
            self._shards[0].differentiate(parts[0], self.loss.divisor(parts[0].x.shape[1]))
        else:
            self._step_in_shards(parts)
        self.optimizer.update(rate, _nothing)
        self.step += 1

    def _step_in_shards(self, parts: list[_Part]) -> None:
        divisor = self.loss.divisor(sum(part.x.shape[1] for part in parts))

        def compute(number: int) -> None:
            if number < len(parts):
                self._shards[number].differentiate(parts[number], divisor)

        self.each_shard(compute)
        for shard in self._shards[1 : len(parts)]:
            self._own.gradients.add_(shard.gradients)

    def _add_up(self, chunk: _Part, begin: int, end: int) -> None:
        """Add the losses of these batches of the chunk to the totals."""
        taken = slice(begin * self.batch, end * self.batch)
        results = chunk.results[:, taken]
        if isinstance(self.loss, ErrorLoss):
            each = self.loss.of_errors(results.t())
        elif isinstance(self.loss, CrossEntropy):
            # As `each`, which takes several times as long on rows of a few classes.
            likely = (results * chunk.y[:, taken]).sum(0)
            each = (torch.logsumexp(results, 0) - likely)[:, None]
        else:
            each = self.loss.each(results.t(), chunk.truth[taken])
        losses = each.double()
        if chunk.weights is not None:
            losses = losses * chunk.weights[taken, None]
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
    activate: Activate | None
    derive: Derive | None
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


class _Shard:
    """The passes of one shard, with its gradients and buffers."""

    def __init__(self, engine: Chunked, values: Tensor, gradients: Tensor) -> None:
        self.loss, self.layers, self.gradients = engine.loss, engine.layers, gradients
        shapes = [(layer.outputs, layer.inputs + 1) for layer in self.layers]
        self._weights, self._slopes = _views(values, shapes), _views(gradients, shapes)
        #: By the count of rows: an epoch has two, the usual size and that of the last batch.
        self._hidden: dict[int, list[_Hidden]] = {}
        loss = engine.loss
        self._is_squared = isinstance(loss, ErrorLoss) and loss.factor == 2.0

    def differentiate(self, part: _Part, divisor: float) -> None:
        """Set the gradients of some rows."""
        rows = part.x.shape[1]
        hidden = self._hidden.get(rows)
        if hidden is None:
            hidden = self._hidden[rows] = self._made(rows)
        x = part.x
        for layer, mask in zip(hidden, part.masks, strict=False):
            torch.mm(layer.weights, x, out=layer.sums)
            if layer.activate is not None:
                layer.activate(layer.sums, layer.raw)
            if mask is not None:
                torch.mul(layer.raw, mask, out=layer.active)
            x = layer.results
        slopes, share = self._differentiate_loss(part, x, divisor)
        self._backward(part, hidden, slopes, share)

    def _differentiate_loss(self, part: _Part, x: Tensor, divisor: float) -> tuple[Tensor, float]:
        """Return slopes (outputs, rows) and the factor that makes them those of the objective."""
        loss, results, weights = self.loss, part.results, part.weights
        if isinstance(loss, ErrorLoss):
            torch.addmm(part.y, self._weights[-1], x, beta=-1, out=results)
            # The errors are needed again, so losses that change them get a copy.
            slopes = results if self._is_squared else loss.bend(results.t().clone()).t()
            share = loss.factor / divisor
        else:
            torch.mm(self._weights[-1], x, out=results)
            if not isinstance(loss, CrossEntropy):
                return loss.slopes(results.t(), part.truth, divisor, weights).t(), 1.0
            slopes = torch.softmax(results, 0).sub_(part.y)
            share = 1 / divisor
        return (slopes if weights is None else slopes * weights), share

    def _backward(self, part: _Part, hidden: list[_Hidden], slopes: Tensor, share: float) -> None:
        gradient = self._slopes[-1]
        for layer, mask in zip(reversed(hidden), reversed(part.masks[:-1]), strict=True):
            _multiply(slopes, layer.transposed, share, gradient)
            _multiply(layer.next_weights, slopes, share, layer.slopes)
            slopes, share, gradient = layer.slopes, 1.0, layer.gradient
            if mask is not None:
                slopes.mul_(mask)
            if layer.derive is not None:
                layer.derive(slopes, layer.sums, layer.raw, slopes)
        _multiply(slopes, part.rows, share, gradient)

    def _made(self, rows: int) -> list[_Hidden]:
        made = []
        for place, layer in enumerate(self.layers[:-1]):
            results = self.gradients.new_ones(layer.outputs + 1, rows)
            active = results[:-1]
            # Only gelu needs its sums again, and only dropout changes activations that are needed.
            raw = torch.empty_like(active) if layer.dropout else active
            sums = torch.empty_like(active) if layer.activation == "gelu" else raw
            activate, derive = ACTIVATIONS[layer.activation] if layer.activation else (None, None)
            made.append(
                _Hidden(
                    self._weights[place],
                    activate,
                    derive,
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


def _multiply(a: Tensor, b: Tensor, share: float, out: Tensor) -> None:
    """Write `share` times the product of two matrices into `out`."""
    if share == 1.0:
        torch.mm(a, b, out=out)
    else:
        torch.addmm(out, a, b, beta=0, alpha=share, out=out)


def _views(flat: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    parts = torch.split(flat, [rows * columns for rows, columns in shapes])
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
