"""A net is said once; everything that computes it gives the same answers."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import safetensors.numpy
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import nn

from models.export import standalone
from models.nets.graph import (
    KINDS,
    MAX_OPERATIONS,
    DenseLayer,
    Graph,
    GraphBuilder,
    Operation,
    chain,
    without_idle_trees,
)
from models.nets.module import MODULES, PAIRS, build_graph
from models.nets.numeric import TABLE, compiled
from models.nets.onnx_nodes import IR_VERSION, OPSET, Nodes, add_net
from models.nets.sessions import made
from tests.models.nets.graphs import Parameters, gated, parameters_of, random_graph

SEEDS = range(40)


def rows(graph: Graph, count: int = 5) -> NDArray[np.float32]:
    x = np.random.default_rng(1).normal(size=(count, graph.inputs)) * 2
    return x.astype(np.float32)


def torch_net(graph: Graph, parameters: Parameters) -> nn.Module:
    net = build_graph(graph).eval().double()
    net.load_state_dict({name: torch.from_numpy(each) for name, each in parameters.items()})
    return net


def exported(graph: Graph, parameters: Parameters, x: NDArray[np.float32]) -> NDArray[Any]:
    """Compute the net in the nodes of an exported file, in double."""
    nodes = Nodes(["x"], ["y"])
    outputs = add_net(
        nodes, graph, "x", lambda name: nodes.double(nodes.constant(parameters[name]))
    )
    nodes.apply("Identity", outputs, output="y")
    given, wanted = (
        helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None, width])
        for name, width in (("x", graph.inputs), ("y", graph.outputs))
    )
    model = helper.make_model(
        helper.make_graph(nodes.nodes, "net", [given], [wanted], nodes.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    found: NDArray[Any] = session.run(None, {"x": x.astype(np.float64)})[0]
    return found


def test_every_evaluator_gives_the_answers_of_torch(tmp_path: Path) -> None:
    for seed in SEEDS:
        graph = random_graph(seed)
        parameters, x = parameters_of(graph, seed), rows(graph)
        with torch.no_grad():
            expected = torch_net(graph, parameters)(torch.from_numpy(x).double()).numpy()
        near = 2e-6 * max(1.0, float(np.abs(expected).max()))
        net = compiled(graph, parameters)
        (tmp_path / "net.json").write_text(json.dumps(graph.to_json()))
        (tmp_path / "model.safetensors").write_bytes(safetensors.numpy.save(parameters))
        answers = {
            "float32": net.forward(x),
            "float64": net.forward_precisely(x),
            "onnx": exported(graph, parameters, x),
            "script": standalone.forward(tmp_path, torch.from_numpy(x)).numpy(),
        }
        if "gelu" not in {each.kind for each in graph.operations}:
            answers["session"] = made(net).run(None, {"x": x})[0]
        for name, found in answers.items():
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=near, err_msg=name)


def test_no_rows_have_no_answers() -> None:
    for seed in SEEDS[:12]:
        graph = random_graph(seed)
        parameters, x = parameters_of(graph, seed), rows(graph, 0)
        assert compiled(graph, parameters).forward(x).shape == (0, graph.outputs)
        assert exported(graph, parameters, x).shape == (0, graph.outputs)


def test_the_slopes_are_those_of_autograd() -> None:
    for seed in SEEDS:
        graph = random_graph(seed)
        parameters, x = parameters_of(graph, seed), rows(graph).astype(np.float64)
        wanted = torch.from_numpy(x).requires_grad_()
        outputs = torch_net(graph, parameters)(wanted)
        (expected,) = torch.autograd.grad((outputs**2).sum(), wanted)
        found = compiled(graph, parameters).slopes(x, lambda outputs: 2 * outputs)
        size = max(1.0, float(expected.abs().max()))
        np.testing.assert_allclose(found, expected.numpy(), rtol=2e-5, atol=1e-5 * size)


def test_a_net_comes_back_from_json() -> None:
    for graph in [*map(random_graph, SEEDS), gated(3, 2)]:
        again = Graph.from_json(json.loads(json.dumps(graph.to_json())))
        assert again == graph
        assert again.shapes == graph.shapes


def test_a_stack_of_layers_of_earlier_versions_is_the_same_net() -> None:
    layers: list[Any] = [{"linear": 4}, "relu", {"dropout": 0.5}, {"linear": 2}]
    assert Graph.from_json({"inputs": 3, "outputs": 2, "layers": layers}) == chain(3, layers)


def test_every_evaluator_knows_every_kind() -> None:
    kinds = set(KINDS)
    assert set(TABLE) == kinds
    assert MODULES.keys() | PAIRS.keys() | {"dropout"} == kinds
    assert standalone.OPERATIONS.keys() | standalone.LEARNED.keys() == kinds


def test_only_a_single_linear_layer_is_linear() -> None:
    assert chain(3, [{"linear": 1}]).is_linear
    twice = chain(3, [{"linear": 2}, {"linear": 1}])
    assert (twice.is_linear, twice.is_affine) == (False, True)
    assert not chain(3, [{"dropout": 0.5}, {"linear": 1}]).is_linear
    assert not gated(3, 1).is_affine


def test_dense_layers_are_a_stack_with_one_activation_and_one_dropout_each() -> None:
    layers: list[Any] = [{"linear": 4}, "relu", {"dropout": 0.5}, {"linear": 2}]
    assert chain(3, layers).dense() == (DenseLayer(3, 4, "relu", 0.5), DenseLayer(4, 2))
    others: list[list[Any]] = [
        ["relu", {"linear": 1}],
        [{"linear": 2}, "relu", "relu", {"linear": 1}],
        [{"linear": 2}, {"dropout": 0.5}, "relu", {"linear": 1}],
    ]
    assert [chain(3, each).dense() for each in others] == [None] * 3
    assert gated(3, 2).dense() is None


def test_what_a_net_costs_is_counted() -> None:
    net = chain(3, [{"linear": 4}, "relu", {"linear": 2}])
    assert net.parameters == 3 * 4 + 4 + 4 * 2 + 2
    assert net.work == 3 * 4 + 4 + 4 * 2
    assert net.kept == (3 + 4) + (4 + 4) + (4 + 2)
    assert net.held == 8
    # While the gate multiplies, the rows' first layer waits for the sum.
    assert gated(3, 1, width=6).held == 4 * 6


X, LINEAR, TREES = "x", {"units": 2}, {"trees": 3, "depth": 2, "outputs": 1}
CODES = {"numbers": 2, "bins": 4, "size": 3}
WRONG: dict[str, list[Operation]] = {
    "no operation": [],
    "an unknown kind": [Operation("sine", (X,), "0")],
    "a value that does not exist": [Operation("relu", ("1",), "0")],
    "its own result": [Operation("relu", ("0",), "0")],
    "a cycle": [Operation("relu", ("1",), "0"), Operation("relu", ("0",), "1")],
    "two results of one name": [Operation("relu", (X,), "0"), Operation("relu", ("0",), "0")],
    "the name of the rows": [Operation("relu", (X,), X)],
    "a name with a dot": [Operation("relu", (X,), "0.weight")],
    "too few inputs": [Operation("add", (X,), "0")],
    "too many inputs": [Operation("relu", (X, X), "0")],
    "different widths": [Operation("linear", (X,), "0", LINEAR), Operation("add", (X, "0"), "1")],
    "no units": [Operation("linear", (X,), "0")],
    "units of nothing": [Operation("linear", (X,), "0", {"units": 0})],
    "units that are no number": [Operation("linear", (X,), "0", {"units": True})],
    "more units than any net has": [Operation("linear", (X,), "0", {"units": 10**12})],
    "a share of everything": [Operation("dropout", (X,), "0", {"share": 1.0})],
    "an unknown attribute": [Operation("relu", (X,), "0", {"share": 0.5})],
    "more numbers than memory holds": [
        Operation("linear", (X,), "0", {"units": 2**25}),
        *(Operation("relu", (str(at),), str(at + 1)) for at in range(4)),
        *(Operation("add", (str(at + 4), str(4 - at)), str(at + 5)) for at in range(4)),
    ],
    "a result that nothing reads": [Operation("relu", (X,), "0"), Operation("tanh", (X,), "1")],
    "a mix of nothing": [Operation("mix", (), "0")],
    "trees of no depth": [Operation("trees", (X,), "0", TREES | {"depth": 0})],
    "trees deeper than a byte": [Operation("trees", (X,), "0", TREES | {"depth": 9})],
    "codes of no number": [Operation("piecewise_linear", (X,), "0", CODES | {"numbers": 0})],
    "codes of half a bin": [Operation("piecewise_linear", (X,), "0", CODES | {"bins": 0.5})],
    "half a tree": [Operation("trees", (X,), "0", TREES | {"trees": 0.5})],
    "more leaves than memory holds": [
        Operation("trees", (X,), "0", {"trees": 10**6, "depth": 8, "outputs": 3})
    ],
    "too many operations": [
        Operation("relu", (str(at - 1) if at else X,), str(at)) for at in range(MAX_OPERATIONS + 1)
    ],
}


@pytest.mark.parametrize("name", WRONG)
def test_a_net_that_cannot_be_computed_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Graph(3, tuple(WRONG[name]))


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"inputs": 1, "outputs": 1, "operations": {}},
        {"inputs": 1, "outputs": 1, "operations": [3]},
        {"inputs": 1, "outputs": 1, "operations": [{"kind": "relu", "inputs": "x", "output": "0"}]},
        {"inputs": 1, "outputs": 1, "operations": [{"kind": ["relu"], "inputs": [], "output": 0}]},
        {"inputs": True, "outputs": 1, "layers": ["relu"]},
        {"inputs": 1, "outputs": 2, "layers": ["relu"]},
        {"inputs": 1, "outputs": 1, "layers": [{"linear": 1, "dropout": 0.5}]},
        {"inputs": 1, "outputs": 1, "layers": [["relu"]]},
        {"inputs": 1, "outputs": 1, "layers": [{"linear": "1"}]},
    ],
)
def test_json_that_is_no_net_is_refused(document: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        Graph.from_json(document)


def test_parameters_that_do_not_fit_are_refused() -> None:
    graph = gated(3, 2)
    parameters = parameters_of(graph)
    spoilt: list[dict[str, Any]] = [
        {name: each for name, each in parameters.items() if name != "0.bias"},
        parameters | {"9.weight": parameters["0.weight"]},
        parameters | {"0.weight": parameters["0.weight"].T},
        parameters | {"0.weight": parameters["0.weight"].astype(np.float64)},
    ]
    for each in spoilt:
        with pytest.raises(ValueError, match="0"):
            compiled(graph, each)


def grove() -> tuple[Graph, Parameters]:
    """Return a mix of trees and a net of codes, and its parameters."""
    net = GraphBuilder(3)
    grown = net.add("trees", net.x, trees=4, depth=2, outputs=2)
    codes = net.add("piecewise_linear", net.x, **CODES)
    net.add("mix", grown, net.linear(codes, 2))
    graph = net.graph()
    return graph, parameters_of(graph)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("0.feature", value) for value in (3.0, -1.0, 0.5, math.nan)),
        *(("1.place", value) for value in (3.0, -1.0, 0.5, math.nan)),
        *(("1.knots", value) for value in (100.0, -math.inf, math.nan)),
        *(("3.weight", value) for value in (0.0, -1.0, math.inf)),
    ],
)
def test_parameters_that_no_training_makes_are_refused(name: str, value: float) -> None:
    graph, parameters = grove()
    parameters[name].flat[0] = value
    with pytest.raises(ValueError, match=r"trees|mix|places|knots"):
        compiled(graph, parameters)


def test_trees_that_never_grew_are_dropped() -> None:
    graph, parameters = grove()
    parameters["0.leaves"][2:] = 0
    less, kept = without_idle_trees(graph, parameters)
    assert kept["0.feature"].shape == (2, 2)
    x = rows(graph)
    expected = compiled(graph, parameters).forward(x)
    np.testing.assert_array_equal(compiled(less, kept).forward(x), expected)
    parameters["0.leaves"][:] = 0
    assert without_idle_trees(graph, parameters)[0].operations[0].attributes["trees"] == 1


def test_only_steps_are_not_smooth() -> None:
    assert (grove()[0].is_smooth, gated(3, 1).is_smooth) == (False, True)


def test_trees_predict_many_rows_in_blocks_as_one_by_one() -> None:
    builder = GraphBuilder(3)
    builder.add("trees", builder.x, trees=3000, depth=8, outputs=1)
    graph = builder.graph()
    net, x = compiled(graph, parameters_of(graph)), rows(graph, 300)
    whole = net.forward(x)
    for place in range(len(x)):
        np.testing.assert_array_equal(net.forward(x[place : place + 1])[0], whole[place])
