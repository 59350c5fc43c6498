"""On real digits, an ensemble knows what it has never seen."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier

from folkmoot.uncertainty import measure

UNSEEN = 5


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")  # the members are good enough before they converge
def test_members_disagree_more_on_a_digit_that_none_has_seen() -> None:
    images, labels = load_digits(return_X_y=True)
    rows = np.random.default_rng(0).permutation(len(labels))
    train, test = rows[:1000], rows[1000:]
    train = train[labels[train] != UNSEEN]
    members = [
        MLPClassifier((32,), learning_rate_init=0.01, max_iter=25, tol=0, random_state=seed).fit(
            images[train] / 16, labels[train]
        )
        for seed in range(8)
    ]
    disagreement = measure([each.predict_proba(images[test] / 16) for each in members]).mutual_info
    unseen = labels[test] == UNSEEN
    assert disagreement[unseen].mean() > disagreement[~unseen].mean()
    assert roc_auc_score(unseen, disagreement) >= 0.8
