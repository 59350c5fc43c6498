"""The limits of model files are those of the environment: what a hub takes by default, a narrower one refuses."""

from __future__ import annotations

import io
import sys
from functools import reduce
from types import ModuleType

import numpy as np
import onnx.helper
import onnx.numpy_helper
import pytest
import safetensors.numpy
import torch
from harness import Server, World, copy
from torch import nn

NARROW = {
    "FOLKMOOT_MAX_HEADER_BYTES": "20000",
    "FOLKMOOT_MAX_TENSORS": "10",
    "FOLKMOOT_MAX_NAME_LENGTH": "40",
    "FOLKMOOT_MAX_MEMBERS": "12",
    "FOLKMOOT_MAX_INFLATION": "20",
    "FOLKMOOT_MAX_NESTING": "5",
    "FOLKMOOT_MAX_PICKLE_OPS": "5000",
    "FOLKMOOT_TORCH_CLASSES": "elsewhere.Layer",
}
ONE = np.ones(1, "f4")


@pytest.fixture(scope="module")
def narrow(sqlite_template, tmp_path_factory):
    """A running server with narrow limits, and one more class."""
    place = copy(sqlite_template, tmp_path_factory.mktemp("narrow"))
    world = World(Server(place, **NARROW), sqlite_template.accounts, sqlite_template.model_id)
    world.server.start()
    yield world
    world.server.kill()


def npz(save, **arrays):
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def explained(text):
    """An ONNX model with so long an explanation."""
    graph = onnx.helper.make_graph([], "g", [], [], [onnx.numpy_helper.from_array(ONE, "w")])
    return onnx.helper.make_model(graph, doc_string=text).SerializeToString()


def elsewhere(monkeypatch):
    """A whole module of a class that is not torch's."""
    module = ModuleType("elsewhere")
    module.Layer = type("Layer", (nn.Linear,), {"__module__": "elsewhere"})
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    return saved(module.Layer(2, 2))


BEYOND = {
    "header": ("20000", lambda: safetensors.numpy.save({"w": ONE}, metadata={"story": "x" * 21_000})),
    "graph": ("20000", lambda: explained("x" * 21_000)),
    "tensors": ("10", lambda: safetensors.numpy.save({f"w{number}": ONE for number in range(11)})),
    "name": ("40", lambda: safetensors.numpy.save({"w" * 41: ONE})),
    "members": ("12", lambda: npz(np.savez, **{f"w{number}": ONE for number in range(13)})),
    "inflation": ("20", lambda: npz(np.savez_compressed, w=np.tile(np.arange(250, dtype="u1"), 100))),
    "nesting": ("5", lambda: saved(reduce(lambda inner, _: nn.Sequential(inner), range(7), nn.Linear(1, 1)))),
    "pickle steps": ("5000", lambda: saved({"w": torch.ones(1), "_extra_state": [1] * 5000})),
}


def upload(world, file):
    form = {"name": "a model", "description": "d"}
    return world.call(world.actor, "POST", "/api/models/", data=form, files={"model_file": ("model", file)})


@pytest.mark.parametrize("limit", BEYOND)
def test_what_a_hub_takes_by_default_is_too_large_for_a_narrower_one(hub, narrow, limit):
    most, build = BEYOND[limit]
    file = build()

    taken, refused = upload(hub, file), upload(narrow, file)

    assert taken.status_code == 201, taken.text
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large"), refused.text
    assert f" {most} " in f"{refused.json()['detail']} "


def test_a_class_that_the_operator_lists_is_taken(hub, narrow, monkeypatch):
    file = elsewhere(monkeypatch)

    refused, taken = upload(hub, file), upload(narrow, file)

    assert (refused.status_code, refused.json()["code"]) == (400, "unknown_class"), refused.text
    assert taken.status_code == 201, taken.text
