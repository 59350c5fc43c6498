"""A hub of the demo's own, as a process, started by the command that anyone would use."""

from __future__ import annotations

import re
import time
from pathlib import Path

from folkmoot.client import Hub
from folkmoot.demo.children import Child, Children
from folkmoot.errors import FolkmootError, Misconfigured

COMMAND = "from folkmoot.cli import main; main()"
ADDRESS = re.compile(r"https?://\S+")
PATIENCE_SECONDS = 60
PAUSE_SECONDS = 0.02
BAD_SETTING = 2
"""The exit code of a command that was given something impossible, with the reason as the last line of its log."""


def start(children: Children, data_dir: Path, port: int) -> Child:
    arguments = ["-c", COMMAND, "serve", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(data_dir)]
    return children.start("server", arguments, {})


def wait_until_ready(server: Child, children: Children) -> str:
    """The server's address. Raises Misconfigured, in the server's words, where port or folder are impossible."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (said := ADDRESS.search(server.output.read_text())) or not _is_healthy(said.group()):
        if server.exit_code == BAD_SETTING:
            raise Misconfigured(server.last_words.splitlines()[-1].removeprefix("folkmoot: "))
        children.check()
        if time.monotonic() > deadline:
            raise FolkmootError(f"the server was not ready within {PATIENCE_SECONDS} s")
        time.sleep(PAUSE_SECONDS)
    return said.group()


def _is_healthy(url: str) -> bool:
    with Hub(url) as hub:
        return hub.is_healthy()
