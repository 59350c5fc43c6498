"""Model files are looked into and converted on a machine that has neither Django nor a framework."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from folkmoot.tensors import FORMATS, open_tensors, recognise, write_tensors

SAMPLE = {
    "fc1.weight": np.arange(12, dtype="f4").reshape(3, 4),
    "fc1.bias": np.zeros(3, "f2"),
    "steps": np.array(2**40),
    "mask": np.array([True, False]),
}
NO_SERVER = ["django", "rest_framework", "uvicorn", "torch", "onnx", "safetensors"]


def save_onnx(path):
    graph = onnx.helper.make_graph([], "g", [], [], [numpy_helper.from_array(*item[::-1]) for item in SAMPLE.items()])
    onnx.save(onnx.helper.make_model(graph), path)


@pytest.fixture(params=FORMATS)
def saved(request, tmp_path):
    """The format, and a file of it under a name that does not tell."""
    path = tmp_path / "model"
    save_onnx(path) if request.param == "onnx" else FORMATS[request.param].export(SAMPLE, path)
    return request.param, path


@pytest.fixture
def model(tmp_path):
    write_tensors(tmp_path / "model.safetensors", SAMPLE)
    return tmp_path / "model.safetensors"


def assert_same(actual, expected):
    assert set(actual) == set(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype
        np.testing.assert_array_equal(actual[name], array)


def test_what_is_in_a_file_of_any_format_is_shown(folkmoot_without, saved):
    name, path = saved

    run = folkmoot_without("model", "show", path, missing=NO_SERVER)

    assert (run.returncode, run.stderr) == (0, "")
    first, header, *rows = run.stdout.splitlines()
    assert first.startswith(f"{name}: 4 tensors, 18 parameters")
    assert header.split()[:4] == ["name", "dtype", "shape", "parameters"]
    assert [row.split()[:3] for row in rows] == [
        ["fc1.bias", "F16", "3"],
        ["fc1.weight", "F32", "3"],
        ["mask", "BOOL", "2"],
        ["steps", "I64", "scalar"],
    ]


def test_buffers_and_tied_tensors_are_told_apart(folkmoot, tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 10, bias=False))
    module[2].weight = module[0].weight
    torch.save(module, tmp_path / "model")

    plain, told = folkmoot("model", "show", "model"), folkmoot("model", "show", "model", "--json")

    first, header, *rows = plain.stdout.splitlines()
    assert first.startswith("torch: 7 tensors, 57 parameters (48 trainable), ")
    assert header.split() == ["name", "dtype", "shape", "parameters", "kind", "same", "as"]
    assert rows[-1].split() == ["2.weight", "F32", "10", "x", "4", "40", "parameter", "0.weight"]
    assert [row.split()[-1] for row in rows if row.startswith("1.running")] == ["buffer", "buffer"]
    shown = json.loads(told.stdout)
    assert (shown["parameters"], shown["trainable_parameters"]) == (57, 48)
    assert {tensor["name"]: tensor["same_as"] for tensor in shown["tensors"] if tensor["same_as"]} == {
        "2.weight": "0.weight"
    }


def test_what_is_in_a_file_is_told_to_programs(folkmoot, saved):
    name, path = saved

    run = folkmoot("model", "show", path, "--json")

    shown = json.loads(run.stdout)
    assert (shown["format"], shown["parameters"], shown["bytes"]) == (name, 18, path.stat().st_size)
    tensors = {tensor["name"]: tensor for tensor in shown["tensors"]}
    assert {key: (tensor["dtype"], tensor["shape"]) for key, tensor in tensors.items()} == {
        "fc1.weight": ("F32", [3, 4]),
        "fc1.bias": ("F16", [3]),
        "steps": ("I64", []),
        "mask": ("BOOL", [2]),
    }
    assert tensors["fc1.weight"]["bytes"] == 48


def test_a_long_name_is_shown_whole(folkmoot, tmp_path):
    name = "[bold]" + "encoder." * 30 + ":smile:"
    write_tensors(tmp_path / "model", {name: np.zeros(1)})

    run = folkmoot("model", "show", "model")

    assert "1 tensor, 1 parameters" in run.stdout
    assert "".join(line.split()[0] for line in run.stdout.splitlines()[2:]) == name


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        (b"hello", "unsupported_container", "this kind of file is not taken"),
        (b"", "unsupported_container", "this kind of file is not taken"),
        (None, "non_finite", "x holds nan at [1]"),
    ],
)
def test_a_file_that_a_hub_would_refuse_is_refused_with_its_reason(folkmoot, tmp_path, content, code, reason):
    if content is None:
        write_tensors(tmp_path / "model", {"x": np.array([0, np.nan])})
    else:
        (tmp_path / "model").write_bytes(content)

    plain, told = folkmoot("model", "show", "model"), folkmoot("model", "show", "model", "--json")

    assert (plain.returncode, plain.stdout) == (1, "")
    assert plain.stderr.startswith(f"folkmoot: a hub with default settings would refuse model: {reason}")
    assert len(plain.stderr.splitlines()) == 1
    assert told.returncode == 1
    refused = json.loads(told.stdout)["refused"]
    assert refused["code"] == code
    assert reason in refused["detail"]


@pytest.mark.parametrize("command", [["show", "model.bin"], ["convert", "model.bin", "output.npz"]])
def test_a_file_that_is_not_there_is_a_wrong_argument(folkmoot, command):
    run = folkmoot("model", *command)

    assert run.returncode == 2
    assert "'model.bin' does not exist" in run.stderr


@pytest.mark.parametrize("target", sorted(FORMATS.keys() - {"onnx"}))
def test_every_format_becomes_every_other(folkmoot_without, saved, tmp_path, target):
    output = tmp_path / f"output{FORMATS[target].EXTENSION}"

    run = folkmoot_without("model", "convert", saved[1], output, missing=NO_SERVER)

    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(f"{output}: {target}, 4 tensors, ")
    assert recognise(output) is FORMATS[target]
    assert_same(open_tensors(output), SAMPLE)


def test_the_format_may_be_named_instead_of_the_ending(folkmoot, model, tmp_path):
    (tmp_path / "output.safetensors").write_text("what was there before")

    run = folkmoot("model", "convert", model, "output.safetensors", "--as", "npz", "--json")

    told = json.loads(run.stdout)
    assert (told["from"], told["format"], told["path"]) == ("safetensors", "npz", "output.safetensors")
    assert told["bytes"] == (tmp_path / "output.safetensors").stat().st_size
    with np.load(tmp_path / "output.safetensors") as arrays:
        assert_same(arrays, SAMPLE)


@pytest.mark.parametrize(
    ("arguments", "format"),
    [
        (["output.pth"], "torch"),
        (["output.PT"], "torch"),
        (["o.st"], "safetensors"),
        (["o.safetensor"], "safetensors"),
        (["o", "--as", "pt"], "torch"),
        (["o", "--as", "pth"], "torch"),
        (["o", "--as", ".npz"], "npz"),
        (["o", "--as", "safetensor"], "safetensors"),
    ],
)
def test_formats_go_by_the_names_that_people_give_them(folkmoot, model, tmp_path, arguments, format):
    run = folkmoot("model", "convert", model, *arguments)

    assert (run.returncode, run.stderr) == (0, "")
    assert recognise(tmp_path / arguments[0]) is FORMATS[format]


def test_help_and_refusal_name_the_same_formats(folkmoot, model):
    told = folkmoot("model", "convert", "--help").stdout
    refused = folkmoot("model", "convert", model, "output", "--as", "zip").stderr

    assert "safetensors, npz, torch" in " ".join(told.replace("│", " ").split())
    assert refused == "folkmoot: 'zip' is no format to write; there are safetensors, npz, torch\n"


def test_a_file_may_take_its_own_place(folkmoot, model):
    assert folkmoot("model", "convert", model, model, "--as", "npz").returncode == 0

    assert_same(open_tensors(model), SAMPLE)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["output.bin"], 2, "output.bin ends with none of .safetensors, .npz"),
        (["output"], 2, "name the format with --as"),
        (["output.npz", "--as", "zip"], 2, "'zip' is no format to write"),
        (["no/output.npz"], 2, "there is no folder no"),
        (["output.onnx"], 1, "only from an ONNX template"),
        (["output", "--as", "onnx"], 1, "only from an ONNX template"),
    ],
)
def test_what_cannot_be_written_is_told(folkmoot, model, tmp_path, arguments, code, words):
    before = set(tmp_path.iterdir())

    run = folkmoot("model", "convert", model, *arguments)

    assert (run.returncode, run.stdout) == (code, "")
    assert words in run.stderr
    assert set(tmp_path.iterdir()) == before


def test_after_a_damaged_file_nothing_is_written(folkmoot, tmp_path):
    np.savez(tmp_path / "model.npz", weight=np.full(100, 7, "u1"))
    content = (tmp_path / "model.npz").read_bytes()
    (tmp_path / "model.npz").write_bytes(content.replace(b"\7" * 100, b"\7" * 99 + b"\0"))

    run = folkmoot("model", "convert", "model.npz", "output.safetensors")

    assert run.returncode == 1
    assert run.stderr == "folkmoot: weight.npy is damaged: its size or checksum is not what the archive says\n"
    assert [file.name for file in tmp_path.iterdir()] == ["model.npz"]
