"""Demos as processes, and what is left of them."""

import os
import subprocess
import sys
import time
import uuid

import psutil
import pytest

COMMAND = "from folkmoot.cli import main; main()"


class RunningDemo:
    """`folkmoot demo` as a process; all that it starts can be told by a mark in their environment."""

    def __init__(self, folder, *arguments, terminal=None):
        self._mark = uuid.uuid4().hex
        self._files = [folder / f"{self._mark}.{name}" for name in ("out", "err")]
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", COMMAND, "demo", *map(str, arguments)],
                env=os.environ | {"MARK_OF_THE_TEST": self._mark},
                stdin=subprocess.DEVNULL,
                stdout=out if terminal is None else terminal,
                stderr=err,
            )

    @property
    def output(self):
        return self._files[0].read_text()

    @property
    def errors(self):
        return self._files[1].read_text()

    def family(self):
        """The command lines of all its processes that are alive, by their ids."""
        return dict(filter(None, map(self._recognise, psutil.process_iter())))

    def children_with(self, word):
        return [pid for pid, line in self.family().items() if word in line and pid != self.process.pid]

    def _recognise(self, process):
        try:
            ours = process.environ().get("MARK_OF_THE_TEST") == self._mark
            return (process.pid, " ".join(process.cmdline())) if ours else None
        except psutil.Error:  # it is gone, or not ours
            return None


@pytest.fixture
def wait_until():
    def wait(condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not (outcome := condition()):
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)
        return outcome

    return wait


@pytest.fixture
def start_demo(tmp_path, monkeypatch):
    """Starts a demo; at the end of the test all are killed, whatever they did."""
    demos = []
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))

    def start(*arguments, **options):
        demos.append(RunningDemo(tmp_path, *arguments, **options))
        return demos[-1]

    yield start
    for demo in demos:
        for pid in demo.family():
            psutil.Process(pid).kill()
        demo.process.wait()
