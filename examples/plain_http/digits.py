"""The digits, and how to train and judge a model with PyTorch; nothing here knows of a hub."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector

EPOCHS = 5
torch.set_num_threads(1)  # more would only stand in each other's way, with a model as small as this
# PyTorch draws dropout from one generator for the whole process: participants that share one train in turn.
ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Digits:
    """`images`: float32 in 0..1, (n, 1, 8, 8); `labels`: int64, (n,)."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, chosen: Tensor) -> Digits:
        return Digits(self.images[chosen], self.labels[chosen])


def split(participants: int) -> tuple[list[Digits], Digits]:
    """A share for each participant, and what is held out to judge by.

    No participant has seen all digits: of three, the first has no 0, 3, 6 and 9, the second no 1, 4 and 7, and the
    third no 2, 5 and 8.
    """
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    digits = Digits(torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels))
    held_out, rest = digits.where(order[:360]), digits.where(order[360:])
    row = torch.arange(len(rest))
    mine = [(row % participants == number) & (rest.labels % participants != number) for number in range(participants)]
    return [rest.where(each) for each in mine], held_out


def new_model(seed: int = 0) -> torch.jit.ScriptModule:
    """A model that knows nothing yet, with convolutions and dropout; TorchScript, whose files bring their own code."""
    torch.manual_seed(seed)
    layers = nn.Sequential(
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
    return torch.jit.script(layers)


def to_bytes(thing: torch.jit.ScriptModule | Tensor) -> bytes:
    file = io.BytesIO()
    (torch.jit.save if isinstance(thing, torch.jit.ScriptModule) else torch.save)(thing, file)
    return file.getvalue()


def from_bytes(file: bytes) -> torch.jit.ScriptModule:
    return torch.jit.load(io.BytesIO(file))


def train(model: nn.Module, digits: Digits, *, epochs: int = EPOCHS, proximal_mu: float = 0, seed: int = 0) -> float:
    """Change `model` in place; returns the loss of the last batch.

    With `proximal_mu` it is kept near where it began. Source: Li et al. 2020, Algorithm 2, the term
    mu/2 |w - w_t|^2, https://arxiv.org/abs/1812.06127
    """
    beginning = parameters_to_vector(model.parameters()).detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    with ONE_AT_A_TIME:
        torch.manual_seed(seed)
        model.train()
        for _ in range(epochs):
            for batch in torch.randperm(len(digits)).split(32):
                optimizer.zero_grad()
                loss = cross_entropy(model(digits.images[batch]), digits.labels[batch])
                distance = (parameters_to_vector(model.parameters()) - beginning).square().sum()
                (loss + proximal_mu / 2 * distance).backward()
                optimizer.step()
    return loss.item()


def moments(model: nn.Module, digits: Digits) -> tuple[Tensor, Tensor]:
    """The mean of the parameters and of their squares over some further epochs, flattened; `model` is trained on.

    Source: Maddox et al. 2019, section 3.2, https://arxiv.org/abs/1902.02476
    """
    seen = []
    for epoch in range(EPOCHS):
        train(model, digits, epochs=1, seed=epoch)
        seen.append(parameters_to_vector(model.parameters()).detach().clone())
    return torch.stack(seen).mean(0), torch.stack(seen).square().mean(0)


@torch.no_grad()
def probabilities(model: nn.Module, digits: Digits) -> Tensor:
    model.eval()
    return model(digits.images).softmax(1)


def accuracy(of: Tensor, digits: Digits) -> float:
    """Of these probabilities, one row for each digit."""
    return (of.argmax(1) == digits.labels).float().mean().item()
