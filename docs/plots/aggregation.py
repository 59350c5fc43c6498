"""Draws the figures of docs/aggregation.md: how well each strategy does with digits that participants hold unevenly.

    pip install 'folkmoot[demo]' matplotlib
    python docs/plots/aggregation.py

It takes some two minutes on one core, writes docs/images/aggregation-*.svg and prints where each line ends.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from federation import Run, Split, share_out, simulate
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from folkmoot.demo.digits import load_digits
from folkmoot.demo.examples import Examples

IMAGES = Path(__file__).parent.parent / "images"

SEEDS = (0, 1, 2)
"""Each curve is the mean over so many splits, first models and orders of examples."""


@dataclass(frozen=True)
class Line:
    """What was measured of a run, as the mean over the seeds."""

    label: str
    seconds: Sequence[float]
    accuracy: Sequence[float]
    worst: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """Some of a figure's lines beside one another; `shown` is what of them."""

    title: str
    shown: str
    labels: Sequence[str]


@dataclass(frozen=True)
class Figure:
    """`arrange` says what is peculiar about the participants; a run ends after `rounds`, or `x_limit` seconds."""

    name: str
    runs: Sequence[Run]
    panels: Sequence[Panel]
    arrange: Callable[[Split, Run], Split]
    rounds: int = 30
    x_label: str = "rounds"
    x_limit: float = 30


def line(figure: Figure, run: Run, digits: Examples, rounds: int) -> Line:
    splits = {seed: figure.arrange(share_out(digits, seed), run) for seed in SEEDS}
    curves = [simulate(run, split, seed, rounds=rounds, seconds=figure.x_limit) for seed, split in splits.items()]
    together = list(zip(*curves, strict=False))  # as far as all of them got
    return Line(
        run.label,
        [points[0].seconds for points in together],
        [float(np.mean([point.accuracy for point in points])) for points in together],
        [float(np.mean([point.worst for point in points])) for points in together],
    )


def draw(figure: Figure, lines: Mapping[str, Line], path: Path) -> None:
    canvas, places = plt.subplots(1, len(figure.panels), figsize=(9, 4.8), sharey=True)
    for axes, panel in zip(places, figure.panels, strict=True):
        _draw_panel(axes, panel, [lines[label] for label in panel.labels])
        axes.set(title=panel.title, xlabel=figure.x_label, xlim=(0, figure.x_limit), ylim=(0, 1))
    places[0].set_ylabel("accuracy")
    canvas.tight_layout()
    canvas.savefig(path, metadata={"Date": None})
    plt.close(canvas)


def _draw_panel(axes: Axes, panel: Panel, lines: Sequence[Line]) -> None:
    for each in lines:
        axes.plot(each.seconds, getattr(each, panel.shown), label=each.label, **STYLES[each.label])
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=2, frameon=False)


GREY = "#808080"
"""To be read on white and on black."""
LOOK = {
    "axes.edgecolor": GREY,
    "axes.labelcolor": GREY,
    "axes.titlesize": "medium",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "grid.color": GREY,
    "legend.fontsize": "small",
    "lines.linewidth": 1.8,
    "savefig.transparent": True,
    "svg.hashsalt": "folkmoot",
    "text.color": GREY,
    "xtick.color": GREY,
    "ytick.color": GREY,
}
# Of Okabe and Ito, "Color universal design": to be told apart with any colour vision. Dashes help where all else fails.
BLUE, ORANGE, GREEN, RED, SKY, PINK = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
DASHED, DOTTED, MIXED = (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5))


def _style(color: str, dashes: Any = "-") -> dict[str, Any]:
    return {"color": color, "linestyle": dashes}


STYLES = {
    "FedAvg": _style(GREY),
    "FedAvg, no attack": _style(GREY, DASHED),
    "FedAvg without the slow one": _style(ORANGE, DASHED),
    "FedBuff": _style(BLUE),
    "FedProx": _style(ORANGE, DASHED),
    "FedNova": _style(GREEN, MIXED),
    "q-FedAvg": _style(PINK, DOTTED),
    "SCAFFOLD": _style(BLUE),
    "FedAvgM": _style(ORANGE, DASHED),
    "FedAdagrad": _style(GREEN, MIXED),
    "FedAdam": _style(BLUE),
    "FedYogi": _style(PINK, DOTTED),
    "Median": _style(ORANGE, DASHED),
    "TrimmedMean": _style(GREEN, MIXED),
    "Krum": _style(RED, DOTTED),
    "MultiKrum": _style(BLUE),
    "Bulyan": _style(PINK, DASHED),
    "RFA": _style(BLUE),
    "CenteredClipping": _style(GREEN, MIXED),
    "FedAvg, clip": _style(ORANGE, DASHED),
    "FedAvg, screen": _style(PINK, DOTTED),
}

EPOCHS = (1, 6)
"""Of every other participant, where they take unequal numbers of steps."""
NUM_ATTACKERS = 2
ATTACK = -10.0
SLOW_SECONDS = 6.0
MU = 0.1


def _of_unequal_steps(split: Split, run: Run) -> Split:
    half = len(split.participants) // 2
    every_other = zip(split.participants, EPOCHS * half, strict=True)
    return replace(split, participants=[replace(each, epochs=epochs) for each, epochs in every_other])


def _as_they_are(split: Split, run: Run) -> Split:
    return split


def _attacked(split: Split, run: Run) -> Split:
    """Two more join: they have the digits of two others, and send ten times the opposite of what they learn."""
    if run.label == "FedAvg, no attack":
        return split
    joining = [replace(each, id=f"{each.id}x", factor=ATTACK) for each in split.participants[:NUM_ATTACKERS]]
    return replace(split, participants=[*split.participants, *joining])


def _with_a_slow_one(split: Split, run: Run) -> Split:
    seconds = [SLOW_SECONDS, *np.linspace(0.8, 1.2, len(split.participants) - 1).tolist()]
    timed = [
        replace(each, seconds=each_seconds) for each, each_seconds in zip(split.participants, seconds, strict=True)
    ]
    if run.label == "FedAvg without the slow one":
        return replace(split, participants=timed[1:], left_out=timed[:1])
    return replace(split, participants=timed)


MEANS = ["FedAvg", "FedProx", "FedNova", "q-FedAvg", "SCAFFOLD"]
OPTIMIZERS = ["FedAvg", "FedAvgM", "FedAdagrad", "FedAdam", "FedYogi"]
TIMED = ["FedAvg", "FedAvg without the slow one", "FedBuff"]
NOBODY_KNOWS, WORST = "held-out digits", "the participant that fares worst"

FIGURES = (
    Figure(
        "means",
        [
            Run("FedAvg", "FedAvg"),
            Run("FedProx", "FedProx", proximal_mu=MU),
            Run("FedNova", "FedNova"),
            Run("q-FedAvg", "q-FedAvg", {"q": 1.0, "local_learning_rate": 10.0}),
            Run("SCAFFOLD", "SCAFFOLD"),
        ],
        [Panel(NOBODY_KNOWS, "accuracy", MEANS), Panel(WORST, "worst", MEANS)],
        _of_unequal_steps,
    ),
    Figure(
        "optimizers",
        [Run(name, name) for name in OPTIMIZERS],
        [Panel(NOBODY_KNOWS, "accuracy", OPTIMIZERS), Panel(WORST, "worst", OPTIMIZERS)],
        _as_they_are,
    ),
    Figure(
        "robust",
        [
            Run("FedAvg, no attack", "FedAvg"),
            Run("FedAvg", "FedAvg"),
            Run("Median", "Median"),
            Run("TrimmedMean", "TrimmedMean", {"trim": 0.2}),
            Run("Krum", "Krum", {"num_byzantine": NUM_ATTACKERS}),
            Run("MultiKrum", "MultiKrum", {"num_byzantine": NUM_ATTACKERS}),
            Run("Bulyan", "Bulyan", {"num_byzantine": NUM_ATTACKERS}),
            Run("RFA", "RFA"),
            Run("CenteredClipping", "CenteredClipping", {"radius": 1.0}),
            Run("FedAvg, clip", "FedAvg", {"clip": 1.0}),
            Run("FedAvg, screen", "FedAvg", {"screen": {"score": "relative_norm", "bound": 3.0}}),
        ],
        [
            Panel(
                "by value, and by neighbours",
                "accuracy",
                ["FedAvg, no attack", "FedAvg", "Median", "TrimmedMean", "Krum", "MultiKrum", "Bulyan"],
            ),
            Panel(
                "by distance",
                "accuracy",
                ["FedAvg, no attack", "FedAvg", "RFA", "CenteredClipping", "FedAvg, clip", "FedAvg, screen"],
            ),
        ],
        _attacked,
    ),
    Figure(
        "buffered",
        [
            Run("FedAvg", "FedAvg"),
            Run("FedAvg without the slow one", "FedAvg"),
            Run("FedBuff", "FedBuff", {"buffer_size": 5, "max_staleness": 20}),
        ],
        [Panel(NOBODY_KNOWS, "accuracy", TIMED), Panel(WORST, "worst", TIMED)],
        _with_a_slow_one,
        rounds=100,
        x_label="simulated seconds",
        x_limit=45,
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=IMAGES, help="where to write the figures")
    parser.add_argument("--rounds", type=int, help="at most so many, to see that it works")
    parser.add_argument("--format", default="svg", choices=("svg", "png"))
    arguments = parser.parse_args()
    mpl.use("Agg")
    mpl.rcParams.update(LOOK)
    digits = load_digits()
    for figure in FIGURES:
        rounds = min(figure.rounds, arguments.rounds or figure.rounds)
        lines = {run.label: line(figure, run, digits, rounds) for run in figure.runs}
        draw(figure, lines, arguments.folder / f"aggregation-{figure.name}.{arguments.format}")
        for each in lines.values():
            print(  # noqa: T201 (it is a program)
                f"{figure.name:<12}{each.label:<30}{_end(each.accuracy)}  worst {_end(each.worst)}"
            )


def _end(values: Sequence[float]) -> str:
    """The mean over the last sixth of a line, which goes up and down."""
    return f"{np.mean(values[-max(len(values) // 6, 1) :]):.3f}" if values else "-"


if __name__ == "__main__":
    main()
