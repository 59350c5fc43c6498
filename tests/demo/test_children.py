"""Processes that never outlive their parent, and interruptions that never hit at the wrong moment."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from folkmoot.demo.children import ChildEnded, Children
from folkmoot.demo.interrupts import Interrupts

FOR_EVER = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + FOR_EVER


@pytest.fixture
def children(tmp_path):
    children = Children(tmp_path, Interrupts(), patience=0.2)
    yield children
    children.stop()


@pytest.fixture
def is_up(wait_until):
    return lambda child: wait_until(lambda: child.output.read_text() == "up\n")


@pytest.mark.parametrize("program", [FOR_EVER, DEAF])
def test_stop_ends_every_child_even_one_that_does_not_listen(children, is_up, program):
    started = [children.start(name, ["-c", program], {}) for name in ("one", "two")]
    for child in started:
        is_up(child)

    children.stop()
    children.stop()

    assert all(child.exit_code is not None for child in started)


def test_a_child_is_asked_before_it_is_killed(children, is_up):
    child = children.start("worker", ["-c", FOR_EVER], {})
    is_up(child)

    children.stop()

    assert child.exit_code == -signal.SIGTERM


def test_stop_also_ends_the_children_of_one_that_does_not_listen(children, is_up, wait_until):
    with_a_child = f"import os; os.fork(); {DEAF}"
    child = children.start("parent", ["-c", with_a_child], {})
    wait_until(lambda: child.output.read_text() == "up\nup\n")
    grandchild = psutil.Process(child.process.pid).children()[0]

    children.stop()

    wait_until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE, seconds=5)


def test_a_child_that_ended_is_named_with_the_end_of_its_log(children, wait_until):
    child = children.start(
        "worker", ["-c", "import sys; sys.stderr.write('one\\n' * 9 + 'no more\\n'); sys.exit(3)"], {}
    )
    wait_until(lambda: child.exit_code is not None)

    with pytest.raises(ChildEnded, match="worker ended unexpectedly with exit code 3") as caught:
        children.check()

    assert caught.value.last_words == "one\none\none\none\nno more"


def test_children_that_work_are_not_complained_of(children):
    children.start("worker", ["-c", FOR_EVER], {})

    children.check()


def test_a_child_gets_our_environment_without_the_settings_of_another_hub(children, monkeypatch, wait_until):
    monkeypatch.setenv("FOLKMOOT_TOKEN", "secret")
    monkeypatch.setenv("KEPT", "kept")
    program = "import os; print(os.environ.get('FOLKMOOT_TOKEN'), os.environ['KEPT'], os.environ['FOLKMOOT_URL'])"

    child = children.start("worker", ["-c", program], {"FOLKMOOT_URL": "here"})

    wait_until(lambda: child.exit_code == 0)
    assert child.output.read_text() == "None kept here\n"


def test_a_child_is_in_a_session_of_its_own_which_ctrl_c_in_a_terminal_does_not_reach(children):
    child = children.start("worker", ["-c", FOR_EVER], {})

    assert os.getsid(child.process.pid) == child.process.pid


PARENT = """
import sys, time
from pathlib import Path
from folkmoot.demo.children import Children
from folkmoot.demo.interrupts import Interrupts
child = Children(Path(sys.argv[1]), Interrupts()).start("child", ["-c", "import time; time.sleep(600)"], {})
print(child.process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux offers it")
def test_a_child_dies_with_a_parent_that_is_killed(tmp_path, wait_until):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, tmp_path], stdout=subprocess.PIPE)
    child = psutil.Process(int(parent.stdout.readline()))

    parent.kill()
    parent.wait()

    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, seconds=5)


def outcome_of(program):
    """What a program prints, and how it ends."""
    ended = subprocess.run([sys.executable, "-c", INTERRUPTS + program], capture_output=True, text=True, timeout=20)
    return ended.stdout.split(), ended.returncode


INTERRUPTS = """
import signal
from folkmoot.demo.interrupts import Interrupted, Interrupts
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_interrupts_and_carries_the_exit_code_of_a_shell(name):
    printed, _ = outcome_of(f"""
try:
    with Interrupts():
        signal.raise_signal(signal.{name})
        print("not here")
except Interrupted as interrupt:
    print(interrupt.exit_code)
""")

    assert printed == [str(128 + getattr(signal, name))]


def test_a_deferred_signal_comes_at_the_end_of_the_block():
    printed, _ = outcome_of("""
try:
    with Interrupts() as interrupts:
        with interrupts.deferred():
            signal.raise_signal(signal.SIGINT)
            print("finished")
        print("not here")
except Interrupted:
    print("interrupted")
""")

    assert printed == ["finished", "interrupted"]


def test_after_an_interruption_further_signals_have_no_effect():
    printed, exit_code = outcome_of("""
try:
    with Interrupts():
        signal.raise_signal(signal.SIGINT)
except Interrupted:
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGTERM)
    print("calm")
""")

    assert (printed, exit_code) == (["calm"], 0)


def test_after_a_quiet_end_signals_do_what_they_did_before():
    _, exit_code = outcome_of("""
with Interrupts():
    pass
signal.raise_signal(signal.SIGTERM)
""")

    assert exit_code == -signal.SIGTERM
