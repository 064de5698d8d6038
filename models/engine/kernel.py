"""The compiled engine: dense stacks up to some hundred units wide, on processors that it knows.

Its source is `compiled/`, written for small nets, whose steps take PyTorch longer to call than to
compute. It gives the same bits on every processor. Where its library is not built, other engines
do its work.
"""

import ctypes
import math
import time
import weakref
from collections.abc import Callable
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_uint32,
    c_uint64,
)
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from descent.spec import Adam, AdamW, Lbfgs, OptimizerSpec, RmsProp, Sgd
from models.data import Floats, Integers
from models.engine import LIBRARY, MOST_LAYERS, suits_kernel
from models.engine.engine import Engine, Setup
from models.engine.examples import Examples
from models.engine.losses import (
    CrossEntropy,
    Huber,
    Loss,
    MeanAbsolute,
    MeanSquared,
    SumSquared,
)
from models.engine.optimizers import BETAS, EPSILON, RMSPROP_DECAY
from models.nets.graph import DenseLayer

#: Of the interface in compiled/plan.h.
VERSION = 1
MOST_THREADS = 64
MOST_SHARDS = 8
#: The least rows of a shard, and multiplications of its forward pass: with fewer, the additions of
#: the shards' gradients and the meetings of threads take more than 3 % of a step.
SHARD_ROWS = 64
SHARD_WORK = 150_000

ACTIVATIONS = {None: 0, "relu": 1, "sigmoid": 2, "tanh": 3, "gelu": 4}
LOSSES: dict[type[Loss], int] = {
    MeanSquared: 0,
    SumSquared: 1,
    MeanAbsolute: 2,
    Huber: 3,
    CrossEntropy: 4,
}
OPTIMIZERS: dict[type[Any], int] = {Sgd: 0, Adam: 1, AdamW: 2, RmsProp: 3}
#: The vectors of a state by their names in checkpoints.
VALUES = 0
PARTS = {"velocity": 1, "mean": 2, "square": 3}
#: What the library's codes mean.
FAULTS = {
    -1: "the kernel cannot run this plan",
    -3: "the kernel was called with arrays of a wrong size",
    -4: "the order names a row that the table does not have",
    -5: "a class is not among the outputs of the net",
    -6: "the kernel does not know this processor",
}


class _Layer(Structure):
    _fields_ = (
        ("inputs", c_int32),
        ("outputs", c_int32),
        ("activation", c_int32),
        ("drop_below", c_uint32),
        ("keep_scale", c_float),
    )


class _Plan(Structure):
    _fields_ = (
        ("version", c_int32),
        ("layers", c_int32),
        ("loss", c_int32),
        ("optimizer", c_int32),
        ("batch", c_int32),
        ("shards", c_int32),
        ("nesterov", c_int32),
        ("build", c_int32),
        ("momentum", c_float),
        ("decay", c_float),
        ("mean_decay", c_double),
        ("square_decay", c_double),
        ("epsilon", c_double),
        ("seed", c_uint64),
        ("layer", _Layer * MOST_LAYERS),
    )


class _Rows(Structure):
    _fields_ = (
        ("x", ctypes.c_void_p),
        ("truth", ctypes.c_void_p),
        ("classes", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("rows", c_int64),
        ("width", c_int64),
        ("targets", c_int64),
        ("x_count", c_int64),
        ("truth_count", c_int64),
        ("classes_count", c_int64),
        ("weights_count", c_int64),
    )


class _Call(Structure):
    _fields_ = (
        ("rows", _Rows),
        ("order", ctypes.c_void_p),
        ("places", c_int64),
        ("first", c_int64),
        ("count", c_int64),
        ("step", c_int64),
        ("updates", c_int64),
        ("rate", c_double),
        ("seconds", c_double),
        ("threads", c_int32),
    )


class Kernel(Engine):
    """Dense stacks with every loss and every optimizer but L-BFGS, on the CPU."""

    name = "kernel"

    def __init__(self, setup: Setup, *, narrow: bool = False) -> None:
        """Take the parameters from `setup.flat`; `narrow` leaves the widest vectors unused."""
        super().__init__(setup)
        library = load_library()
        if library is None or setup.layers is None:
            raise ValueError("the kernel needs its library and a dense stack")
        self._library = library
        self.shards = count_shards(setup.layers, setup.batch)
        self._plan = _plan(setup, setup.layers, self.shards, narrow=narrow)
        self._uses = [PARTS[name] for name in _state_names(setup.optimizer)]
        self._has_steps = isinstance(setup.optimizer, Adam | AdamW)
        #: Updates that the optimizer has made, earlier attempts included.
        self._updates = 0
        self._call = _Call()
        self._rows: Examples | None = None
        self._order: Integers | None = None
        self._totals: Floats | None = None
        deltas = _deltas(setup.loss)
        handle = ctypes.c_void_p()
        address = None if deltas is None else deltas.ctypes.data
        count = 0 if deltas is None else len(deltas)
        self._check(library.descent_open(byref(self._plan), address, count, byref(handle)))
        self._handle = handle
        self._close = weakref.finalize(self, library.descent_close, handle)
        self.push()

    @staticmethod
    def covers(setup: Setup) -> bool:
        """Return whether this engine can do the training, and does it faster than the others."""
        layers = setup.layers
        return (
            layers is not None
            and setup.device.type == "cpu"
            and suits_kernel(layers)
            and type(setup.loss) in LOSSES
            and not isinstance(setup.optimizer, Lbfgs)
            and is_there()
        )

    def advance(
        self,
        rows: Examples,
        order: Integers | None,
        first: int,
        count: int,
        rate: float,
        until: float,
    ) -> int:
        call = self._call
        if rows is not self._rows:
            call.rows, self._rows = _rows(rows), rows
        if order is not self._order or order is None:
            self._take_order(rows, order)
        if self.totals is not self._totals:
            self._totals, self._sums = self.totals, self.totals.ctypes.data
        call.first, call.count, call.rate = first, count, rate
        call.step, call.updates = self.step, self._updates
        call.seconds = math.inf if until == math.inf else until - time.monotonic()
        call.threads = min(self.threads, MOST_THREADS)
        done = self._check(
            self._library.descent_advance(self._handle, byref(call), self._sums, self.loss.width)
        )
        self.step += done
        self._updates += done
        return done

    def pull(self) -> None:
        self._copy(self._library.descent_pull, VALUES, self.flat.values)

    def push(self) -> None:
        self._copy(self._library.descent_push, VALUES, self.flat.values)

    def tensors(self) -> dict[str, Tensor]:
        tensors = {
            name: torch.empty_like(self.flat.values)
            for name, part in PARTS.items()
            if part in self._uses
        }
        for name, tensor in tensors.items():
            self._copy(self._library.descent_pull, PARTS[name], tensor)
        if self._has_steps:
            tensors["steps"] = torch.tensor(float(self._updates))
        return tensors

    def scalars(self) -> dict[str, Any]:
        return {}

    def load(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        del scalars
        for name, part in PARTS.items():
            if part in self._uses:
                self._copy(self._library.descent_push, part, tensors[name])
        if self._has_steps:
            self._updates = int(tensors["steps"])

    def evaluate(self, rows: Examples) -> tuple[Floats, int]:
        if len(rows) == 0:
            return np.zeros(self.loss.width), 0
        values, sums = self.flat.values, np.zeros(self.loss.width)
        hits = self._library.descent_measure(
            self._handle,
            values.data_ptr(),
            values.numel(),
            byref(_rows(rows)),
            min(self.threads, MOST_THREADS),
            sums.ctypes.data,
            len(sums),
        )
        return sums, self._check(hits)

    def close(self) -> None:
        self._close()

    def _take_order(self, rows: Examples, order: Integers | None) -> None:
        if order is None:
            self._call.order, self._call.places = None, len(rows)
        elif order.dtype != np.int64 or order.ndim != 1 or not order.flags.c_contiguous:
            raise ValueError(f"the order must be an array of int64, got {order.dtype}")
        else:
            self._call.order = order.__array_interface__["data"][0]  # faster than order.ctypes
            self._call.places = len(order)
        self._order = order

    def _copy(self, function: Callable[..., int], part: int, tensor: Tensor) -> None:
        tensor = _contiguous(tensor, torch.float32)
        self._check(function(self._handle, part, tensor.data_ptr(), tensor.numel()))

    def _check(self, result: int) -> int:
        """Return a count of the library, or raise what its code means."""
        if result >= 0:
            return result
        if result == -2:
            raise MemoryError("the machine has too little memory for the kernel")
        raise ValueError(FAULTS[result])


def is_there() -> bool:
    """Return whether the library is built, of this version, and runs on this processor."""
    return load_library() is not None


def name_build(*, narrow: bool = False) -> str | None:
    """Return which instructions the kernel uses: `avx512`, `avx2` or `neon`; None without it."""
    library = load_library()
    return None if library is None else library.descent_build(narrow).decode()


def count_shards(layers: tuple[DenseLayer, ...], batch: int) -> int:
    """Return into how many parts to cut a batch, a power of two."""
    work = batch * sum(layer.inputs * layer.outputs for layer in layers)
    most = min(MOST_SHARDS, batch // SHARD_ROWS, work // SHARD_WORK)
    return 1 << most.bit_length() - 1 if most else 1


@cache
def load_library() -> ctypes.CDLL | None:
    """Return the library, or None."""
    if not LIBRARY.exists():
        return None
    library = ctypes.CDLL(str(LIBRARY))
    sizes = ctypes.sizeof(_Plan) << 16 | ctypes.sizeof(_Call)
    library.descent_sizes.restype = c_int64
    library.descent_build.restype = ctypes.c_char_p
    if library.descent_version() != VERSION or library.descent_sizes() != sizes:
        return None
    pointer = ctypes.c_void_p
    arguments: dict[str, tuple[Any, ...]] = {
        "open": (POINTER(_Plan), pointer, c_int64, POINTER(pointer)),
        "close": (pointer,),
        "push": (pointer, c_int32, pointer, c_int64),
        "pull": (pointer, c_int32, pointer, c_int64),
        "advance": (pointer, POINTER(_Call), pointer, c_int64),
        "measure": (pointer, pointer, c_int64, POINTER(_Rows), c_int32, pointer, c_int64),
    }
    for name, types in arguments.items():
        function = getattr(library, f"descent_{name}")
        function.argtypes = types
        function.restype = c_int64 if name in {"advance", "measure"} else c_int32
    return None if library.descent_build(0) == b"none" else library


def _plan(setup: Setup, layers: tuple[DenseLayer, ...], shards: int, *, narrow: bool) -> _Plan:
    optimizer: Any = setup.optimizer
    plan = _Plan()
    plan.version, plan.layers, plan.loss = VERSION, len(layers), LOSSES[type(setup.loss)]
    plan.optimizer, plan.batch, plan.shards = OPTIMIZERS[type(optimizer)], setup.batch, shards
    plan.nesterov, plan.build = getattr(optimizer, "nesterov", False), narrow
    plan.momentum, plan.decay = getattr(optimizer, "momentum", 0.0), optimizer.weight_decay
    plan.mean_decay, plan.epsilon = BETAS[0], EPSILON
    plan.square_decay = RMSPROP_DECAY if isinstance(optimizer, RmsProp) else BETAS[1]
    plan.seed = setup.seed
    for place, layer in enumerate(layers):
        drop_below, keep_scale = int(layer.dropout * 2**32), 1 / (1 - layer.dropout)
        act = ACTIVATIONS[layer.activation]
        plan.layer[place] = _Layer(layer.inputs, layer.outputs, act, drop_below, keep_scale)
    return plan


def _state_names(optimizer: OptimizerSpec) -> list[str]:
    """Return the names of the optimizer's vectors."""
    if isinstance(optimizer, Adam | AdamW):
        return ["mean", "square"]
    names = ["square"] if isinstance(optimizer, RmsProp) else []
    return [*names, "velocity"] if getattr(optimizer, "momentum", 0.0) else names


def _deltas(loss: Loss) -> NDArray[np.float32] | None:
    return loss.delta.numpy() if isinstance(loss, Huber) else None


def _rows(rows: Examples) -> _Rows:
    x, truth, weights = _contiguous(rows.x, torch.float32), rows.truth, rows.weights
    found = _Rows(x=x.data_ptr(), rows=x.shape[0], width=x.shape[1], x_count=x.numel())
    if truth.dtype == torch.int64:
        found.classes = _contiguous(truth, torch.int64).data_ptr()
        found.classes_count = truth.numel()
    else:
        found.truth = _contiguous(truth, torch.float32).data_ptr()
        found.truth_count, found.targets = truth.numel(), truth.shape[1]
    if weights is not None:
        found.weights = _contiguous(weights, torch.float32).data_ptr()
        found.weights_count = weights.numel()
    return found


def _contiguous(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the tensor if the library can read its memory; raise otherwise."""
    if tensor.dtype != dtype or tensor.device.type != "cpu" or not tensor.is_contiguous():
        raise ValueError(f"the kernel needs contiguous {dtype} on the CPU, got {tensor.dtype}")
    return tensor
