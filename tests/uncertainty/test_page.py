"""docs/uncertainty.md: its programs run and print what it says they do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from folkmoot.uncertainty import ClassStatistics, RegressionStatistics

DOCS = Path(__file__).parent.parent.parent / "docs"
PAGE = (DOCS / "uncertainty.md").read_text()
NUMBER = re.compile(r"\d+\.\d+")


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_the_pages_programs_print_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.+?)```\n\n```text\n(.+?)```", PAGE, re.DOTALL)
    for program, said in blocks:
        exec(program, names)
        printed = capsys.readouterr().out
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", said)
        # Training is not the same to the last digit on every processor.
        expected = [pytest.approx(float(number), abs=0.021, rel=0.1) for number in NUMBER.findall(said)]
        assert [float(number) for number in NUMBER.findall(printed)] == expected
    assert len(blocks) == PAGE.count("```python") == 3


def test_the_page_names_every_field_and_its_length() -> None:
    lengths = {
        name: int(length.replace(",", ""))
        for names, length in re.findall(r"^\| (`.+?`) \| ([\d,]+) \|", PAGE, re.MULTILINE)
        for name in re.findall(r"`(\w+)`", names)
    }
    assert lengths == ClassStatistics.LENGTHS | RegressionStatistics.LENGTHS


@pytest.mark.parametrize("plot", sorted(DOCS.glob("images/uncertainty-*.svg")), ids=lambda plot: plot.name)
def test_plots_are_small_and_shown(plot: Path) -> None:
    assert plot.stat().st_size < 100_000
    assert f"(images/{plot.name})" in PAGE
