"""A graph as a module of torch, for training, and its parameters as one flat tensor.

Knows torch; nothing of data or training.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.architectures.base import Architecture
from models.nets.dropout import Dropout
from models.nets.graph import INPUT, MAX_OPERATIONS, Graph, Operation

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
    or a check for NaN is one operation for any number of layers.
    """

    values: Tensor
    gradients: Tensor
    shapes: dict[str, torch.Size]

    def named(self, values: Tensor) -> dict[str, Tensor]:
        """View a tensor like `values` as the net's parameters by name."""
        parts = torch.split(values, [shape.numel() for shape in self.shapes.values()])
        pairs = zip(self.shapes.items(), parts, strict=True)
        return {name: part.view(shape) for (name, shape), part in pairs}


def flatten(net: nn.Module, device: torch.device) -> Flat:
    """Move a net's parameters into one flat tensor on the device."""
    net.to(device)
    shapes = {name: parameter.shape for name, parameter in net.named_parameters()}
    values = torch.cat([parameter.detach().flatten() for parameter in net.parameters()])
    flat = Flat(values, torch.zeros_like(values), shapes)
    views, gradients = flat.named(flat.values), flat.named(flat.gradients)
    for name, parameter in net.named_parameters():
        parameter.data = views[name]
        parameter.grad = gradients[name]
    return flat


def keep_to_one_thread() -> None:
    """Use one thread of torch, so that other processes keep the other processors."""
    torch.set_num_threads(1)
