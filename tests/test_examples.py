"""The example with PyTorch and our client, as its page says it is run, against a real hub."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples/pytorch_digits"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    """The address of a hub on this machine."""
    serve = [Path(sys.executable).with_name("folkmoot"), "serve", "--port", "0", "--data-dir", tmp_path]
    with subprocess.Popen(serve, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = re.search(r"https?://\S+", server.stdout.readline())
            assert address is not None
            yield address[0]
        finally:
            server.terminate()


def test_with_pytorch_three_participants_are_better_than_each_alone(hub: str) -> None:
    run = subprocess.run(
        [sys.executable, EXAMPLE / "run.py"], env=ENVIRONMENT | {"FOLKMOOT_URL": hub}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    together, *alone = map(float, re.findall(r"\d\.\d+", run.stdout))
    assert len(alone) == 3
    assert together > max(alone) + 0.05
