"""What a participant is asked to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from folkmoot.client.hub import Notification
from folkmoot.protocol.notifications import NotificationType
from folkmoot.tensors import Tensors
from folkmoot.tensors.schema import is_float

ENDS = (NotificationType.TRAINING_FINISHED, NotificationType.CLIENT_REMOVED)


class Declined(Exception):
    """Raised by a training function that will not train in this round, with the reason for the hub's other users.

    Nobody waits for this participant then; it is asked again in the next round.
    """


@dataclass(frozen=True)
class Task:
    """Train, or evaluate, the model `model_id` in a round of a training.

    `round` counts from 0; in an evaluation it is the number of rounds that made the model. `local` is what the actor
    wrote into the training's `options.local`. `attempt` counts from 1: a round that got too few updates in time is
    tried again. `exchange` are the patterns of the tensors that travel, if not all do; what a training function returns
    beyond these is left out. `encoding` is how the client makes the update smaller; a training function need not care.
    `rejected` says why the hub wants another update in place of the one that it had. `checkpoint` says after how many
    rounds the model is to be had, where it may have moved on since, as in asynchronous training; `read_state` fetches
    what `state` shows, and `tell` takes what `progress` is told.
    """

    training_id: str
    model_id: str
    round: int
    local: dict[str, Any] = field(default_factory=dict)
    attempt: int = 1
    exchange: tuple[str, ...] = ()
    encoding: dict[str, Any] = field(default_factory=dict)
    rejected: str = ""
    checkpoint: int | None = None
    read_state: Callable[[], Tensors] = field(default=dict, repr=False, compare=False)
    tell: Callable[[float], None] = field(default=lambda percent: None, repr=False, compare=False)

    @classmethod
    def of(cls, notification: Notification) -> Task:
        body = notification.body
        return cls(
            notification.training_id,
            body["global_model_uuid"],
            int(body["round"]),
            dict(body.get("local") or {}),
            int(body.get("attempt", 1)),
            tuple(body.get("exchange") or ()),
            dict(body.get("encoding") or {}),
            str(body.get("rejected") or ""),
            body.get("checkpoint"),
        )

    def progress(self, percent: float) -> None:
        """Let the hub show how far the training is, from 0 to 100; call it as often as you like, it never raises."""
        self.tell(percent)

    def state(self, name: str, like: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """What the hub keeps under `name` for each float tensor of `like`, such as SCAFFOLD's `control_variate`.

        By the names and in the dtypes of `like`; zeros where the hub keeps nothing, as before the first round.
        """
        kept = self.read_state()
        found = {own: kept.get(f"{name}/{own}") for own, tensor in like.items() if is_float(tensor.dtype)}
        return {
            own: np.zeros_like(like[own]) if tensor is None else np.array(tensor, like[own].dtype)
            for own, tensor in found.items()
        }


def without_outdated(notifications: Iterable[Notification]) -> list[Notification]:
    """Leave out what a later one has overtaken: a newer round of the same kind, or the end of the training.

    After an hour without the network a participant would otherwise train for rounds that are long closed.
    """
    current: dict[tuple[str, str], Notification] = {}
    for notification in notifications:
        training, kind = notification.training_id, notification.type
        if kind in ENDS:
            current = {key: value for key, value in current.items() if key[0] != training}
        current.pop((training, kind), None)  # so that the newer one takes its place at the end
        current[training, kind] = notification
    return list(current.values())
