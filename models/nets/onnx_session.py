"""A wide net computed by onnxruntime, which is faster than NumPy for many rows.

The gain depends on the processor: it is half of the time if NumPy's library does not use the
widest vectors. For few rows and narrow nets NumPy is as fast; the bounds below were measured with
`benchmarks/numpy_or_onnxruntime.py`. The results differ by some units in the last place of float32.
"""

from threading import Lock

import numpy as np
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

from models.nets.stack import Activations, Stack

WIDE = 200_000  # learned numbers; for a smaller net it saves at most a tenth of a prediction
MANY = 32  # rows
BLOCK = 1024  # rows at a time; more rows take memory for activations and save nothing
#: A net is computed here only if no sum in it can overflow for rows up to this size, because each
#: library treats infinite numbers differently.
REACH = 1e6
LIMIT = 1e30
OPSET = 18
ONES = {"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}


class OnnxSession:
    """The onnxruntime session of a stack, made at its first use. Any thread may use it."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._is_fit = is_fit(stack)
        self._lock = Lock()
        self._made: onnxruntime.InferenceSession | None = None

    @property
    def bytes(self) -> int:
        """Bytes of memory beside the stack: the weights, and a copy in the session's order."""
        return 8 * self._stack.parameters if self._is_fit else 0

    def forward(self, x: Activations) -> Activations | None:
        """(rows, inputs) to (rows, outputs); None if the stack itself must compute these rows."""
        if not self._is_fit or len(x) < MANY or not np.abs(x).max() <= REACH:
            return None
        with self._lock:
            if self._made is None:
                self._made = made(self._stack)
        blocks = [x[start : start + BLOCK] for start in range(0, len(x), BLOCK)]
        return np.concatenate([self._made.run(None, {"x": block})[0] for block in blocks])


def is_fit(stack: Stack) -> bool:
    """Return whether a stack is wide enough and cannot overflow."""
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
    """Return the session of a stack, with the input `x` and the output `y`."""
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
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # each request has a thread
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # they never free memory
    content: bytes = model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
