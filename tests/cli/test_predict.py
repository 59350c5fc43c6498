"""`folkmoot predict` asks real models, in a real sandbox and on a real hub."""

from __future__ import annotations

import json
import math
from uuid import uuid4

import httpx2
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from folkmoot.client import Hub
from folkmoot.demo import network
from folkmoot.tensors import write_tensors

torch = pytest.importorskip("torch")
nn = torch.nn

ROWS = [[2.0, 0.0], [0.0, 1.0], [0.0, 3.0]]


def identity(*before):
    """What comes in are the logits."""
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
    return nn.Sequential(*before, layer)


@pytest.fixture
def model(tmp_path):
    """A function: the path of a file of this module."""

    def save(module):
        path = tmp_path / "model.pt"
        torch.save(module, path)
        return path

    return save


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("2, 0\n0, 1\n0, 3\n")
    return path


def answered(run):
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)


def is_refused(run, code, *words):
    assert (run.returncode, run.stdout) == (code, "")
    assert len(run.stderr.splitlines()) == 1, run.stderr
    for word in words:
        assert word in run.stderr
    return True


def test_classes_come_with_bars_of_their_probability(folkmoot, model, csv):
    run = folkmoot("predict", model(identity()), csv)

    header, *lines = (line.split() for line in run.stdout.splitlines())
    assert header == ["row", "class", "probability", "next"]
    assert [(each[:2], each[3:]) for each in lines] == [
        (["0", "0"], ["88.1%", "1:", "11.9%"]),
        (["1", "1"], ["73.1%", "0:", "26.9%"]),
        (["2", "1"], ["95.3%", "0:", "4.7%"]),
    ]
    assert [len(each[2]) for each in lines] == [11, 9, 11]


def test_uncertainty_is_sampled_with_dropout(folkmoot, model, csv):
    run = folkmoot("predict", model(identity(nn.Dropout(0.5))), csv, "--uncertainty", "mc-dropout:50", COLUMNS="80")

    header, *lines, caption = run.stdout.splitlines()
    assert header.split() == ["row", "class", "probability", "next", "std", "entropy", "mutual", "info"]
    assert len(lines) == 3
    assert "nats" in caption
    assert "…" not in run.stdout


def test_programs_get_all_numbers(folkmoot, model, csv):
    answer = answered(
        folkmoot("predict", model(identity(nn.Dropout(0.5))), csv, "--uncertainty", "mc-dropout:100", "--json")
    )

    assert answer["classes"] == [0, 1, 1]
    assert [sum(row) for row in answer["probabilities"]] == pytest.approx([1, 1, 1])
    found = answer["uncertainty"]
    assert set(found) == {"variance", "std", "predictive_entropy", "expected_entropy", "mutual_info"}
    # A logit x is dropped, or doubled: half of the samples know nothing, and the others are as sure as 2 x makes them.
    assert found["mutual_info"][2] > found["mutual_info"][1] > 0
    assert max(found["predictive_entropy"]) <= math.log(2)


def test_a_regression_has_values_with_their_spread(folkmoot, model, csv):
    file = model(identity(nn.Dropout(0.5)))

    plain = answered(folkmoot("predict", file, csv, "--regression", "--json"))
    sampled = folkmoot("predict", file, csv, "--regression", "--uncertainty", "mc-dropout:20")

    assert plain == {"values": ROWS, "uncertainty": {}}
    assert sampled.stdout.splitlines()[0].split() == ["row", "prediction", "std"]


def save_npy(path):
    np.save(path, ROWS)


def save_safetensors(path):
    safetensors.numpy.save_file({"rows": np.array(ROWS)}, path)


def save_torch(path):
    torch.save(torch.tensor(ROWS), path)


@pytest.mark.parametrize(
    ("name", "save"), [("rows.npy", save_npy), ("rows.safetensors", save_safetensors), ("rows.pt", save_torch)]
)
def test_rows_come_from_files_of_one_tensor(folkmoot, model, tmp_path, name, save):
    save(tmp_path / name)

    assert answered(folkmoot("predict", model(identity()), tmp_path / name, "--json"))["classes"] == [0, 1, 1]


def test_an_image_is_one_row(folkmoot, model, tmp_path):
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(tmp_path / "two.png")

    answer = answered(folkmoot("predict", model(identity(nn.Flatten())), tmp_path / "two.png", "--json"))

    assert answer["classes"] == [1]


def test_bare_weights_take_an_architecture(folkmoot, tmp_path):
    write_tensors(tmp_path / "weights.safetensors", network.initial_weights())
    np.save(tmp_path / "rows.npy", np.zeros((1, 64), np.float32))
    asked = ["predict", tmp_path / "weights.safetensors", tmp_path / "rows.npy"]

    assert is_refused(folkmoot(*asked), 1, "architecture", "digits-mlp")
    answer = answered(folkmoot(*asked, "--architecture", "digits-mlp", "--json"))
    np.testing.assert_allclose(answer["probabilities"], [[0.1] * 10], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rows.csv", b"1, 2\n3\n", ["rows.csv", "as many in every line"]),
        ("rows.csv", b"age, weight\n1, 2\n", ["rows.csv", "numbers alone", "age"]),
        ("rows.csv", b"", ["rows.csv", "expected rows"]),
        ("rows.csv", b"1, nan\n", ["rows.csv", "NaN"]),
        ("rows.npy", b"nothing", ["rows.npy"]),
        ("rows.png", b"nothing", ["damaged"]),
    ],
)
def test_rows_that_are_none_are_refused(folkmoot, model, tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)

    assert is_refused(folkmoot("predict", model(identity()), tmp_path / name), 1, *words)


def test_what_a_model_cannot_do_is_said(folkmoot, model, csv):
    assert is_refused(folkmoot("predict", model(nn.Linear(3, 2)), csv), 1, "model")
    assert is_refused(folkmoot("predict", model(identity()), csv, "--uncertainty", "mc-dropout:5"), 1, "dropout")


@pytest.mark.parametrize("method", ["swag", "ensemble", "mc-dropout", "mc-dropout:0", "mc-dropout:1001"])
def test_an_unknown_uncertainty_is_refused(folkmoot, model, csv, method):
    run = folkmoot("predict", model(identity()), csv, "--uncertainty", method)

    assert is_refused(run, 2, "--uncertainty", method)


def test_a_model_is_a_file_or_an_id(folkmoot, csv):
    assert is_refused(folkmoot("predict", "model.pt", csv), 2, "no file model.pt", "hub")
    assert is_refused(folkmoot("predict", uuid4(), csv), 2, "FOLKMOOT_URL")
    assert is_refused(folkmoot("predict", uuid4(), csv, "--uncertainty", "mc-dropout:5"), 2, "model files")


@pytest.fixture
def here(hub_on, data):
    """The settings with which Ann asks a hub that runs."""
    url = hub_on(data)
    with Hub(url) as nobody:
        return {"FOLKMOOT_URL": url, "FOLKMOOT_TOKEN": nobody.register("ann", "a long enough secret")["token"]}


@pytest.fixture
def uploaded(here, model):
    """A function: the id of a model on the hub."""

    def upload(module):
        with Hub(here["FOLKMOOT_URL"], here["FOLKMOOT_TOKEN"]) as hub:
            return hub.upload_model("m", "d", model(module))

    return upload


def test_a_model_on_a_hub_is_asked_by_its_id(folkmoot, here, uploaded, csv, tmp_path):
    model_id = uploaded(identity(nn.Flatten()))
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(tmp_path / "two.png")

    assert answered(folkmoot("predict", model_id, csv, "--json", **here)) == {"classes": [0, 1, 1], "uncertainty": {}}
    assert answered(folkmoot("predict", model_id, tmp_path / "two.png", "--json", **here))["classes"] == [1]
    shown = folkmoot("predict", model_id, csv, **here).stdout
    assert [line.split() for line in shown.splitlines()] == [["row", "class"], ["0", "0"], ["1", "1"], ["2", "1"]]
    assert is_refused(folkmoot("predict", uuid4(), csv, **here), 1, "not found")


def test_a_training_on_a_hub_decides_on_the_uncertainty(folkmoot, here, uploaded, csv):
    model_id = uploaded(identity(nn.Dropout(0.5)))
    training = {"model_id": model_id, "target_num_updates": 1, "aggregation_method": "FedAvg", "clients": []}
    wanted = {"metric_names": [], "uncertainty_method": "MC_DROPOUT", "options": {"uncertainty": {"N": 100}}}
    token = {"Authorization": f"Token {here['FOLKMOOT_TOKEN']}"}
    httpx2.post(f"{here['FOLKMOOT_URL']}/api/trainings/", json=training | wanted, headers=token).raise_for_status()

    answer = answered(folkmoot("predict", model_id, csv, "--json", **here))

    assert answer["classes"] == [0, 1, 1]
    assert [sum(row) for row in answer["probabilities"]] == pytest.approx([1, 1, 1])
    assert answer["uncertainty"]["mutual_info"][2] > answer["uncertainty"]["mutual_info"][1] > 0
