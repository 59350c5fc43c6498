"""What the documentation says is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/*.md")])
# Not for users: they let tests kill a process at a named point.
INTERNAL = {"FOLKMOOT_TEST_FAULT"}


def test_every_environment_variable_is_documented_and_nothing_else() -> None:
    read = {
        name
        for file in ROOT.glob("src/**/*.py")
        for name in re.findall(r"[\"'](FOLKMOOT_[A-Z_]+)[\"']", file.read_text())
    }
    table = (ROOT / "docs/configuration.md").read_text()
    assert set(re.findall(r"^\| `(FOLKMOOT_[A-Z_]+)`", table, re.MULTILINE)) == read - INTERNAL


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
