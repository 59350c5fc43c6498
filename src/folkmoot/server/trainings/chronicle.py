"""What has happened to a training, in order, each with a sentence for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from django.db.models import Q

from folkmoot.protocol.rounds import ordinal
from folkmoot.server.accounts.models import User
from folkmoot.server.outbox.models import Event, EventQuerySet, Lane
from folkmoot.server.trainings.creation import as_uuid
from folkmoot.server.trainings.models import Training

OF_ONE = ("update_rejected", "moments_rejected", "participant_failed", "participant_declined")
OF_ENDPOINTS = ("push_rejected", "push_failed")
"""With the above, what is between one participant, the actor and staff."""
SENTENCES = {
    "training_created": "Created by {actor}.",
    "training_started": "Started by {by}.",
    "training_paused": "Paused by {by}.",
    "training_resumed": "Resumed by {by}.",
    "stop_asked_for": "{by} asked for a stop, {when}.",
    "training_stopped": "Stopped: {reason}",
    "training_failed": "Cannot go on: {reason}",
    "training_retried": "Tried again by {by}.",
    "training_cloned": "Cloned by {by} from checkpoint {checkpoint}, into training {training}.",
    "training_finished": "Completed.",
    "participants_added": "Joined: {users}.",
    "participants_removed": "No longer taking part: {users}.",
    "participant_failed": "{participant} failed in round {round}: {reason}",
    "participant_declined": "{participant} declined round {round}: {reason}",
    "round_opened": "Round {round} asks for updates{again}.",
    "round_waits": "Round {round} waits{again}.",
    "round_full": "Round {round} has all it needs and is aggregated.",
    "round_closed": "Round {round} is closed.",
    "update_received": "{participant} sent an update for round {round}.",
    "update_rejected": "The update of {participant} for round {round} was rejected: {reason}",
    "swag_opened": "Checkpoint {checkpoint} asks for moments.",
    "swag_full": "The moments that followed round {round} are merged.",
    "moments_received": "{participant} sent moments of checkpoint {checkpoint}.",
    "moments_rejected": "The moments of {participant} for checkpoint {checkpoint} were rejected: {reason}",
    "test_opened": "Checkpoint {checkpoint} is tested.",
    "push_rejected": "The endpoint of {recipient} rejected what it was told.",
    "push_failed": "The endpoint of {recipient} cannot be reached.",
}
"""By kind; the names are those of its facts, but for `checkpoint`, where its `round` is one's, and `again`."""
_USERS = ("actor", "by", "participant", "recipient", "users")

Names = Mapping[str, str]


def events_of(training: Training, *, shown_to: User) -> EventQuerySet:
    """All that happened, the oldest first; to participants without what speaks against others."""
    found = Event.objects.filter(subject=training.pk, lane=Lane.TRAININGS).order_by("id")
    if training.shows_all_to(shown_to):
        return found
    own = Q(payload__participant=str(shown_to.pk)) | Q(payload__recipient=str(shown_to.pk))
    return found.exclude(Q(kind__in=(*OF_ONE, *OF_ENDPOINTS)) & ~own)


def names_in(facts: Iterable[Mapping[str, Any]]) -> Names:
    """The names of the users that these facts speak of, by their ids; who was deleted has none."""
    ids: set[UUID] = {known for fact in facts for each in _ids(fact) if (known := as_uuid(each))}
    found = User.objects.filter(pk__in=ids)
    return {str(pk): name for pk, name in found.values_list("pk", "username")}


def sentence(event: Event, names: Names) -> str:
    """What happened; with ids in place of names that are not known."""
    known = SENTENCES.get(event.kind)
    if known is None:
        return f"{event.kind.replace('_', ' ').capitalize()}."
    told = _Told({name: _told(name, value, names) for name, value in event.payload.items()})
    told.update(_counted(event.payload))
    return known.format_map(told)


def _counted(facts: Mapping[str, Any]) -> dict[str, str]:
    number, attempt = facts.get("round"), facts.get("attempt", 1)
    rounds = {} if number is None else {"round": str(ordinal(number)), "checkpoint": str(number)}
    return {**rounds, "again": f", attempt {attempt}" if attempt > 1 else ""}


class _Told(dict[str, str]):
    """What an event of an earlier version does not say is left open."""

    def __missing__(self, name: str) -> str:
        return "somebody" if name in _USERS else "not said"


def _told(name: str, value: Any, names: Names) -> str:
    if name == "users":
        return ", ".join(names.get(each, each) for each in value) or "nobody"
    return names.get(value, value) if name in _USERS else str(value).replace("_", " ") if name == "when" else str(value)


def _ids(fact: Mapping[str, Any]) -> list[str]:
    return [*(str(fact[name]) for name in _USERS if name in fact and name != "users"), *fact.get("users", ())]
