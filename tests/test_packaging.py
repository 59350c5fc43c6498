"""What `pip install folkmoot` brings, and what holds the project together."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(name): version
    for name, version in (line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()[1:])
}


def required(*extras: str) -> list[Requirement]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return [one for one in map(Requirement, lines) if one.name != "folkmoot"]


def modules_after(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after `statement`."""
    program = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    )


def test_the_base_install_is_light() -> None:
    light = {"cryptography", "httpx2", "ml-dtypes", "numpy", "safetensors", "zstandard"}
    assert {one.name for one in required()} <= light


@pytest.mark.parametrize(
    "package",
    [
        "folkmoot.client",
        "folkmoot.sandbox",
        "folkmoot.aggregation",
        "folkmoot.tensors",
        "folkmoot.protocol",
        "folkmoot.uncertainty",
    ],
)
def test_what_a_participant_imports_loads_neither_the_server_nor_a_framework(package: str) -> None:
    loaded = modules_after(f"import {package}")
    assert not loaded & {"celery", "django", "rest_framework", "rich", "sklearn", "torch", "typer"}


def test_the_core_does_without_http() -> None:
    assert "httpx2" not in modules_after("import folkmoot.aggregation, folkmoot.tensors, folkmoot.protocol")


@pytest.mark.parametrize("one", required(*PROJECT["optional-dependencies"]), ids=lambda one: one.name)
def test_every_dependency_is_pinned_within_its_range(one: Requirement) -> None:
    assert one.specifier.contains(PINS[canonicalize_name(one.name)])


def test_every_pin_is_for_the_python_of_debian_12_too() -> None:
    wanted = {
        one.name: SpecifierSet(one.metadata.get("Requires-Python") or "")
        for one in importlib.metadata.distributions()
        if canonicalize_name(one.name) in PINS
    }
    assert [name for name, pythons in wanted.items() if not pythons.contains("3.11.2")] == []


def test_the_build_backend_is_pinned() -> None:
    assert {"hatchling", "editables"} <= PINS.keys()


def test_the_changelog_begins_with_this_version() -> None:
    newest = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["version"]


def test_make_lists_its_targets() -> None:
    listed = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for target in ("demo", "test", "lint", "bench", "serve", "docs"):
        assert f"make {target} " in listed


def test_imports_run_one_way() -> None:
    check = [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"]
    result = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_make_says_what_to_install_where_python_is_too_old(tmp_path: Path) -> None:
    said = make_with_a_python_that(tmp_path, """case "$2" in *version_info*) exit 1;; esac""")
    assert "Folkmoot needs Python 3.11 or newer" in said
    assert "sudo apt-get install" in said


def test_make_says_what_to_install_where_venv_is_missing(tmp_path: Path) -> None:
    said = make_with_a_python_that(tmp_path, """case "$2" in *ensurepip*) exit 1;; esac""")
    assert "sudo apt-get install python3-venv" in said


def make_with_a_python_that(tmp_path: Path, behaves: str) -> str:
    """Run `make demo` in an empty checkout with a stand-in for Python; return the one line it ends with."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).symlink_to(ROOT / name)
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{behaves}\n")
    python.chmod(0o755)
    result = subprocess.run(["make", "demo", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode != 0
    (line,) = [line for line in result.stderr.splitlines() if not line.startswith("make")]
    return line
