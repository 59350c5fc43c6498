"""The digits and the network; nothing here knows of a hub."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

torch.set_num_threads(1)  # more would only stand in each other's way, with a model as small as this


def load(participants: int = 3) -> tuple[list, tuple]:
    """Images and labels: a share for each participant, and what is held out to judge by.

    No participant has seen all digits: of three, the first has no 0, 3, 6 and 9, the second no 1, 4 and 7, and the
    third no 2, 5 and 8.
    """
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)[order]
    labels = torch.tensor(labels)[order]
    held_out, images, labels = (images[:360], labels[:360]), images[360:], labels[360:]
    row = torch.arange(len(labels))
    mine = [(row % participants == number) & (labels % participants != number) for number in range(participants)]
    return [(images[rows], labels[rows]) for rows in mine], held_out


def new_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(128, 10),
    )


def train(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, epochs: int, seed: int = 0) -> float:
    """Change `network` in place; returns the loss of the last batch."""
    torch.manual_seed(seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(32):
            optimizer.zero_grad()
            loss = cross_entropy(network(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
    return loss.item()


@torch.no_grad()
def accuracy(network: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    network.eval()
    return (network(images).argmax(1) == labels).float().mean().item()
