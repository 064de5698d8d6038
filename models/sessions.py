"""A net of wide layers computed by onnxruntime, which for many rows takes less time than NumPy.

How much less is the processor's business: half where NumPy's library does not know its widest
vectors. For few rows, and for narrow nets, NumPy is as fast; `benchmarks/numpy_or_onnxruntime.py`
tells by which numbers. Both round differently, by some units in the last place of float32.
"""

from threading import Lock

import numpy as np
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from models.forward import Activations, Stack

WIDE = 200_000  # numbers that were learned; of a narrower net's predictions it saves a tenth
MANY = 32  # rows
BLOCK = 1024  # rows at a time: more save nothing, and their activations take memory
#: A net is computed here only if no sum in it can overflow for rows up to this size: what then
#: becomes of infinite numbers is a matter of its own in each library.
REACH = 1e6
LIMIT = 1e30
OPSET = 18
ONES = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}


class Session:
    """The net of one stack, made when it is first asked for. To be used by any thread."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._is_fit = is_fit(stack)
        self._lock = Lock()
        self._made: onnxruntime.InferenceSession | None = None

    @property
    def bytes(self) -> int:
        """How much memory it takes beside the stack: the weights, and once more in its order."""
        return 8 * self._stack.parameters if self._is_fit else 0

    def forward(self, x: Activations) -> Activations | None:
        """(rows, inputs) to (rows, outputs), or None where the stack is to be asked itself."""
        if not self._is_fit or len(x) < MANY or not np.abs(x).max() <= REACH:
            return None
        with self._lock:
            if self._made is None:
                self._made = made(self._stack)
        blocks = [x[start : start + BLOCK] for start in range(0, len(x), BLOCK)]
        return np.concatenate([self._made.run(None, {"x": block})[0] for block in blocks])


def is_fit(stack: Stack) -> bool:
    """Return whether a stack is wide enough, and its numbers are small enough."""
    names = {layer for layer in stack.layers if isinstance(layer, str)}
    if stack.parameters < WIDE or not names <= ONES.keys():
        return False
    largest = REACH
    for layer in stack.layers:
        if not isinstance(layer, str):
            weight, bias = (np.abs(each.astype(np.float64)) for each in layer)
            largest = float((weight.sum(axis=1) * largest + bias).max())
    return largest < LIMIT


def made(stack: Stack) -> onnxruntime.InferenceSession:
    """Return the session of a stack: its input is `x`, its output `y`."""
    nodes: list[NodeProto] = []
    constants: list[TensorProto] = []
    at = "x"
    for place, layer in enumerate(stack.layers):
        out = "y" if place == len(stack.layers) - 1 else f"{place}"
        if isinstance(layer, str):
            nodes.append(helper.make_node(ONES[layer], [at], [out]))
        else:
            names = [f"{place}.weight", f"{place}.bias"]
            constants += map(numpy_helper.from_array, layer, names)
            nodes.append(helper.make_node("Gemm", [at, *names], [out], transB=1))
        at = out
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, stack.inputs])
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, stack.outputs])
    model = helper.make_model(
        helper.make_graph(nodes, "net", [given], [wanted], constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=8,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # requests are the threads
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # would keep what it took
    content: bytes = model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
