"""Tensors that lie in several places, and what a participant may send in place of what was asked for."""

from __future__ import annotations

import numpy as np
import pytest

from folkmoot.errors import SchemaMismatch
from folkmoot.tensors import Schema, TensorFile, write_tensors
from folkmoot.tensors.conform import conform
from folkmoot.tensors.layers import Layers
from folkmoot.tensors.schema import BFLOAT16
from folkmoot.tensors.tied import check_tied

BASE = {"body": np.arange(3, dtype="f4"), "head": np.zeros(2, "f4"), "steps": np.array(7)}
MODEL = Schema.of(BASE)
HEAD = Schema.of({"head": BASE["head"]})


def test_a_tensor_comes_from_the_uppermost_layer_that_has_it(tmp_path):
    paths = [tmp_path / "top", tmp_path / "middle", tmp_path / "base"]
    write_tensors(paths[0], {"head": np.array([5, 6], "f4")})
    write_tensors(paths[1], {"head": np.array([1, 1], "f4"), "steps": np.array(8)})
    write_tensors(paths[2], BASE)

    layers = Layers([TensorFile.open(path) for path in paths])

    assert {name: tensor.tolist() for name, tensor in layers.items()} == {"head": [5, 6], "steps": 8, "body": [0, 1, 2]}
    assert layers.schema == MODEL


def test_what_was_asked_for_is_passed_on_as_it_is():
    assert conform(BASE, MODEL, MODEL) is BASE


def test_tensors_of_the_model_that_do_not_travel_are_left_out():
    sent = conform(BASE, HEAD, MODEL)

    assert list(sent) == ["head"]
    assert Schema.of(sent) == HEAD


def test_tensors_that_the_model_does_not_have_are_refused_all_the_same():
    with pytest.raises(SchemaMismatch, match="tail is not in the model"):
        conform(BASE | {"tail": np.zeros(1, "f4")}, HEAD, MODEL)


def test_a_tensor_that_travels_must_be_there():
    with pytest.raises(SchemaMismatch, match="head is missing"):
        conform({"body": BASE["body"]}, HEAD, MODEL)


def test_a_float32_stands_for_a_bfloat16():
    model = Schema.of({"w": np.zeros(2, BFLOAT16), "v": np.zeros(1, "f4")})

    sent = conform({"w": np.array([1, 2.001], "f4"), "v": np.ones(1, "f4")}, model, model)

    assert Schema.of(sent) == model
    assert sent["w"].dtype == BFLOAT16
    assert sent["w"].astype("f4").tolist() == [1, 2]


@pytest.mark.parametrize(("model", "sent"), [("f4", BFLOAT16), ("f4", "f8"), ("f2", "f4"), ("i4", "f4")])
def test_no_other_dtype_stands_for_another(model, sent):
    wanted = Schema.of({"w": np.zeros(2, model)})

    with pytest.raises(SchemaMismatch, match="w is "):
        conform({"w": np.zeros(2, sent)}, wanted, wanted)


def test_tied_tensors_must_stay_equal():
    check_tied(BASE | {"copy": BASE["body"].copy()}, [["body", "copy"]])

    with pytest.raises(SchemaMismatch, match="body and copy are one tensor in the model, and differ in the update"):
        check_tied(BASE | {"copy": BASE["body"] + 1}, [["body", "copy"]])


def test_a_tied_tensor_that_does_not_travel_is_not_missed():
    check_tied(BASE, [["body", "copy"]])
