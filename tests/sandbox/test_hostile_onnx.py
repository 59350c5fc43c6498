"""What a graph in ONNX does beyond computing costs its caller an error, and nobody else anything."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from folkmoot.errors import ExternalData, ModelFailed

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper  # noqa: E402

INPUT = np.ones((1, 2), np.float32)
FLOATS = TensorProto.FLOAT


@pytest.fixture
def ask(sandbox, model_of):
    """Ask a graph, and afterwards somebody else's harmless one, which has to answer."""

    def ask(*nodes, **of):
        try:
            return sandbox.predict(model_of(graph(*nodes, **of)), INPUT)
        finally:
            harmless = graph(helper.make_node("Add", ["x", "weight"], ["y"]))
            assert sandbox.predict(model_of(harmless, owner="grace"), INPUT).tolist() == [[[2.0, 2.0]]]

    return ask


def graph(*nodes, constants=(), domains=()):
    weight = helper.make_tensor("weight", FLOATS, [2], [1.0, 1.0])
    values = [helper.make_tensor_value_info(name, FLOATS, None) for name in "xy"]
    made = helper.make_graph(nodes, "graph", values[:1], values[1:], [weight, *constants])
    operators = [helper.make_opsetid("", 17), *(helper.make_opsetid(each, 1) for each in domains)]
    return helper.make_model(made, opset_imports=operators, ir_version=8).SerializeToString()


def whole_numbers(name, values):
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def endless():
    """x + 1, as often as 64 bits can count."""
    inside = [
        helper.make_tensor_value_info("turn", TensorProto.INT64, []),
        helper.make_tensor_value_info("going_on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("before", FLOATS, None),
    ]
    steps = [
        helper.make_node("Identity", ["going_on"], ["goes_on"]),
        helper.make_node("Add", ["before", "weight"], ["after"]),
    ]
    outside = [helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []), *_values("after")]
    body = helper.make_graph(steps, "body", inside, outside)
    return helper.make_node("Loop", ["turns", "", "x"], ["y"], body=body)


def _values(name):
    return [helper.make_tensor_value_info(name, FLOATS, None)]


def test_a_graph_that_does_not_end_is_stopped(ask):
    turns = helper.make_tensor("turns", TensorProto.INT64, [], [2**62])

    with pytest.raises(ModelFailed, match="longer than 5 seconds"):
        ask(endless(), constants=[turns])


@pytest.mark.parametrize("size", [[1 << 40], [1 << 30], [1 << 31, 1 << 31, 1 << 31]], ids=["4 TB", "4 GB", "overflow"])
def test_a_graph_that_takes_too_much_memory_fails(ask, size):
    node = helper.make_node("ConstantOfShape", ["size"], ["y"])

    with pytest.raises(ModelFailed, match="raised Exception for its input"):
        ask(node, constants=[whole_numbers("size", size)])


def test_a_graph_that_multiplies_what_it_holds_fails(ask):
    """Each step is ten times as large as the one before."""
    names = ["x", *(f"step{number}" for number in range(11)), "y"]
    nodes = [helper.make_node("Tile", [a, "times"], [b]) for a, b in pairwise(names)]

    with pytest.raises(ModelFailed, match="raised Exception for its input"):
        ask(*nodes, constants=[whole_numbers("times", [1, 10])])


def test_an_output_that_is_too_large_is_not_taken(ask):
    expand = helper.make_node("Tile", ["x", "times"], ["y"])

    with pytest.raises(ModelFailed, match="at most 1048576 are taken"):
        ask(expand, constants=[whole_numbers("times", [1000, 1000])])


def test_weights_in_another_file_are_refused(ask):
    outside = TensorProto(name="secret", data_type=FLOATS, dims=[2], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="../../../../etc/passwd")

    with pytest.raises(ExternalData, match="secret"):
        ask(helper.make_node("Add", ["x", "secret"], ["y"]), constants=[outside])


@pytest.mark.parametrize("within", ["", "com.example", "ai.onnx.contrib"])
def test_an_operator_of_ones_own_is_not_loaded(ask, within):
    node = helper.make_node("ReadFile", ["x"], ["y"], domain=within)

    with pytest.raises(ModelFailed, match="could not be loaded"):
        ask(node, domains=[within] if within else [])


def test_a_graph_that_goes_round_in_a_circle_is_not_loaded(ask):
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Add", ["a", "x"], ["b"])]

    with pytest.raises(ModelFailed, match="could not be loaded"):
        ask(*nodes, helper.make_node("Identity", ["b"], ["y"]))
