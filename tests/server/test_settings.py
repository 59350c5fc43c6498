"""Settings come from the environment; a wrong one is named, not guessed at."""

from __future__ import annotations

import ast
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from folkmoot.errors import Misconfigured
from folkmoot.server import environment as env
from folkmoot.server import secret_key


@pytest.fixture
def given(monkeypatch):
    """A function that sets the one variable of these tests."""
    return lambda value: monkeypatch.setenv("FOLKMOOT_X", value)


READERS = {
    "whole number": (lambda: env.whole_number("FOLKMOOT_X", 7), 7),
    "seconds": (lambda: env.seconds("FOLKMOOT_X", 1.5), 1.5),
    "flag": (lambda: env.flag("FOLKMOOT_X", True), True),
    "choice": (lambda: env.choice("FOLKMOOT_X", "open", ("open", "closed")), "open"),
    "names": (lambda: env.names("FOLKMOOT_X", "a, b"), ["a", "b"]),
    "text": (lambda: env.text("FOLKMOOT_X", "t"), "t"),
}


@pytest.mark.parametrize("kind", READERS)
def test_what_is_not_set_has_a_default(kind):
    read, default = READERS[kind]

    assert read() == default


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("whole number", " 12 ", 12),
        ("seconds", "0.5", 0.5),
        ("seconds", "30", 30.0),
        ("flag", "false", False),
        ("flag", "No", False),
        ("flag", "0", False),
        ("flag", "TRUE", True),
        ("flag", "1", True),
        ("choice", "closed", "closed"),
        ("names", "a.example, [::1],,b", ["a.example", "[::1]", "b"]),
        ("names", "", []),
    ],
)
def test_what_is_set_is_read(given, kind, text, value):
    given(text)

    assert READERS[kind][0]() == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("whole number", ""),
        ("whole number", "0"),
        ("whole number", "-1"),
        ("whole number", "1.5"),
        ("whole number", "1_000"),
        ("whole number", "many"),
        ("whole number", "\u0663"),
        ("seconds", "0"),
        ("seconds", "-1"),
        ("seconds", "nan"),
        ("seconds", "inf"),
        ("seconds", "soon"),
        ("flag", "perhaps"),
        ("flag", "2"),
        ("choice", "ajar"),
        ("choice", "Open"),
    ],
)
def test_what_makes_no_sense_is_named_with_what_came(given, kind, text):
    given(text)

    with pytest.raises(Misconfigured) as caught:
        READERS[kind][0]()
    assert caught.value.message.startswith(f"FOLKMOOT_X is {text!r}; it must be ")


def settings_with(**environment):
    """Load the settings in a process of their own; return its error."""
    program = (
        "from folkmoot.errors import Misconfigured\n"
        "try:\n    import folkmoot.server.settings\n"
        "except Misconfigured as error:\n    print(error.message)\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
    run = subprocess.run(
        [sys.executable, "-c", program], env=clean | environment, capture_output=True, text=True, timeout=60, check=True
    )
    return run.stdout.strip()


def test_every_variable_of_the_settings_is_checked():
    """One process for all: each wrong value is found although the others are right."""
    wrong = {
        "FOLKMOOT_REGISTRATION": "ajar",
        "FOLKMOOT_PARTICIPANTS_MAY_STEER": "perhaps",
        "FOLKMOOT_MAX_UPLOAD_BYTES": "20 GB",
        "FOLKMOOT_MAX_JSON_BYTES": "-1",
        "FOLKMOOT_MAX_NUM_EXAMPLES": "0",
        "FOLKMOOT_LEASE_SECONDS": "0",
        "FOLKMOOT_SWEEP_SECONDS": "often",
        "FOLKMOOT_ORPHAN_GRACE_SECONDS": "-3",
        "FOLKMOOT_RETRY_SECONDS": "nan",
        "FOLKMOOT_LOG_LEVEL": "LOUD",
    }
    program = (
        "import importlib, json, os, sys\n"
        "from folkmoot.errors import Misconfigured\n"
        "for name, value in json.loads(sys.argv[1]).items():\n"
        "    os.environ[name] = value\n"
        "    try:\n        importlib.import_module('folkmoot.server.settings')\n        print('no error', name)\n"
        "    except Misconfigured as error:\n        print(error.message)\n"
        "    del os.environ[name]\n"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
    run = subprocess.run(
        [sys.executable, "-c", program, json.dumps(wrong)],
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert [line.split("; ")[0] for line in run.stdout.splitlines()] == [
        f"{name} is {value!r}" for name, value in wrong.items()
    ]


@pytest.mark.parametrize("url", ["nonsense", "magic://user:secret-word@host/name"])
def test_a_database_address_that_is_none_is_named_without_its_password(url):
    said = settings_with(FOLKMOOT_DATABASE_URL=url)

    assert said.startswith("FOLKMOOT_DATABASE_URL is no database URL")
    assert "secret-word" not in said


def test_options_in_the_database_address_stand_beside_ours_and_go_before_them():
    program = "from folkmoot.server import settings\nprint(settings.DATABASES['default']['OPTIONS'])"
    url = "postgres://host/name?connect_timeout=3&sslmode=require&options=-c%20search_path%3Dhub"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**clean, "FOLKMOOT_DATABASE_URL": url, "FOLKMOOT_SECRET_KEY": "x" * 50},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    options = ast.literal_eval(run.stdout)

    assert (int(options["connect_timeout"]), options["sslmode"]) == (3, "require")
    assert options["tcp_user_timeout"] == 10_000
    assert "-c statement_timeout=10s" in options["options"]
    assert options["options"].endswith(" -c search_path=hub")


def test_passwords_are_kept_by_argon2():
    from folkmoot.server import settings

    assert settings.PASSWORD_HASHERS == ["django.contrib.auth.hashers.Argon2PasswordHasher"]


def test_the_hub_never_shows_its_insides():
    from folkmoot.server import settings

    assert settings.DEBUG is False


def test_registration_is_closed_unless_it_is_opened():
    said = "from folkmoot.server import settings\nprint(settings.REGISTRATION)"
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FOLKMOOT_")}
    run = subprocess.run(
        [sys.executable, "-c", said], env=clean, capture_output=True, text=True, timeout=60, check=True
    )

    assert run.stdout.strip() == "closed"


# The secret key


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    secret_key.make(tmp_path)

    path = tmp_path / "secret_key"
    first = path.read_text()
    assert len(first) >= 50
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    secret_key.make(tmp_path)
    assert path.read_text() == first
    assert list(tmp_path.iterdir()) == [path]


def test_the_kept_key_is_used(tmp_path, monkeypatch):
    monkeypatch.delenv("FOLKMOOT_SECRET_KEY", raising=False)
    secret_key.make(tmp_path)

    assert secret_key.from_environment_or_folder(tmp_path) == (tmp_path / "secret_key").read_text()


def test_a_given_key_goes_before_the_kept_one(tmp_path, monkeypatch):
    secret_key.make(tmp_path)
    monkeypatch.setenv("FOLKMOOT_SECRET_KEY", "given")

    assert secret_key.from_environment_or_folder(tmp_path) == "given"


def test_looking_for_a_key_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("FOLKMOOT_SECRET_KEY", raising=False)
    missing = tmp_path / "missing"

    keys = {secret_key.from_environment_or_folder(missing) for _ in range(2)}

    assert len(keys) == 2
    assert not missing.exists()


def test_a_key_that_cannot_be_read_is_told_so(tmp_path, monkeypatch):
    monkeypatch.delenv("FOLKMOOT_SECRET_KEY", raising=False)
    (tmp_path / "secret_key").mkdir()

    with pytest.raises(Misconfigured, match="secret_key: Is a directory"):
        secret_key.from_environment_or_folder(tmp_path)


def test_processes_that_make_a_key_at_once_agree_on_it(tmp_path):
    program = (
        "import sys; from pathlib import Path; from folkmoot.server import secret_key\n"
        "sys.stdin.readline(); secret_key.make(Path(sys.argv[1]))\n"
        "print((Path(sys.argv[1]) / 'secret_key').read_text())"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    makers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for maker in makers:
        maker.stdin.write("go\n")
        maker.stdin.flush()
    keys = {maker.communicate(timeout=60)[0] for maker in makers}

    assert len(keys) == 1
    assert [path.name for path in Path(tmp_path).iterdir()] == ["secret_key"]
