"""The command line as people use it: real processes, in an environment of their own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import warm

FOLKMOOT = Path(sys.executable).with_name("folkmoot")
READY = re.compile(r"Folkmoot is serving at (\S+) ")

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="session")
def environment():
    """Of a shell in which nothing of Folkmoot is set, as narrow as the terminals of these tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FOLKMOOT_", "DJANGO_"))}
    return kept | {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}


@pytest.fixture
def folkmoot(environment, tmp_path):
    """A function that runs a command to its end, in an empty folder; `without` as in `warm.start`."""

    def run(*arguments, without=(), typed="", **variables):
        settings = {"env": environment | variables, "folder": tmp_path, "without": without}
        return warm.run([*map(str, arguments)], **settings, typed=typed)

    return run


@pytest.fixture
def folkmoot_without(environment, tmp_path):
    """A function that runs a command where these packages are not installed."""

    def run(*arguments, missing, **variables):
        site = tmp_path / "site"
        site.mkdir(exist_ok=True)
        (site / "sitecustomize.py").write_text(BLOCKED.format(blocked=set(missing)))
        path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
        env, command = environment | {"PYTHONPATH": path} | variables, [FOLKMOOT, *map(str, arguments)]
        return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture(scope="session")
def data_once_made(environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub")
    assert warm.run(["user", "add", "first", "--data-dir", "data"], env=environment, folder=folder).returncode == 0
    return folder / "data"


@pytest.fixture
def data(data_once_made, tmp_path):
    """The data folder of a hub that has been started once; a copy, since to make one takes longer than most tests."""
    return shutil.copytree(data_once_made, tmp_path / "data")


@pytest.fixture
def hub_on(environment, tmp_path):
    """A function that starts a hub on a data folder and returns its address; `serve` is for tests of how that goes."""
    started = []

    def start(data, **variables):
        ours, theirs = os.pipe()
        said = os.fdopen(ours)
        arguments = ["serve", "--port", "0", "--data-dir", str(data)]
        with (tmp_path / "errors").open("w") as errors, os.fdopen(theirs, "w"):
            files = {"prints": theirs, "errors": errors.fileno()}
            started.append((warm.start(arguments, env=environment | variables, folder=tmp_path, **files), said))
        found = READY.match(said.readline())
        assert found, (tmp_path / "errors").read_text()
        return found[1]

    yield start
    for process, said in started:
        process.kill()
        process.wait()
        said.close()


@pytest.fixture
def serve(environment, tmp_path):
    """A function that starts a hub on a free port and returns its process and address; stopped in the end."""
    started = []

    def start(*arguments, **variables):
        process = subprocess.Popen(
            [FOLKMOOT, "serve", "--port", "0", *map(str, arguments)],
            env=environment | variables,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        line = process.stdout.readline()
        found = READY.match(line)
        assert found, (line, process.stderr.read())
        return process, found[1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def certificate(tmp_path):
    """A certificate for 127.0.0.1 that it has signed itself, and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key
