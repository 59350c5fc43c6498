"""The demo as a newcomer runs it: real processes, real signals."""

import json
import os
import pty
import re
import signal
import socket
import urllib.request
from pathlib import Path

import psutil
import pytest

SMALL = ("--participants", 2, "--rounds", 2)
LONG = ("--participants", 2, "--rounds", 30)


def left_behind():
    return list(Path(os.environ["TMPDIR"]).iterdir())


def test_the_demo_learns_more_together_than_anyone_alone(start_demo):
    demo = start_demo("--json")

    assert demo.process.wait(60) == 0, demo.errors

    (line,) = demo.output.splitlines()
    outcome = json.loads(line)
    assert outcome["state"] == "C"
    assert (outcome["rounds"], outcome["participants"]) == (5, 3)
    assert len(outcome["accuracy"]) == len(outcome["round_seconds"]) == len(outcome["idle_seconds"]) == 5
    assert len(outcome["alone"]) == 3
    assert outcome["accuracy"][-1] >= 0.93
    assert outcome["accuracy"][-1] > max(outcome["alone"])
    assert 0 < sum(outcome["idle_seconds"]) < sum(outcome["round_seconds"]) < outcome["seconds"]
    assert re.fullmatch("[0-9a-f-]{36}", outcome["training_id"])
    assert demo.errors.count("of 5: accuracy") == 5
    assert "/api/schema/swagger-ui/" in demo.errors
    assert (demo.family(), left_behind()) == ({}, [])


def test_a_data_folder_can_be_used_again(start_demo, tmp_path):
    for _ in range(2):
        demo = start_demo("--json", *SMALL, "--data-dir", tmp_path / "data")
        assert demo.process.wait(60) == 0, demo.errors
        assert json.loads(demo.output)["state"] == "C"

    assert (tmp_path / "data" / "lock").exists()
    assert left_behind() == []


def server_is_there(demo):
    return demo.children_with("serve")


def participants_are_there(demo):
    return len(demo.children_with("folkmoot.demo.participant")) == 2


def a_round_is_over(demo):
    return "round 1 of" in demo.errors


@pytest.mark.parametrize(
    ("moment", "number", "exit_code"),
    [
        (server_is_there, signal.SIGINT, 130),
        (participants_are_there, signal.SIGINT, 130),
        (a_round_is_over, signal.SIGINT, 130),
        (a_round_is_over, signal.SIGTERM, 143),
    ],
)
def test_a_demo_that_is_interrupted_leaves_nothing_behind(start_demo, wait_until, moment, number, exit_code):
    demo = start_demo(*LONG)
    wait_until(lambda: moment(demo))

    demo.process.send_signal(number)

    assert demo.process.wait(20) == exit_code
    assert (demo.family(), left_behind()) == ({}, [])
    assert demo.errors.splitlines()[-1] == "folkmoot: stopped"
    assert "Traceback" not in demo.errors


def test_whoever_presses_ctrl_c_many_times_changes_nothing(start_demo, wait_until):
    demo = start_demo(*LONG)
    wait_until(lambda: a_round_is_over(demo))

    def is_over_after_another():
        demo.process.send_signal(signal.SIGINT)
        return demo.process.poll() is not None

    wait_until(is_over_after_another)
    assert demo.process.returncode == 130
    assert (demo.family(), left_behind()) == ({}, [])
    assert demo.errors.splitlines()[-1] == "folkmoot: stopped"
    assert "Traceback" not in demo.errors


@pytest.mark.parametrize("moment", [server_is_there, a_round_is_over])
def test_no_process_outlives_a_demo_that_is_killed(start_demo, wait_until, moment):
    demo = start_demo(*LONG)
    wait_until(lambda: moment(demo))

    demo.process.kill()
    demo.process.wait()

    wait_until(lambda: demo.family() == {}, seconds=5)


@pytest.mark.parametrize(("word", "name"), [("serve", "server"), ("folkmoot.demo.participant", "participant-")])
def test_a_process_that_dies_ends_the_demo_with_one_line(start_demo, wait_until, word, name):
    demo = start_demo(*LONG)
    wait_until(lambda: a_round_is_over(demo))

    psutil.Process(demo.children_with(word)[0]).kill()

    assert demo.process.wait(20) == 1
    assert re.fullmatch(rf"folkmoot: the process {name}\d? ended .* exit code -9", demo.errors.splitlines()[-1])
    assert "Traceback" not in demo.errors
    assert (demo.family(), left_behind()) == ({}, [])


def test_a_port_in_use_is_one_line(start_demo):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        demo = start_demo("--port", port)
        assert demo.process.wait(30) == 2

    (line,) = demo.errors.splitlines()
    assert f"port {port}" in line
    assert (demo.family(), left_behind()) == ({}, [])


def test_a_data_folder_that_cannot_be_written_is_one_line(start_demo, tmp_path):
    (tmp_path / "file").touch()

    demo = start_demo("--data-dir", tmp_path / "file" / "data")

    assert demo.process.wait(30) == 2
    (line,) = demo.errors.splitlines()
    assert str(tmp_path / "file" / "data") in line
    assert (demo.family(), left_behind()) == ({}, [])


@pytest.mark.parametrize("options", [("--participants", 1), ("--participants", 21), ("--rounds", 0), ("--port", 70000)])
def test_an_option_that_is_out_of_range_is_one_line(start_demo, options):
    demo = start_demo(*options)

    assert demo.process.wait(30) == 2
    (line,) = demo.errors.splitlines()
    assert options[0] in line


def test_keep_goes_on_serving_until_ctrl_c(start_demo, wait_until):
    demo = start_demo("--json", "--keep", *SMALL)
    wait_until(lambda: "Still serving at" in demo.errors)
    url = re.search(r"Still serving at (\S+);", demo.errors).group(1)

    with urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer:
        assert answer.status == 200
    demo.process.send_signal(signal.SIGINT)

    assert demo.process.wait(20) == 0
    assert json.loads(demo.output)["state"] == "C"
    assert (demo.family(), left_behind()) == ({}, [])


def test_settings_of_another_hub_do_not_matter(start_demo, monkeypatch):
    for name in ("FOLKMOOT_URL", "FOLKMOOT_DATABASE_URL", "FOLKMOOT_REGISTRATION", "DJANGO_SETTINGS_MODULE"):
        monkeypatch.setenv(name, "nonsense")

    demo = start_demo("--json", *SMALL)

    assert demo.process.wait(60) == 0, demo.errors


def test_on_a_terminal_a_table_shows_who_is_awaited(start_demo):
    ours, terminal = pty.openpty()
    demo = start_demo(*SMALL, terminal=terminal)
    os.close(terminal)

    shown = "".join(iter(lambda: read(ours), ""))

    assert demo.process.wait(10) == 0
    assert "Round 2 of 2" in shown
    assert "awaited" in shown
    assert "weighted" in shown
    assert "together; each participant alone" in shown


def read(terminal):
    try:
        return os.read(terminal, 4096).decode(errors="replace")
    except OSError:  # nobody has the other side any more
        return ""
