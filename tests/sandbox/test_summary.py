"""The table of a model's layers, checked against numbers that can be counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
nn = torch.nn


def convolutional():
    """8 filters of 1 x 3 x 3 over 6 x 6 pixels leave 4 x 4; then 128 -> 10."""
    return nn.Sequential(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU()), nn.Flatten(), nn.Linear(128, 10))


@pytest.mark.parametrize("kind", [lambda each: each, torch.jit.script], ids=["module", "TorchScript"])
def test_sizes_parameters_and_multiplications(kind, sandbox, model_of):
    summary = sandbox.summary(model_of(kind(convolutional())), (None, 1, 6, 6))

    layers = [
        (each["class_name"], each["depth"], each["depth_index"], each["output_size"])
        for each in summary["summary_list"]
    ]
    assert layers == [
        ("Sequential", 0, 1, [1, 10]),
        ("Sequential", 1, 1, [1, 8, 4, 4]),
        ("Conv2d", 2, 1, [1, 8, 4, 4]),
        ("ReLU", 2, 2, [1, 8, 4, 4]),
        ("Flatten", 1, 2, [1, 128]),
        ("Linear", 1, 3, [1, 10]),
    ]
    assert {name: summary[name] for name in summary if name != "summary_list"} == {
        "input_size": [1, 1, 6, 6],
        "total_input": 36 * 4,
        "total_mult_adds": 80 * 16 + 1290,
        "total_output_bytes": 2 * 4 * (128 + 10),
        "total_param_bytes": 4 * (80 + 1290),
        "total_params": 80 + 1290,
        "trainable_params": 80 + 1290,
    }
    assert all(each["executed"] for each in summary["summary_list"])


def test_frozen_parameters_are_not_trainable(sandbox, model_of):
    layer = nn.Linear(2, 3)
    layer.bias.requires_grad_(False)

    summary = sandbox.summary(model_of(layer), (None, 2))

    assert (summary["total_params"], summary["trainable_params"]) == (9, 6)


def test_a_layer_that_occurs_twice_counts_once(sandbox, model_of):
    shared = nn.Linear(2, 2)

    summary = sandbox.summary(model_of(nn.Sequential(shared, nn.ReLU(), shared)), (None, 2))

    assert summary["total_params"] == 6
    assert [each["is_recursive"] for each in summary["summary_list"]] == [False, False, False, True]


def test_a_shape_that_the_model_does_not_take_has_no_summary(sandbox, model_of):
    assert sandbox.summary(model_of(nn.Linear(2, 3)), (None, 5)) is None


def test_names_that_no_database_takes_are_made_printable(sandbox, model_of):
    network = nn.Sequential(nn.Linear(2, 3))
    network.add_module("a\x00b", nn.ReLU())

    summary = sandbox.summary(model_of(network), (None, 2))

    assert summary["summary_list"][2]["var_name"] == "a?b"


def test_what_is_not_of_torch_has_no_summary(sandbox, model_of):
    from folkmoot.demo.network import initial_weights

    assert sandbox.summary(model_of(initial_weights(), architecture="digits-mlp"), (None, 64)) is None


def test_the_model_predicts_as_before_after_its_summary(sandbox, model_of):
    model = model_of(nn.Linear(2, 3))
    before = sandbox.predict(model, np.ones((1, 2), np.float32))

    sandbox.summary(model, (None, 2))

    np.testing.assert_array_equal(sandbox.predict(model, np.ones((1, 2), np.float32)), before)
