"""The commands of the page about sending files, as they stand there, against a real hub."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from folkmoot.client import Hub
from folkmoot.tensors import write_tensors

PAGE = (Path(__file__).parent.parent / "docs/uploads.md").read_text()
FORM, RAW, IN_CHUNKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
FOLKMOOT = str(Path(sys.executable).with_name("folkmoot"))

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("jq")), reason="the page's commands are theirs"
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A hub, and what its user sets to use it."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
    variables |= {"FOLKMOOT_DATA_DIR": str(tmp_path_factory.mktemp("hub")), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [FOLKMOOT, "serve", "--port", "0"], env=variables, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"https?://\S+", server.stdout.readline())
            assert address is not None
            add = [FOLKMOOT, "user", "add", "ada"]
            token = subprocess.run(add, env=variables, check=True, capture_output=True, text=True).stdout.strip()
            yield variables | {"FOLKMOOT_URL": address[0], "FOLKMOOT_TOKEN": token}
        finally:
            server.terminate()


def run(script: str, *arguments: str, env: dict[str, str], folder: Path) -> dict[str, str]:
    command = ["sh", "-c", script, "upload.sh", *arguments]
    run = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    answer: dict[str, str] = json.loads(run.stdout)
    return answer


def test_the_pages_commands_send_a_model_and_an_update(environment: dict[str, str], tmp_path: Path) -> None:
    for name in ("model", "update"):
        write_tensors(tmp_path / f"{name}.safetensors", {"w": np.ones(4, np.float32)})

    model = run(FORM, env=environment, folder=tmp_path)["model_id"]
    with Hub(environment["FOLKMOOT_URL"], environment["FOLKMOOT_TOKEN"]) as hub:
        myself = str(hub._call("GET", "/api/users/myself/")["id"])
        hub.start(hub.create_training(model, 1, clients=[myself]))
    update = run(RAW, env=environment | {"MODEL": model}, folder=tmp_path)

    assert update["detail"] == "Model Update Accepted"


def test_the_pages_script_sends_a_model_in_chunks(environment: dict[str, str], tmp_path: Path) -> None:
    write_tensors(tmp_path / "large", {"w": np.ones(5_000_000, np.float32)})

    model = run(IN_CHUNKS, "large", env=environment, folder=tmp_path)["model_id"]

    with Hub(environment["FOLKMOOT_URL"], environment["FOLKMOOT_TOKEN"]) as hub:
        hub.download_model(model, tmp_path / "downloaded")
    assert (tmp_path / "downloaded").read_bytes() == (tmp_path / "large").read_bytes()
