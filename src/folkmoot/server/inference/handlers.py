"""What follows from events about models."""

from __future__ import annotations

from folkmoot.server.inference import summaries
from folkmoot.server.outbox.events import handles
from folkmoot.server.outbox.models import Event


def _give_up(event: Event) -> None:
    summaries.give_up(event.subject)


@handles(summaries.WANTED, give_up=_give_up)
def _summary_wanted(event: Event) -> None:
    summaries.make_summary(event.subject)
