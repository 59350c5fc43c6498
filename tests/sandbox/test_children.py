"""Which process answers, how long it is kept, and what happens when one is lost."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from folkmoot.errors import Unavailable
from folkmoot.sandbox import Sandbox, SandboxLimits
from folkmoot.sandbox.children import Children
from folkmoot.sandbox.limits import ChildSettings
from folkmoot.sandbox.nursery import Nursery

torch = pytest.importorskip("torch")
from hostile_layers import Hostile  # noqa: E402

INPUT = np.ones((1, 2), np.float32)


@pytest.fixture(scope="module")
def nursery():
    settings = ChildSettings.of(SandboxLimits(), ["hostile_layers.Hostile"])
    nursery = Nursery(settings, start_seconds=120)
    yield nursery
    nursery.close()


@pytest.fixture
def children_with(nursery):
    """A cache with limits of its own; the warm parent is that of all these tests."""
    made = []

    def make(**limits):
        made.append(Children(nursery, SandboxLimits(**limits)))
        return made[-1]

    yield make
    for children in made:
        children.close()


def pid(children, model):
    with children.lend(model) as child:
        question = {"ask": "predict", "sampling": {"method": "NONE", "samples": 1, "seed": 0}}
        return int(child.ask(question, [INPUT]).arrays[0].item())


def is_alive(process):
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


@pytest.fixture
def numbered(model_of):
    """Models that answer with the number of their process."""
    return lambda name="", *, owner="ada": model_of(Hostile("pid", name), owner=owner)


def test_one_process_answers_for_one_model(children_with, numbered):
    children, model = children_with(), numbered()

    assert pid(children, model) == pid(children, model)


def test_no_process_answers_for_two_owners_or_two_models(children_with, numbered):
    children = children_with()

    first = numbered("1")
    pids = [pid(children, model) for model in (first, numbered("2"), replace(first, owner="grace"))]

    assert len(set(pids)) == 3


def test_the_least_recently_used_gives_way(children_with, numbered):
    children = children_with(max_children=2)
    first, second, third = numbered("1"), numbered("2"), numbered("3")
    before = {model: pid(children, model) for model in (first, second)}
    pid(children, first)

    pid(children, third)

    assert not is_alive(before[second])
    assert pid(children, first) == before[first]


def test_an_owner_with_many_models_displaces_only_their_own(children_with, numbered):
    children = children_with(max_children_per_owner=2)
    hers = numbered(owner="grace")
    before = pid(children, hers)

    his = [pid(children, numbered(name)) for name in "1234"]

    assert pid(children, hers) == before
    assert [is_alive(each) for each in his] == [False, False, True, True]


def test_what_takes_too_much_memory_is_not_kept(children_with, numbered):
    children = children_with(cache_bytes=1)

    assert not is_alive(pid(children, numbered()))


def test_a_process_is_replaced_before_its_processor_time_is_up(children_with, numbered):
    children, model = children_with(seconds=30, cpu_seconds=30), numbered()

    assert pid(children, model) != pid(children, model)


def test_an_owner_whose_places_are_all_taken_is_told_to_come_again(children_with, numbered):
    children = children_with(max_children_per_owner=1, wait_seconds=0.1)

    with (
        children.lend(numbered("1")),
        pytest.raises(Unavailable, match="at work; try again"),
        children.lend(numbered("2")),
    ):
        pass

    pid(children, numbered("2"))


def test_callers_of_one_model_take_turns(children_with, numbered):
    children, model = children_with(), numbered()

    with ThreadPoolExecutor(8) as pool:
        pids = set(pool.map(lambda _: pid(children, model), range(40)))

    assert len(pids) == 1


def ended(descriptor, seconds=60):
    """Whether the process behind a descriptor ends in time; waits for it."""
    with os.fdopen(descriptor):
        return bool(select.select([descriptor], [], [], seconds)[0])


def test_a_process_that_was_lost_is_replaced(children_with, numbered):
    children, model = children_with(), numbered()
    before = pid(children, model)
    gone = os.pidfd_open(before)
    os.kill(before, signal.SIGKILL)
    assert ended(gone)

    assert pid(children, model) != before


def test_no_process_outlives_its_place(children_with, numbered):
    children = children_with()
    before = pid(children, numbered())

    children.close()

    assert not is_alive(before)


def test_a_warm_parent_that_died_is_replaced_and_takes_its_children_along(model_of):
    with Sandbox(torch_classes=["hostile_layers.Hostile"]) as sandbox:
        numbered, parent = model_of(Hostile("pid")), model_of(Hostile("parent"))
        before = int(sandbox.predict(numbered, INPUT).item())
        warm_parent = int(sandbox.predict(parent, INPUT).item())

        gone = os.pidfd_open(before)

        os.kill(warm_parent, signal.SIGKILL)

        assert ended(gone)
        assert sandbox.predict(numbered, INPUT) != before


def ticks(process):
    """The processor time that it has had."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_server_that_is_killed_leaves_no_process_behind(part):
    template = part(Hostile("pid_once"))
    program = f"""
        import sys, numpy as np
        from pathlib import Path
        sys.path.append({str(Path(__file__).parent / "installed")!r})
        from folkmoot.sandbox import *
        sandbox = Sandbox(torch_classes=["hostile_layers.Hostile"])
        model = SandboxModel("ada", ModelPart("1", Path({str(template.path)!r})))
        print(int(sandbox.predict(model, np.ones((1, 2), np.float32)).item()), flush=True)
        sandbox.predict(model, np.ones((1, 2), np.float32))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        child = int(server.stdout.readline())
        gone = os.pidfd_open(child)
        before = ticks(child)
        while ticks(child) < before + 10:  # until it is at work
            time.sleep(0.01)

        server.kill()

    assert ended(gone)


def test_starting_is_not_waited_for():
    with Sandbox() as sandbox:
        starting = threading.Thread(target=sandbox.warm)
        starting.start()
        starting.join(5)
        assert not starting.is_alive()
