"""Wrong input is one line that says what and what to do; right input does what it says."""

from __future__ import annotations

import importlib.metadata
import json
import re
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing

import pytest


def is_one_line(run, *words):
    """Whether the command ended with exit code 2 and one line that has these words in it."""
    assert run.returncode == 2, (run.returncode, run.stdout, run.stderr)
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1, run.stderr
    assert run.stderr.startswith("folkmoot: ")
    for word in words:
        assert str(word) in run.stderr
    return True


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ([], ["serve", "user", "demo", "--version"]),
        (["serve"], ["--host", "--port", "--data-dir", "--tls-cert", "--tls-key"]),
        (["user"], ["add", "invite", "password"]),
        (["user", "add"], ["--help", "--actor", "--staff", "--superuser", "--data-dir"]),
        (["user", "invite"], ["--help", "--days", "--data-dir"]),
        (["user", "password"], ["--help", "--data-dir"]),
        (["check"], ["--json", "--data-dir"]),
        (["training"], ["verify"]),
        (["training", "verify"], ["MANIFEST_OR_ID", "--round", "--data-dir"]),
        (["model"], ["show", "convert"]),
        (["model", "show"], ["FILE", "--json"]),
        (["model", "convert"], ["FILE", "OUTPUT", "--as", "--json"]),
        (["predict"], ["MODEL", "FILE", "--uncertainty", "mc-dropout:50", "On a hub", "--architecture", "--json"]),
        (["demo"], ["--participants", "--rounds", "--port", "--data-dir", "--keep", "--json"]),
    ],
)
def test_every_command_says_how_it_is_used(folkmoot, tmp_path, command, words):
    run = folkmoot(*command, "--help")

    assert run.returncode == 0
    for word in words:
        assert word in run.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [[], ["user"], ["model"]])
def test_without_a_command_the_commands_are_shown(folkmoot, command):
    run = folkmoot(*command)

    assert any(command in run.stdout for command in ("add", "serve", "show"))
    assert "Traceback" not in run.stderr


def test_the_version_is_shown(folkmoot):
    run = folkmoot("--version")

    assert (run.returncode, run.stdout.strip()) == (0, importlib.metadata.version("folkmoot"))


@pytest.mark.parametrize(
    ("command", "port"),
    [("serve", "http"), ("serve", "-1"), ("serve", "70000"), ("serve", "80.5"), ("serve", ""), ("demo", "70000")],
)
def test_a_port_that_is_none_is_refused(folkmoot, command, port):
    assert is_one_line(folkmoot(command, f"--port={port}"), "--port", f"folkmoot {command} --help")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["fly"], "fly"),
        (["serve", "--fly"], "--fly"),
        (["serve", "extra"], "extra"),
        (["user", "fly"], "fly"),
        (["user", "add"], "Missing argument"),
        (["model", "fly"], "fly"),
        (["model", "show"], "Missing argument"),
        (["demo", "--participants", "many"], "--participants"),
    ],
)
def test_what_is_no_command_is_refused(folkmoot, arguments, word):
    assert is_one_line(folkmoot(*arguments), word, "--help")


# As root there is no folder that cannot be written, but these cannot be made.
@pytest.mark.parametrize(
    ("command", "folder"),
    [
        (["serve", "--port", "0"], "file/data"),
        (["serve", "--port", "0"], "/proc/data"),
        (["serve", "--port", "0"], "/dev/null"),
        (["user", "add", "ada"], "file/data"),
    ],
)
def test_a_data_folder_that_cannot_be_written_is_refused(folkmoot, tmp_path, command, folder):
    (tmp_path / "file").touch()

    run = folkmoot(*command, "--data-dir", folder)

    assert is_one_line(run, "cannot write to the data folder", folder, "--data-dir")


def test_a_port_in_use_is_told_so(folkmoot, taken_port):
    assert is_one_line(folkmoot("serve", "--port", taken_port), f"port {taken_port}", "in use", "--port")


def test_an_address_that_is_not_this_machines_is_refused(folkmoot):
    assert is_one_line(folkmoot("serve", "--host", "192.0.2.1", "--port", "0"), "192.0.2.1", "--port")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FOLKMOOT_MAX_UPLOAD_BYTES", "20 GB"),
        ("FOLKMOOT_REGISTRATION", "ajar"),
        ("FOLKMOOT_SWEEP_SECONDS", "0"),
        ("FOLKMOOT_DATABASE_URL", "nonsense"),
    ],
)
def test_a_wrong_environment_variable_is_named(folkmoot, name, value):
    assert is_one_line(folkmoot("serve", "--port", "0", **{name: value}), name)


def test_a_database_that_does_not_answer_is_told_so(folkmoot):
    nobody = "postgres://nobody@127.0.0.1:1/nothing"

    run = folkmoot("serve", "--port", "0", FOLKMOOT_DATABASE_URL=nobody)

    assert is_one_line(run, "the database cannot be used", "FOLKMOOT_DATABASE_URL")


def test_an_unknown_command_is_told_so(folkmoot):
    assert is_one_line(folkmoot("sing"), "'sing'", "See folkmoot --help.")


def test_making_a_user_minds_the_environment_too(folkmoot):
    assert is_one_line(folkmoot("user", "add", "ada", FOLKMOOT_LEASE_SECONDS="x"), "FOLKMOOT_LEASE_SECONDS")


@pytest.mark.parametrize("option", ["--tls-cert", "--tls-key"])
def test_a_certificate_needs_its_key(folkmoot, certificate, option):
    assert is_one_line(folkmoot("serve", "--port", "0", option, certificate[0]), "--tls-cert and --tls-key")


@pytest.mark.parametrize("what", ["missing", "no certificate", "swapped"])
def test_a_certificate_that_cannot_be_used_is_refused(folkmoot, certificate, tmp_path, what):
    cert, key = certificate
    (tmp_path / "text").write_text("no certificate")
    cert, key = {
        "missing": (tmp_path / "missing", key),
        "no certificate": (tmp_path / "text", key),
        "swapped": (key, cert),
    }[what]

    assert is_one_line(
        folkmoot("serve", "--port", "0", "--tls-cert", cert, "--tls-key", key), "--tls-cert", "--tls-key"
    )


# Users


def test_a_user_is_made_and_its_token_works_at_a_hub_that_runs(folkmoot, hub_on, data):
    url = hub_on(data)

    made = folkmoot("user", "add", "ada", "--actor", "--data-dir", data)

    assert (made.returncode, made.stderr) == (0, "")
    token = made.stdout.strip()
    assert len(token) == 40
    myself = urllib.request.Request(f"{url}/api/users/myself/", headers={"Authorization": f"Token {token}"})
    with urllib.request.urlopen(myself, timeout=30) as answer:
        shown = json.load(answer)
    assert (shown["username"], shown["actor"]) == ("ada", True)
    for file in data.iterdir():
        assert file.is_dir() or token.encode() not in file.read_bytes()

    again = folkmoot("user", "add", "ada", "--data-dir", data)
    assert is_one_line(again, "there is a user 'ada' already")


def test_who_is_invited_registers_at_a_hub_that_takes_nobody_else(folkmoot, hub_on, data):
    url = hub_on(data, FOLKMOOT_REGISTRATION="invite")

    invitation = folkmoot("user", "invite", "--days", "1", "--data-dir", data).stdout.strip()

    def register(**more):
        fields = urllib.parse.urlencode({"username": "ada", "password": "open sesame, please", **more})
        with urllib.request.urlopen(f"{url}/api/users/", fields.encode(), timeout=30) as answer:
            return json.load(answer)

    with pytest.raises(urllib.error.HTTPError, match="403"):
        register()
    assert register(invitation=invitation)["username"] == "ada"


def test_a_superuser_with_a_password_gets_into_the_admin(folkmoot, hub_on, data):
    url = hub_on(data)
    folkmoot("user", "add", "root", "--superuser", "--data-dir", data)

    changed = folkmoot("user", "password", "root", "--data-dir", data, typed="open sesame\n")

    assert (changed.returncode, changed.stdout, changed.stderr) == (0, "", "")
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(f"{url}/admin/login/", timeout=30) as page:
        csrf = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.read().decode())[1]
    form = {"csrfmiddlewaretoken": csrf, "username": "root", "password": "open sesame", "next": "/admin/"}
    with browser.open(f"{url}/admin/login/", urllib.parse.urlencode(form).encode(), timeout=30) as page:
        assert "Site administration" in page.read().decode()
    style = urllib.request.urlopen(f"{url}/static/admin/css/base.css", timeout=30)
    assert style.headers["Content-Type"].startswith("text/css")


def test_staff_is_no_superuser(folkmoot, data):
    folkmoot("user", "add", "ada", "--staff", "--data-dir", data)
    folkmoot("user", "add", "root", "--superuser", "--data-dir", data)

    with closing(sqlite3.connect(data / "folkmoot.sqlite3")) as database:
        found = database.execute("select username, is_staff, is_superuser from accounts_user order by username")
        assert found.fetchall() == [("ada", 1, 0), ("first", 0, 0), ("root", 1, 1)]


@pytest.mark.parametrize("typed", ["", "\n"])
def test_a_password_that_is_none_is_refused(folkmoot, data, typed):
    assert is_one_line(
        folkmoot("user", "password", "first", "--data-dir", data, typed=typed), "a password cannot be empty"
    )


def test_a_password_of_nobody_is_refused(folkmoot, data):
    assert is_one_line(folkmoot("user", "password", "ada", "--data-dir", data, typed="x\n"), "there is no user 'ada'")


@pytest.mark.parametrize("name", ["", "a b"])
def test_a_name_that_is_none_is_refused(folkmoot, data, name):
    assert is_one_line(folkmoot("user", "add", name, "--data-dir", data), "is no user name")


# Without what an extra brings


@pytest.mark.parametrize(
    ("arguments", "missing", "sentence"),
    [
        (["--help"], "typer", "folkmoot: the command line needs typer: pip install 'folkmoot[cli]'\n"),
        (["serve"], "uvicorn", "folkmoot: this command needs uvicorn: pip install 'folkmoot[server]'\n"),
        (["user", "add", "ada"], "uvicorn", "folkmoot: this command needs uvicorn: pip install 'folkmoot[server]'\n"),
        (["demo"], "sklearn", "folkmoot: this command needs sklearn: pip install 'folkmoot[demo]'\n"),
    ],
)
def test_what_is_not_installed_is_named_with_how_to_install_it(folkmoot_without, arguments, missing, sentence):
    run = folkmoot_without(*arguments, missing=[missing])

    assert (run.returncode, run.stdout, run.stderr) == (2, "", sentence)


def test_the_commands_are_shown_without_the_server(folkmoot_without):
    assert folkmoot_without("serve", "--help", missing=["django", "uvicorn", "sklearn"]).returncode == 0
