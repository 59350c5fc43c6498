"""On real digits, a network with dropout knows what it has never seen."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from folkmoot.sandbox import Sampling
from folkmoot.uncertainty import measure

torch = pytest.importorskip("torch")
nn = torch.nn

UNSEEN = 5


@pytest.fixture
def one_thread():
    """More are slower for a network so small, many times so on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_samples_with_dropout_disagree_more_on_a_digit_that_the_network_has_not_seen(sandbox, model_of):
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    rows = np.random.default_rng(0).permutation(len(labels))
    train, test = rows[:1000], rows[1000:1400]
    train = train[labels[train] != UNSEEN]
    model = model_of(trained(images[train], labels[train]))

    samples = sandbox.predict(model, images[test], Sampling("MC_DROPOUT", samples=50))

    disagreement = measure(samples).mutual_info
    unseen = labels[test] == UNSEEN
    assert disagreement[unseen].mean() > disagreement[~unseen].mean()
    assert roc_auc_score(unseen, disagreement) >= 0.8


def trained(images, labels):
    """Ends before its softmax, as networks are trained."""
    torch.manual_seed(0)
    network = nn.Sequential(
        *(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5)),
        *(nn.Linear(128, 128), nn.ReLU(), nn.Dropout(0.5)),
        nn.Linear(128, 10),
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    inputs, targets = torch.from_numpy(images), torch.from_numpy(labels)
    for _ in range(100):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), targets).backward()
        optimizer.step()
    return network
