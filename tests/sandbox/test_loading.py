"""What can be loaded, with what, and what is said of the rest."""

from __future__ import annotations

import numpy as np
import pytest

from folkmoot.demo.network import initial_weights, predict
from folkmoot.errors import InvalidFile, InvalidValue, NotInstalled, SchemaMismatch, UnsupportedContainer
from folkmoot.sandbox import Sampling, Sandbox, architecture_names

torch = pytest.importorskip("torch")

DIGITS = np.random.default_rng(0).random((3, 64), np.float32)


def line_weights():
    rng = np.random.default_rng(1)
    return {"0.weight": rng.random((2, 64), np.float32), "0.bias": np.zeros(2, np.float32)}


def test_the_demos_network_is_an_architecture():
    assert "digits-mlp" in architecture_names()


def test_weights_alone_predict_with_an_architecture_in_numpy(sandbox, model_of):
    model = model_of(initial_weights(), architecture="digits-mlp")

    np.testing.assert_allclose(sandbox.predict(model, DIGITS)[0], predict(initial_weights(), DIGITS), rtol=1e-5)


def test_members_take_turns_in_an_architecture_in_numpy(sandbox, model_of, part):
    members = [initial_weights(1), initial_weights(2)]
    model = model_of(initial_weights(), architecture="digits-mlp", weights=tuple(map(part, members)))

    answer = sandbox.predict(model, DIGITS, Sampling("ENSEMBLE"))

    np.testing.assert_allclose(answer, [predict(each, DIGITS) for each in members], rtol=1e-5)


@pytest.mark.parametrize("as_file", [dict, lambda arrays: {name: torch.from_numpy(arrays[name]) for name in arrays}])
def test_weights_alone_are_put_into_an_architecture_of_torch(as_file, sandbox, model_of):
    weights = line_weights()

    answer = sandbox.predict(model_of(as_file(weights), architecture="line"), DIGITS)

    np.testing.assert_allclose(answer[0], DIGITS @ weights["0.weight"].T, rtol=1e-4)


def test_npz_files_have_architectures_too(sandbox, part, tmp_path):
    from folkmoot.sandbox import SandboxModel

    np.savez(tmp_path / "weights.npz", **initial_weights())
    template = part((tmp_path / "weights.npz").read_bytes())

    answer = sandbox.predict(SandboxModel("ada", template, architecture="digits-mlp"), DIGITS)

    np.testing.assert_allclose(answer[0], predict(initial_weights(), DIGITS), rtol=1e-5)


def test_weights_without_an_architecture_ask_for_one(sandbox, model_of):
    with pytest.raises(InvalidValue, match=r"their architecture has to be named, one of: .*digits-mlp"):
        sandbox.predict(model_of(initial_weights()), DIGITS)


@pytest.mark.parametrize(
    ("name", "error", "sentence"),
    [
        ("unheard", InvalidValue, "'unheard' is not known here; known are: .*line"),
        ("broken", InvalidValue, "'broken' is installed here, and cannot be imported"),
        ("no_module", InvalidValue, "no module of torch"),
    ],
)
def test_an_architecture_that_cannot_be_had_is_named(name, error, sentence, sandbox, model_of):
    with pytest.raises(error, match=sentence):
        sandbox.predict(model_of(line_weights(), architecture=name), DIGITS)


def test_weights_that_an_architecture_lacks_are_named(sandbox, model_of):
    with pytest.raises(SchemaMismatch, match=r"do not fit the architecture line: 0\.bias is missing"):
        sandbox.predict(model_of({"0.weight": np.zeros((2, 64), np.float32)}, architecture="line"), DIGITS)


def test_weights_that_an_architecture_in_numpy_lacks_are_named(sandbox, model_of):
    model = model_of({"hidden.bias": np.zeros(64, np.float32)}, architecture="digits-mlp")

    with pytest.raises(SchemaMismatch, match=r"do not fit the architecture: hidden\.weight is missing"):
        sandbox.predict(model, DIGITS)


def test_a_file_that_is_no_model_is_refused_by_its_kind(sandbox, model_of):
    with pytest.raises(UnsupportedContainer, match="this kind of file is not taken"):
        sandbox.predict(model_of(b"no model" * 100), DIGITS)


def test_a_damaged_file_is_refused_in_our_words(sandbox, part, tmp_path):
    from folkmoot.sandbox import SandboxModel

    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    damaged = part((tmp_path / "whole.pt").read_bytes()[:-20])

    with pytest.raises(InvalidFile):
        sandbox.predict(SandboxModel("ada", damaged), DIGITS)


def test_a_library_that_is_installed_and_broken_is_told_with_what_is_wrong(model_of, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text("raise OSError('libgomp.so.1: cannot open shared object file')\n")
    module = model_of(torch.nn.Linear(64, 2))
    monkeypatch.syspath_prepend(tmp_path)

    with (
        Sandbox() as sandbox,
        pytest.raises(NotInstalled, match=r"cannot import torch \(OSError: libgomp\.so\.1"),
    ):
        sandbox.predict(module, DIGITS)


def test_without_torch_numpy_still_predicts_and_the_rest_names_the_extra(model_of, tmp_path, monkeypatch):
    (tmp_path / "hidden").mkdir()
    for library in ("torch", "onnxruntime"):
        (tmp_path / "hidden" / f"{library}.py").write_text("raise ImportError\n")
    module = model_of(torch.nn.Linear(64, 2))
    in_numpy = model_of(initial_weights(), architecture="digits-mlp")
    monkeypatch.syspath_prepend(tmp_path / "hidden")

    with Sandbox() as sandbox:
        assert sandbox.predict(in_numpy, DIGITS).shape == (1, 3, 10)
        with pytest.raises(NotInstalled, match=r"pip install 'folkmoot\[torch\]'"):
            sandbox.predict(module, DIGITS)
