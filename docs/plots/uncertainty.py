"""Draws the plots of uncertainty.md from scikit-learn's digits: `python docs/plots/uncertainty.py`."""

from __future__ import annotations

import warnings
from io import StringIO
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from folkmoot import uncertainty

IMAGES = Path(__file__).parent.parent / "images"
UNSEEN = 5
BLUE, ORANGE, GREY = "#1263a8", "#b4530a", "#5b6875"


def unseen_digit() -> None:
    """Mutual information of an ensemble, for digits that it knows and for one that it has never seen."""
    images, labels = digits()
    rows = np.random.default_rng(0).permutation(len(labels))
    train, test = rows[:1000], rows[1000:]
    train = train[labels[train] != UNSEEN]
    members = [
        MLPClassifier((32,), learning_rate_init=0.01, max_iter=25, random_state=seed).fit(images[train], labels[train])
        for seed in range(8)
    ]
    measures = uncertainty.measure([each.predict_proba(images[test]) for each in members])
    unseen = labels[test] == UNSEEN
    _, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    panels = {"mutual information (nats)": measures.mutual_info, "expected entropy (nats)": measures.expected_entropy}
    for ax, (name, values) in zip(axes, panels.items(), strict=True):
        draw_parts_above(ax, values[~unseen], BLUE, "digits that all members know")
        draw_parts_above(ax, values[unseen], ORANGE, f"the {UNSEEN}, which none has seen")
        ax.set(xlabel=name, title=f"AUROC {roc_auc_score(unseen, values):.2f}", xlim=(0, values.max()))
    axes[0].set_ylabel("part of images above it")
    axes[0].legend(frameon=False)
    save("uncertainty-unseen-digit")


def draw_parts_above(ax: Axes, values: np.ndarray, colour: str, label: str) -> None:
    ax.plot(np.sort(values)[::-1], np.arange(1, len(values) + 1) / len(values), color=colour, label=label)


def reliability() -> None:
    """An overconfident model, as it is and with the federated temperature."""
    images, labels = digits()
    logits, participants, new = overconfident(images, labels, seed=1)
    counted = [uncertainty.ClassStatistics.of(logits[rows], labels[rows]) for rows in participants]
    temperature = uncertainty.federated_temperature(uncertainty.merged(counted))
    _, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    draw_reliability(axes[0], "as trained", uncertainty.ClassStatistics.of(logits[new], labels[new]))
    scaled = uncertainty.temperature_scaled(logits[new], temperature)
    after = uncertainty.ClassStatistics.of(scaled, labels[new])
    draw_reliability(axes[1], f"temperature {temperature:.2f}", after)
    axes[0].set_ylabel("accuracy")
    save("uncertainty-reliability")


def draw_reliability(ax: Axes, name: str, statistics: uncertainty.ClassStatistics) -> None:
    bins = uncertainty.reliability_bins(statistics)
    centres, accuracies = [(each.lower + each.upper) / 2 for each in bins], [each.accuracy for each in bins]
    ax.bar(centres, accuracies, width=0.06, color=BLUE, alpha=0.8)
    ax.plot([0, 1], [0, 1], color=GREY, linestyle="--")
    error = uncertainty.expected_calibration_error(statistics)
    ax.set(xlabel="confidence", title=f"{name}: calibration error {100 * error:.1f} %", xlim=(0, 1), ylim=(0, 1.02))


def coverage() -> None:
    """How often prediction sets hold the right digit, and how large they are, over twenty splits."""
    images, labels = digits()
    asked = np.array([0.8, 0.85, 0.9, 0.95, 0.98, 0.99])
    found, sizes = np.array([sets_of_a_split(images, labels, asked, seed) for seed in range(20)]).mean(axis=0)
    _, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    axes[0].plot(asked, found, "o-", color=BLUE)
    axes[0].plot(asked, asked, color=GREY, linestyle="--")
    axes[0].set(xlabel="coverage asked for", ylabel="part of new digits covered")
    axes[1].plot(asked, sizes, "o-", color=ORANGE)
    axes[1].set(xlabel="coverage asked for", ylabel="digits in a set, in the mean")
    save("uncertainty-coverage")


def sets_of_a_split(
    images: np.ndarray, labels: np.ndarray, asked: np.ndarray, seed: int
) -> tuple[list[float], list[float]]:
    logits, participants, new = overconfident(images, labels, seed)
    likely = uncertainty.probabilities(logits)
    merged = uncertainty.merged([uncertainty.ClassStatistics.of(likely[rows], labels[rows]) for rows in participants])
    sets = [uncertainty.prediction_set(likely[new], uncertainty.threshold(merged, each)) for each in asked]
    right = np.arange(len(new)), labels[new]
    return [each[right].mean() for each in sets], [each.sum(axis=1).mean() for each in sets]


def overconfident(images: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    """Logits of all digits from a model of 150, the rows of three participants, and rows that nobody has."""
    rows = np.random.default_rng(seed).permutation(len(labels))
    train, *participants, new = np.split(rows, [150, 300, 600, 1000])
    model = LogisticRegression(C=10_000, max_iter=1000).fit(images[train], labels[train])
    return model.decision_function(images), participants, new


def digits() -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    return images / 16, labels


def save(name: str) -> None:
    """The same bytes each time, so that a plot changes only when what it shows does."""
    plt.tight_layout()
    drawn = StringIO()
    plt.savefig(drawn, metadata={"Date": None})
    plt.close()
    # Lines end with blanks, which no file of the project has.
    (IMAGES / f"{name}.svg").write_text("".join(f"{line.rstrip()}\n" for line in drawn.getvalue().splitlines()))


if __name__ == "__main__":
    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "folkmoot", "svg.fonttype": "none", "axes.spines.top": False})
    mpl.rcParams.update({"axes.spines.right": False, "font.size": 10, "axes.titlesize": 10})
    warnings.filterwarnings(
        "ignore", message="Stochastic Optimizer"
    )  # the members are good enough before they converge
    unseen_digit()
    reliability()
    coverage()
