"""A net as a session of onnxruntime, which is faster than NumPy for wide nets and many rows."""

from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from models.nets.graph import INPUT
from models.nets.numeric import Activations, Net
from models.nets.onnx_nodes import IR_VERSION, OPSET, Nodes, add_net

WIDE = 200_000  # learned numbers; for a smaller net it saves at most a tenth of a prediction
MANY = 32  # rows
BLOCK = 1024  # rows at a time; more rows take memory for activations and save nothing
#: A net is computed here only if no sum in it can overflow for rows up to this size, because each
#: library treats infinite numbers differently.
REACH = 1e6
LIMIT = 1e30


class OnnxSession:
    """The onnxruntime session of a net, made at its first use. Any thread may use it."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._is_fit = is_fit(net)
        self._lock = Lock()
        self._made: onnxruntime.InferenceSession | None = None

    @property
    def bytes(self) -> int:
        """Bytes of memory beside the net: the weights, and a copy in the session's order."""
        return 8 * self._net.graph.parameters if self._is_fit else 0

    def forward(self, x: Activations) -> Activations | None:
        """(rows, inputs) to (rows, outputs); None if NumPy must compute these rows."""
        if not self._is_fit or len(x) < MANY or not np.abs(x).max() <= REACH:
            return None
        with self._lock:
            if self._made is None:
                self._made = made(self._net)
        blocks = [x[start : start + BLOCK] for start in range(0, len(x), BLOCK)]
        return np.concatenate([self._made.run(None, {"x": block})[0] for block in blocks])


def is_fit(net: Net) -> bool:
    """Return whether a net is wide enough and cannot overflow."""
    if net.graph.parameters < WIDE:
        return False
    largest = {INPUT: REACH}
    for each in net.graph.operations:
        if each.kind not in LARGEST:
            return False
        inputs = [largest[name] for name in each.inputs]
        found = LARGEST[each.kind](inputs, net.parameters, each.output)
        if not found < LIMIT:
            return False
        largest[each.output] = found
    return True


Bound = Callable[[Sequence[float], Mapping[str, NDArray[Any]], str], float]


def _linear(inputs: Sequence[float], parameters: Mapping[str, NDArray[Any]], name: str) -> float:
    weight, bias = (
        np.abs(parameters[f"{name}.{part}"].astype(np.float64)) for part in ("weight", "bias")
    )
    return float((weight.sum(axis=1) * inputs[0] + bias).max())


def _piecewise_linear(
    inputs: Sequence[float], parameters: Mapping[str, NDArray[Any]], name: str
) -> float:
    knots, weight, bias = (
        np.abs(parameters[f"{name}.{part}"].astype(np.float64))
        for part in ("knots", "weight", "bias")
    )
    widths = np.diff(parameters[f"{name}.knots"].astype(np.float64))
    least = widths[widths > 0].min(initial=np.inf)
    part = max(1.0, (inputs[0] + knots.max()) / least)
    return max(inputs[0], float((part * weight.sum(axis=1) + bias).max()))


#: By kind, a bound of the results from bounds of the inputs. A kind that is missing is computed by
#: NumPy.
LARGEST: dict[str, Bound] = {
    "linear": _linear,
    "piecewise_linear": _piecewise_linear,
    "relu": lambda inputs, _parameters, _name: inputs[0],
    "sigmoid": lambda inputs, _parameters, _name: inputs[0],
    "tanh": lambda inputs, _parameters, _name: inputs[0],
    "dropout": lambda inputs, _parameters, _name: inputs[0],
    "add": lambda inputs, _parameters, _name: inputs[0] + inputs[1],
    "multiply": lambda inputs, _parameters, _name: inputs[0] * inputs[1],
}


def made(net: Net) -> onnxruntime.InferenceSession:
    """Return the session of a net, with the input `x` and the output `y`."""
    nodes = Nodes(["x"], ["y"])

    def weight(name: str) -> str:
        nodes.constants.append(numpy_helper.from_array(net.parameters[name], name))
        return name

    nodes.apply("Identity", add_net(nodes, net.graph, "x", weight), output="y")
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, net.graph.inputs])
    wanted = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, net.graph.outputs])
    model = helper.make_model(
        helper.make_graph(nodes.nodes, "net", [given], [wanted], nodes.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # each request has a thread
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False  # they never free memory
    content: bytes = model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
