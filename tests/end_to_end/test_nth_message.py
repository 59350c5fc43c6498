"""R24 for the queue: of all messages to the broker one is lost, the first, the second and so on; all goes on."""

from __future__ import annotations

import threading
from dataclasses import replace
from itertools import count

from harness import play_round, wait_until
from invariants import read
from lines import OF_A_CUT_LINE, Line

UNHANDLED = "SELECT id FROM outbox_event WHERE handled_at IS NULL"


class Messages:
    """Those on their way to Redis, from all processes; `wanted` is the number of the one with which a line breaks."""

    def __init__(self):
        self._one_at_a_time = threading.Lock()
        self.begin_anew(wanted=0)

    def begin_anew(self, *, wanted):
        with self._one_at_a_time:
            self.count, self.wanted = 0, wanted

    def end_with(self, piece, facts):
        with self._one_at_a_time:
            before, self.count = self.count, self.count + piece.count(b"\r\nLPUSH\r\n")
            return before < self.wanted <= self.count


def test_whichever_message_to_the_broker_is_lost_the_training_ends_as_if_none_were(idle_production, undisturbed):
    production, place, messages = idle_production, idle_production.place, Messages()
    line = Line(place.broker.url, until=messages.end_with, loses_last=True)
    place.broker = replace(place.broker, url=line.url)
    place.expected_in_log.append(OF_A_CUT_LINE)
    production.start_all()
    production.let_all_begin_alike()

    for number in count(1):
        messages.begin_anew(wanted=number)
        assert one_training(production) == undisturbed(2, 1)
        if messages.count < number:
            break

    assert number > 4


def one_training(production):
    """Return its model once there is nothing left to be done for it."""
    accounts = production.participants(2)
    training_id = production.started(accounts, rounds=1)
    play_round(production, accounts, training_id, 0)
    production.wait_for_round(training_id, 0, "TESTING")
    for account in accounts:
        assert production.answer_test(account, training_id).status_code == 201
    production.wait_for_end(training_id)
    wait_until(lambda: not read(production.place, UNHANDLED), "all events to be handled")
    return production.weights(training_id)[1]
