"""A model as an ONNX graph from a table's values to predictions, preprocessing included.

Inputs are the columns, `[N, 1]` each: numbers, integers, booleans (0 and 1) and datetimes (seconds
since 1970, UTC) as double, NaN if missing; categories as strings, empty if missing. The output
`value` has the target's own type; classes add `probabilities`. The nodes compute the same as
`Features.encode`, `Model.forward_precisely` and `Features.decode`, in the same precision: each
runtime has its own order of additions, and in float32 that would show if large numbers cancel.

Written with `onnx.helper`, without torch. Knows the operators; nothing of files or versions.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from models.data import Floats
from models.errors import CheckpointCorrupt
from models.features.inputs import Choice, Input, Moment, Numeric
from models.features.targets import ClassTarget, NumberTargets
from models.features.widths import PERIODS
from models.model import Model
from models.nets.onnx_nodes import IR_VERSION, OPSET, Nodes

ML_OPSET = 3  # of ai.onnx.ml, for LabelEncoder
ML = "ai.onnx.ml"
NUMBER, TEXT = TensorProto.DOUBLE, TensorProto.STRING
VALUE, PROBABILITIES = "value", "probabilities"

#: Places of encoded numbers in a row, and the name of the tensor [N, places] that holds them.
Block: TypeAlias = tuple[Sequence[int], str]


def build(model: Model, properties: Mapping[str, str]) -> bytes:
    """Return the bytes of the ONNX file; `properties` become its metadata beside the signature.

    Raises `CheckpointCorrupt` if a column has no name.
    """
    columns = model.features.inputs
    if not all(column.name for column in columns):
        raise CheckpointCorrupt("a column without a name cannot be an input of a graph")
    graph = Nodes([column.name for column in columns], model.features.target.output_names)
    encoded = _encode(graph, columns)
    # The net computes in double, and its outputs are rounded once.
    scores = graph.single(model.add_to(graph, graph.double(encoded)))
    outputs = _decode(graph, scores, model.features.target)
    inputs = [_column(column.name, TEXT if _is_text(column) else NUMBER) for column in columns]
    made = helper.make_model(
        helper.make_graph(graph.nodes, "descent", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(ML, ML_OPSET)],
        ir_version=IR_VERSION,
        producer_name="descent",
    )
    signature = json.dumps(model.features.signature(), ensure_ascii=False)
    helper.set_model_props(made, {**properties, "signature": signature})
    onnx.checker.check_model(made, full_check=True)
    content: bytes = made.SerializeToString(deterministic=True)
    return content


# ---- columns ------------------------------------------------------------------------------------


def _encode(graph: Nodes, columns: Sequence[Input]) -> str:
    """Return float32 [N, width]; columns of one kind share nodes, as there may be thousands."""
    starts = np.cumsum([0, *(column.width for column in columns)]).tolist()
    scalars = [(at, c) for at, c in zip(starts, columns, strict=False) if isinstance(c, Numeric)]
    moments = [(at, c) for at, c in zip(starts, columns, strict=False) if isinstance(c, Moment)]
    blocks: list[Block] = []
    if scalars:
        blocks += _scalars(graph, scalars)
    if moments:
        blocks += _moments(graph, moments)
    for start, column in zip(starts, columns, strict=False):
        if isinstance(column, Choice):
            blocks.append((range(start, start + column.width), _choice(graph, column)))
    places = [place for held, _ in blocks for place in held]
    encoded = graph.join([name for _, name in blocks])
    if places == sorted(places):
        return encoded
    return graph.pick(encoded, np.argsort(places).tolist())


def _scalars(graph: Nodes, columns: Sequence[tuple[int, Numeric]]) -> list[Block]:
    values, gaps = _filled(graph, [column for _, column in columns])
    center = np.array([column.center for _, column in columns])
    scale = np.array([column.scale for _, column in columns])
    numbers = ([start for start, _ in columns], _standardized(graph, values, center, scale))
    return [numbers, *_missing(graph, gaps, columns)]


def _moments(graph: Nodes, columns: Sequence[tuple[int, Moment]]) -> list[Block]:
    values, gaps = _filled(graph, [column for _, column in columns])
    center = np.array([column.mean for _, column in columns])
    scale = np.array([column.std or 1.0 for _, column in columns])
    blocks: list[Block] = [
        ([start for start, _ in columns], _standardized(graph, values, center, scale))
    ]
    for index, (start, column) in enumerate(columns):
        for number, part in enumerate(column.parts):
            seconds = graph.pick(values, [index])
            place = start + 1 + 2 * number
            blocks.append(([place, place + 1], _phase(graph, seconds, PERIODS[part])))
    return [*blocks, *_missing(graph, gaps, columns)]


def _filled(graph: Nodes, columns: Sequence[Numeric | Moment]) -> tuple[str, str]:
    """Return double [N, columns], clipped, with means for missing values; and a mask of these."""
    values = graph.join([column.name for column in columns])
    gaps = graph.apply("Or", graph.apply("IsNaN", values), graph.apply("IsInf", values))
    booleans = np.array([column.type == "boolean" for column in columns])
    if booleans.any():
        zero, one = (graph.constant(np.array(bound)) for bound in (0.0, 1.0))
        either = graph.apply(
            "Or", graph.apply("Equal", values, zero), graph.apply("Equal", values, one)
        )
        wrong = graph.apply("And", graph.apply("Not", either), graph.constant(booleans[None, :]))
        gaps = graph.apply("Or", gaps, wrong)
    least = graph.constant(np.array([[column.least for column in columns]]))
    most = graph.constant(np.array([[column.most for column in columns]]))
    mean = graph.constant(np.array([[column.mean for column in columns]]))
    clipped = graph.apply("Min", graph.apply("Max", values, least), most)
    return graph.apply("Where", gaps, mean, clipped), gaps


def _standardized(graph: Nodes, values: str, center: Floats, scale: Floats) -> str:
    centered = graph.apply("Sub", values, graph.constant(center[None, :]))
    return graph.single(graph.apply("Div", centered, graph.constant(scale[None, :])))


def _missing(
    graph: Nodes, gaps: str, columns: Sequence[tuple[int, Numeric | Moment]]
) -> list[Block]:
    """Return the indicators of columns that had missing values in training."""
    has_one = [index for index, (_, column) in enumerate(columns) if column.missing]
    if not has_one:
        return []
    places = [columns[index][0] + columns[index][1].width - 1 for index in has_one]
    return [(places, graph.pick(graph.single(gaps), has_one))]


def _phase(graph: Nodes, seconds: str, period: float) -> str:
    """Return the sine and the cosine of a time's phase in its period, [N, 2]."""
    rest = graph.apply("Mod", seconds, graph.constant(np.array(period)), fmod=1)
    phase = graph.apply("Mul", rest, graph.constant(np.array(2 * np.pi / period)))
    # The cosine is a sine a quarter ahead: not every runtime has a cosine of doubles.
    ahead = graph.apply("Add", phase, graph.constant(np.array(np.pi / 2)))
    return graph.single(graph.join([graph.apply("Sin", phase), graph.apply("Sin", ahead)]))


def _choice(graph: Nodes, column: Choice) -> str:
    """Return the one-hot category; for other values the number `other`, or each share."""
    known = len(column.categories)
    if known == 0:
        text = graph.apply("Shape", column.name, end=1)
        one = graph.constant(np.array([1], dtype=np.int64))
        rows = graph.apply("Concat", text, one, axis=0)
        return graph.apply("Expand", graph.constant(np.ones((1, 1), dtype=np.float32)), rows)
    codes = graph.apply(
        "LabelEncoder",
        column.name,
        domain=ML,
        keys_strings=list(column.categories),
        values_int64s=list(range(known)),
        default_int64=known,
    )
    depth = graph.constant(np.array([column.width], dtype=np.int64))
    bounds = graph.constant(np.array([0, 1], dtype=np.float32))
    flat = graph.apply("Squeeze", codes, graph.constant(np.array([1], dtype=np.int64)))
    hot = graph.apply("OneHot", flat, depth, bounds, axis=-1)
    if column.has_other:
        return hot
    shares = np.array(column.counts) / max(1, sum(column.counts))
    unknown = graph.apply("Equal", codes, graph.constant(np.array([[known]], dtype=np.int64)))
    mixed = graph.constant(shares[None, :].astype(np.float32))
    return graph.apply("Where", unknown, mixed, hot)


# ---- outputs ------------------------------------------------------------------------------------


def _decode(
    graph: Nodes, scores: str, target: NumberTargets | ClassTarget
) -> list[onnx.ValueInfoProto]:
    exact = graph.double(scores)
    if isinstance(target, ClassTarget):
        return _classes(graph, exact, target)
    scaled = graph.apply("Mul", exact, graph.constant(np.array([target.scale])))
    center = graph.constant(np.array([target.center]))
    if len(target.names) == 1:
        name = graph.apply("Add", scaled, center, output=graph.free(VALUE))
        return [_column(name, NUMBER)]
    values = graph.apply("Add", scaled, center)
    names = [
        graph.pick(values, [place], output=graph.free(name))
        for place, name in enumerate(target.names)
    ]
    return [_column(name, NUMBER) for name in names]


def _classes(graph: Nodes, scores: str, target: ClassTarget) -> list[onnx.ValueInfoProto]:
    shares = graph.apply("Softmax", scores, output=graph.free(PROBABILITIES), axis=1)
    best = graph.apply("ArgMax", shares, axis=1, keepdims=1)
    labels = _labels(target)
    kind = helper.np_dtype_to_tensor_dtype(labels.dtype) if labels.dtype != object else TEXT
    value = graph.apply("Gather", graph.constant(labels), best, output=graph.free(VALUE), axis=0)
    return [
        _column(value, kind),
        helper.make_tensor_value_info(shares, NUMBER, ["N", len(target.classes)]),
    ]


def _labels(target: ClassTarget) -> NDArray[Any]:
    """Return the classes, (classes,), in the type that the API answers."""
    kinds: dict[type, Any] = {bool: np.bool_, int: np.int64, float: np.float64, str: object}
    return np.array(target.classes, dtype=kinds[type(target.classes[0])])


def _is_text(column: Input) -> bool:
    return isinstance(column, Choice)


def _column(name: str, kind: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, ["N", 1])
