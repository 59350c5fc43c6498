"""A process that does a server's work next to others like it, as many machines on one database would: run by tests."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import uuid4


def record_events(count: int) -> list[str]:
    """Make events of trainings that are not there, so that there is nothing to do but to claim them."""
    from django.db import transaction

    from folkmoot.server.outbox.events import record

    with transaction.atomic():
        return [str(record(uuid4(), "training_finished").pk) for _ in range(count)]


def handle_events(threads: int) -> list[int]:
    """Claim and handle events with so many workers at once, until there are none; return how many each had."""
    from folkmoot.server.outbox.events import handle_next_event
    from folkmoot.server.outbox.models import Lane

    def work() -> int:
        count = 0
        while handle_next_event(Lane.TRAININGS):
            count += 1
        return count

    return at_once(work, threads)


def handle_again(kind: str, times: int) -> list[None]:
    """Give the newest event of this kind to its handler, so many times at once and then so many times more."""
    from folkmoot.server.outbox.models import Event
    from folkmoot.server.trainings import handlers

    handle: Callable[[Event], None] = {
        "round_opened": handlers.announce_round,
        "round_full": handlers.aggregate_round,
        "test_opened": handlers.announce_test,
        "training_finished": handlers.announce_end,
    }[kind]
    event = Event.objects.filter(kind=kind).latest("pk")
    at_once(lambda: handle(event), times)
    return [handle(event) for _ in range(times)]


def fill_rounds(training_id: str, rounds: int) -> list[int]:
    """Have all participants' updates counted at once, round after round; return how many were new in each."""
    from folkmoot.server.outbox.events import handle_next_event
    from folkmoot.server.outbox.models import Lane
    from folkmoot.server.registry.intake import StoredFile, StoredUpdate
    from folkmoot.server.trainings import lifecycle
    from folkmoot.server.trainings.models import Training

    training = Training.objects.get(pk=training_id)
    base = training.model.latest_checkpoint
    # What is in the updates does not matter here: everybody sends the model as it was.
    tensors = StoredFile(base.sha256, base.num_bytes, base.checksums)
    facts: dict[str, Any] = {"stored": StoredUpdate("safetensors", base.sha256, base.num_bytes, tensors)}
    facts |= {"num_examples": 1, "metrics": {}}
    counts = []
    for number in range(rounds):
        participants = list(training.participants.all())
        send = partial(lifecycle.receive_update, training, round=number, **facts)
        calls = [partial(send, participant) for participant in participants]
        counts.append(sum(is_new for _, is_new in all_at_once(calls)))
        while handle_next_event(Lane.TRAININGS):
            pass
    return counts


def at_once(call: Callable[[], Any], threads: int) -> list[Any]:
    return all_at_once([call] * threads)


def all_at_once(calls: list[Callable[[], Any]]) -> list[Any]:
    from django.db import connection

    barrier = threading.Barrier(len(calls))

    def together(call: Callable[[], Any]) -> Any:
        connection.ensure_connection()
        barrier.wait(timeout=30)
        try:
            return call()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(together, calls))


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "folkmoot.server.settings")
    import django

    django.setup()
    commands = {each.__name__: each for each in (record_events, handle_events, handle_again, fill_rounds)}
    from folkmoot.server.outbox.leases import release_leases

    release_leases()  # those of a server that was killed; none of the others works yet
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()  # whoever started several lets all go at once
    arguments = [int(given) if given.isdigit() else given for given in sys.argv[2:]]
    sys.stdout.write(json.dumps(commands[sys.argv[1]](*arguments)))
