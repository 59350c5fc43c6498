"""The commands and programs of the page about model files, as they stand there, against a real hub."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx.helper
import onnx.numpy_helper
import pytest

from folkmoot.client import Hub

PAGE = (Path(__file__).parent.parent / "docs/model-files.md").read_text()
COMMANDS = "\n".join(re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL))
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
FOLKMOOT = str(Path(sys.executable).with_name("folkmoot"))
WEIGHTS = {"weight": np.arange(8, dtype="f4").reshape(2, 4), "bias": np.ones(2, "f4")}


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A hub, and what its user sets to use it."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
    variables |= {"FOLKMOOT_DATA_DIR": str(tmp_path / "hub"), "PYTHONUNBUFFERED": "1"}
    serve = [FOLKMOOT, "serve", "--port", "0"]
    with subprocess.Popen(serve, env=variables, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"https?://\S+", server.stdout.readline())
            assert address is not None
            add = [FOLKMOOT, "user", "add", "ada"]
            token = subprocess.run(add, env=variables, check=True, capture_output=True, text=True).stdout.strip()
            yield variables | {"FOLKMOOT_URL": address[0], "FOLKMOOT_TOKEN": token}
        finally:
            server.terminate()


def save_onnx(path: Path) -> None:
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, size])
        for name, size in (("x", 4), ("y", 2))
    ]
    node = onnx.helper.make_node("Gemm", ["x", "weight", "bias"], ["y"], transB=1)
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in WEIGHTS.items()]
    graph = onnx.helper.make_graph([node], "linear", ends[:1], ends[1:], weights)
    imports = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=imports, ir_version=8), path)


@pytest.mark.skipif(shutil.which("curl") is None, reason="the page's commands are curl's")
def test_the_pages_commands_get_a_model_that_its_programs_load(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_onnx(tmp_path / "uploaded")
    with Hub(environment["FOLKMOOT_URL"], environment["FOLKMOOT_TOKEN"]) as hub:
        environment["MODEL"] = hub.upload_model("linear", "a layer", tmp_path / "uploaded")

    subprocess.run(["bash", "-e", "-c", COMMANDS], env=environment, cwd=tmp_path, check=True)
    shutil.copyfile("model.latest", "model.onnx")
    for name in ("FOLKMOOT_URL", "FOLKMOOT_TOKEN", "MODEL"):
        monkeypatch.setenv(name, environment[name])
    known: list[dict[str, object]] = [{} for _ in PROGRAMS]
    for program, names in zip(PROGRAMS, known, strict=True):
        exec(program, names)

    assert Path("model.pt").read_bytes() == Path("model.again").read_bytes()
    _, torch, numpy, safetensors, run = known
    assert torch["model"].weight.tolist() == WEIGHTS["weight"].tolist()  # type: ignore[attr-defined]
    assert numpy["weights"].tolist() == safetensors["weights"].tolist() == WEIGHTS["weight"].tolist()  # type: ignore[attr-defined]
    assert run["outputs"][0].tolist() == [[7.0, 23.0]]  # type: ignore[index]
