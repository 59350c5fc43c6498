"""How predictions of a model are to come about: as its training has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from folkmoot.sandbox import Sampling
from folkmoot.server.registry.models import Kind, Model
from folkmoot.server.trainings.models import Training, Update


@dataclass(frozen=True)
class Plan:
    """The training's method, and its `options.uncertainty`.

    `samples` is their `N`. `softmax` says whether the model ends before its softmax; None leaves that to be found out.
    """

    method: str = "NONE"
    samples: int = 10
    softmax: bool | None = None
    over: str = "checkpoints"
    k: int = 5

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.method, self.samples)


def plan_of(model: Model | Update) -> Plan:
    """NONE without a training; ENSEMBLE for a model of models. A local model has neither moments nor members."""
    if isinstance(model, Update):
        method = model.round.training.uncertainty_method
        return _plan(model.round.training, method if method == "MC_DROPOUT" else "NONE")
    if model.type == Kind.MEAN:
        return Plan("ENSEMBLE", over="members")
    training = Training.objects.filter(model=model).first()
    return _plan(training, training.uncertainty_method) if training else Plan()


def _plan(training: Training, method: str) -> Plan:
    given: dict[str, Any] = dict(training.settings.uncertainty)
    known = {name: given[name] for name in ("softmax", "over", "k") if name in given}
    return Plan(method, samples=given.get("N", Plan.samples), **known)
