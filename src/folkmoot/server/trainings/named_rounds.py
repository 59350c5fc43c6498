"""A checkpoint by its name: `best`. The latest is what is meant where nothing is said."""

from __future__ import annotations

from typing import Final, Literal

from folkmoot.errors import NotFound
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings.goals import best_checkpoint
from folkmoot.server.trainings.models import Update

BEST: Final = "best"

RoundName = int | Literal["best"] | None
"""After how many rounds a checkpoint was made; None stands for the latest."""


def number_of(model: Model | Update, round: RoundName) -> int | None:
    """The number that a name stands for; raises NotFound where there is no best checkpoint."""
    if round != BEST:
        return round
    if isinstance(model, Update):
        raise NotFound(f"Local model {model.pk} is of one round; ask for the best of model {model.base_model.pk}.")
    return best_checkpoint(model)
