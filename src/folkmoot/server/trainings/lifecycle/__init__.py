"""Every change of a training's state: each command locks the training, looks the event up, writes state and event.

What follows from an event is done by its handler (handlers.py), outside the transaction, possibly twice. The files
stand one upon another, in the order of a round read backwards: each calls only those named before it (`ending`,
`collecting`, `testing`, `moments`, `aggregating`, `waiting`, `deadlines`, `participants`, `pausing`, `retrying`,
`steering`).
"""

from folkmoot.server.trainings.lifecycle.aggregating import finish_aggregation, note_wait, reject_update
from folkmoot.server.trainings.lifecycle.collecting import give_up_on, go_on_if_complete, receive_update
from folkmoot.server.trainings.lifecycle.deadlines import close_if_overdue
from folkmoot.server.trainings.lifecycle.ending import fail
from folkmoot.server.trainings.lifecycle.moments import excuse_from_swag, finish_swag, receive_moments, reject_moments
from folkmoot.server.trainings.lifecycle.participants import add_participants, remove_participants
from folkmoot.server.trainings.lifecycle.pausing import pause, resume
from folkmoot.server.trainings.lifecycle.retrying import try_again
from folkmoot.server.trainings.lifecycle.steering import delete, start, stop
from folkmoot.server.trainings.lifecycle.testing import excuse_from_test, receive_metrics
from folkmoot.server.trainings.lifecycle.waiting import open_if_available

__all__ = [
    "add_participants",
    "close_if_overdue",
    "delete",
    "excuse_from_swag",
    "excuse_from_test",
    "fail",
    "finish_aggregation",
    "finish_swag",
    "give_up_on",
    "go_on_if_complete",
    "note_wait",
    "open_if_available",
    "pause",
    "receive_metrics",
    "receive_moments",
    "receive_update",
    "reject_moments",
    "reject_update",
    "remove_participants",
    "resume",
    "start",
    "stop",
    "try_again",
]
