"""A graph as a module of torch, for training, and its parameters as one flat tensor.

Knows torch; nothing of data or training.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.architectures.base import Architecture
from models.nets.dropout import Dropout
from models.nets.graph import INPUT, MAX_OPERATIONS, Graph, Operation
from models.nets.numeric import bounds_of_bins

#: Rows that trees predict at a time, as each tree takes memory for each row.
TREE_ROWS = 256


class Trees(nn.Module):
    """Boosted oblivious trees, which the engine `boosting` grows; at first every leaf is zero."""

    def __init__(self, trees: int, depth: int, outputs: int) -> None:
        super().__init__()
        self.feature = nn.Parameter(torch.zeros(trees, depth), requires_grad=False)
        self.threshold = nn.Parameter(torch.zeros(trees, depth), requires_grad=False)
        self.leaves = nn.Parameter(torch.zeros(trees, 2**depth, outputs), requires_grad=False)
        self.start = nn.Parameter(torch.zeros(outputs), requires_grad=False)
        bits, first = 2 ** torch.arange(depth), torch.arange(trees) * 2**depth
        self.register_buffer("_bits", bits, persistent=False)
        self.register_buffer("_first", first, persistent=False)

    _bits: Tensor
    _first: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(rows, inputs) to (rows, outputs)."""
        parts = [self._part(part) for part in torch.split(x, TREE_ROWS)]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _part(self, x: Tensor) -> Tensor:
        gone = x.float()[:, self.feature.long()] > self.threshold.float()
        found = (gone * self._bits).sum(2) + self._first
        return self.leaves.flatten(0, 1)[found].sum(1) + self.start


class PiecewiseLinear(nn.Module):
    """The rows beside a small map of the piecewise-linear code of each number in them.

    After Gorishniy, Rubachev and Babenko, "On Embeddings for Numerical Features in Tabular Deep
    Learning" (2022). `fit` sets the places and the knots, which are not trained.
    """

    def __init__(self, numbers: int, bins: int, size: int) -> None:
        super().__init__()
        self.bins = bins
        self.place = nn.Parameter(torch.zeros(numbers), requires_grad=False)
        self.knots = nn.Parameter(torch.zeros(numbers, bins + 1), requires_grad=False)
        most = bins**-0.5  # as in a linear layer that reads the code
        self.weight = nn.Parameter(torch.empty(numbers, bins, size).uniform_(-most, most))
        self.bias = nn.Parameter(torch.empty(numbers, size).uniform_(-most, most))
        least, largest = map(torch.from_numpy, bounds_of_bins(bins))
        self.register_buffer("_least", least, persistent=False)
        self.register_buffer("_largest", largest, persistent=False)

    _least: Tensor
    _largest: Tensor

    def fit(self, place: NDArray[Any], knots: NDArray[Any]) -> None:
        """Set the places of the numbers, (numbers,), and their knots, (numbers, bins + 1)."""
        self.place.copy_(torch.from_numpy(place))
        self.knots.copy_(torch.from_numpy(knots))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, width) to (rows, width + numbers · size)."""
        widths = self.knots.diff()
        per_width = torch.where(widths > 0, 1 / widths, 0)
        code = (x[:, self.place.long()][:, :, None] - self.knots[:, :-1]) * per_width
        code = torch.minimum(torch.maximum(code, self._least), self._largest)
        bent = torch.einsum("rnb,nbs->rns", code, self.weight) + self.bias
        return torch.cat([x, bent.relu().flatten(1)], 1)


class Mix(nn.Module):
    """The weighted sum of several values."""

    def __init__(self, members: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((members,), 1 / members))

    def forward(self, *values: Tensor) -> Tensor:
        """(rows, width) each to (rows, width)."""
        found: Tensor = torch.tensordot(self.weight, torch.stack(values), 1)
        return found


class MixClasses(Mix):
    """The logarithm of the weighted sum of several values' softmax."""

    def forward(self, *values: Tensor) -> Tensor:
        """(rows, classes) each to (rows, classes)."""
        logs = torch.stack(values).log_softmax(2)
        return torch.logsumexp(logs + self.weight.log()[:, None, None], 0)


#: the module of each kind that has one, from the width of its inputs and the operation
MODULES: dict[str, Callable[[int, Operation], nn.Module]] = {
    "linear": lambda width, each: nn.Linear(width, int(each.attributes["units"])),
    "relu": lambda _width, _each: nn.ReLU(),
    "sigmoid": lambda _width, _each: nn.Sigmoid(),
    "tanh": lambda _width, _each: nn.Tanh(),
    "gelu": lambda _width, _each: nn.GELU(),
    "trees": lambda _width, each: Trees(
        *(int(each.attributes[name]) for name in ("trees", "depth", "outputs"))
    ),
    "piecewise_linear": lambda _width, each: PiecewiseLinear(
        *(int(each.attributes[name]) for name in ("numbers", "bins", "size"))
    ),
    "mix": lambda _width, each: Mix(len(each.inputs)),
    "mix_classes": lambda _width, each: MixClasses(len(each.inputs)),
}
#: Held while a net draws from torch's global generator, as another thread may build one.
SEEDING = threading.Lock()
#: the function of each kind with two inputs
PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"add": torch.add, "multiply": torch.mul}


def build(model: Architecture, inputs: int, outputs: int, seed: int) -> nn.Module:
    """Return the net with its initial parameters, a pure function of the arguments."""
    return build_graph(model.graph(inputs, outputs), seed)


def build_graph(graph: Graph, seed: int = 0) -> nn.Module:
    """Return a net with PyTorch's initial parameters, named as in the graph.

    A chain becomes a `Sequential`. The global random generator is left as it was.
    """
    with SEEDING, torch.random.fork_rng(devices=[]):
        # Only the CPU's generator draws; `torch.manual_seed` would spend milliseconds on GPUs.
        torch.default_generator.manual_seed(seed)
        modules: dict[str, nn.Module] = {}
        linear, taken = 0, set[int]()
        for place, each in enumerate(graph.operations):
            linear += each.kind == "linear"
            if each.kind == "dropout":
                # Masks are by the number of the linear layer before; others have their own.
                number = max(0, linear - 1)
                number = MAX_OPERATIONS + place if number in taken else number
                taken.add(number)
                modules[each.output] = Dropout(float(each.attributes["share"]), number)
            elif each.kind in MODULES:
                modules[each.output] = MODULES[each.kind](graph.widths[each.inputs[0]], each)
    if graph.is_chain:
        return nn.Sequential(OrderedDict(modules))
    return GraphModule(graph, modules)


class GraphModule(nn.Module):
    """A net that branches."""

    def __init__(self, graph: Graph, modules: dict[str, nn.Module]) -> None:
        super().__init__()
        self._steps = [(each, graph.last_reads[at]) for at, each in enumerate(graph.operations)]
        for name, module in modules.items():
            self.add_module(name, module)
        self._runs: dict[str, Callable[..., Tensor]] = {
            each.output: modules.get(each.output) or PAIRS[each.kind] for each in graph.operations
        }

    def forward(self, x: Tensor) -> Tensor:
        """(rows, inputs) to (rows, outputs)."""
        values = {INPUT: x}
        found = x
        for each, last in self._steps:
            found = self._runs[each.output](*(values[name] for name in each.inputs))
            values[each.output] = found
            for name in last:
                del values[name]
        return found


@dataclass(frozen=True)
class Flat:
    """All parameters of a net in one tensor, and their gradients in another, (parameters,) each.

    The net's own parameters are views of it. So an optimizer step, a copy of the best parameters
    or a check for NaN is one operation for any number of layers. Parameters that are not trained,
    such as knots, lie behind the others.
    """

    values: Tensor
    gradients: Tensor
    shapes: dict[str, torch.Size]
    #: how many of the parameters, from the first on, are trained by their gradients
    trained: int

    def of_optimizer(self) -> "Flat":
        """Return the part whose gradients an optimizer follows."""
        return replace(
            self, values=self.values[: self.trained], gradients=self.gradients[: self.trained]
        )

    def named(self, values: Tensor) -> dict[str, Tensor]:
        """View a tensor like `values` as the net's parameters by name."""
        parts = torch.split(values, [shape.numel() for shape in self.shapes.values()])
        pairs = zip(self.shapes.items(), parts, strict=True)
        return {name: part.view(shape) for (name, shape), part in pairs}


def flatten(net: nn.Module, device: torch.device) -> Flat:
    """Move a net's parameters into one flat tensor on the device."""
    net.to(device)
    named = sorted(net.named_parameters(), key=lambda pair: not pair[1].requires_grad)  # stable
    shapes = {name: parameter.shape for name, parameter in named}
    values = torch.cat([parameter.detach().flatten() for _, parameter in named])
    trained = sum(parameter.numel() for _, parameter in named if parameter.requires_grad)
    flat = Flat(values, torch.zeros_like(values), shapes, trained)
    views, gradients = flat.named(flat.values), flat.named(flat.gradients)
    for name, parameter in net.named_parameters():
        parameter.data = views[name]
        parameter.grad = gradients[name]
    return flat


def keep_to_one_thread() -> None:
    """Use one thread of torch, so that other processes keep the other processors."""
    torch.set_num_threads(1)
