"""What a participant is told when it asks: in order, nothing twice, nothing missed."""

from __future__ import annotations

import threading
from uuid import uuid4

import pytest
from django.db import connections

from folkmoot.protocol.notifications import NotificationType
from folkmoot.server.accounts.models import User
from folkmoot.server.notifications.delivery import Message, deliver, settle
from folkmoot.server.notifications.models import Notification

pytestmark = pytest.mark.django_db

PATH = "/api/notifications/"
TRAINING = uuid4()
START = NotificationType.TRAINING_START
ROUND = NotificationType.UPDATE_ROUND_START
TEST = NotificationType.MODEL_TEST_ROUND


@pytest.fixture
def ada(make_user):
    return make_user("ada")


@pytest.fixture
def tell():
    def send(*users, type=ROUND, round=0, attempt=1):  # noqa: A002
        deliver(Message(type, TRAINING, {"round": round}, round=round, attempt=attempt), [user.pk for user in users])

    return send


@pytest.fixture
def ask(as_, ada):
    """A function: the numbers of what there is, and what to ask next time."""

    def send(query="", user=ada):
        answer = as_(user).get(PATH + query).json()
        return [each["id"] for each in answer["notifications"]], answer["last_id"]

    return send


def test_a_notification_says_what_it_is_about(tell, as_, ada):
    tell(ada, round=3)

    answer = as_(ada).get(PATH)

    (shown,) = answer.json()["notifications"]
    created_at = shown.pop("created_at")
    assert created_at.endswith(("Z", "+00:00"))
    assert shown == {
        "id": 1,
        "notification_type": "UPDATE_ROUND_START",
        "training_uuid": str(TRAINING),
        "body": {"round": 3},
    }
    assert answer["Cache-Control"] == "no-store"


def test_there_may_be_nothing_to_tell(ask):
    assert ask() == ([], 0)


def test_numbers_grow_for_each_recipient_alone_and_without_a_gap(tell, ask, ada, make_user):
    other = make_user()
    for number in range(3):
        tell(ada, round=number)
    tell(ada, other, round=3)

    assert ask("?after=0") == ([1, 2, 3, 4], 4)
    assert ask("?after=0", user=other) == ([1], 1)


def test_after_a_number_comes_what_is_newer(tell, ask, ada):
    for number in range(4):
        tell(ada, round=number)

    assert ask("?after=2") == ([3, 4], 4)
    assert ask("?after=4") == ([], 4)


def test_without_a_number_comes_what_still_asks_for_work(tell, ask, ada):
    tell(ada, type=START)
    tell(ada, round=0)
    tell(ada, type=TEST, round=1)
    settle(TRAINING, ROUND, 0)

    assert ask() == ([3], 3)
    assert ask("?after=0") == ([1, 2, 3], 3)


def test_a_number_that_was_never_given_out_counts_as_none(tell, ask, ada):
    tell(ada, round=0)
    settle(TRAINING, ROUND, 0)
    tell(ada, round=1)

    assert ask("?after=3") == ([2], 2)
    assert ask("?after=9223372036854775807") == ([2], 2)


def test_what_one_has_answered_is_settled_for_oneself_alone(tell, ask, ada, make_user):
    other = make_user()
    tell(ada, other)

    settle(TRAINING, ROUND, 0, recipient=other)

    assert ask()[0] == [1]
    assert ask(user=other)[0] == []


def test_the_same_is_not_told_twice(tell, ask, ada):
    tell(ada)
    tell(ada)

    assert ask("?after=0") == ([1], 1)


def test_who_was_missing_is_told_again_in_the_next_attempt(tell, ask, ada):
    tell(ada, attempt=1)
    tell(ada, attempt=2)

    assert ask("?after=0") == ([1, 2], 2)


def test_who_did_not_hear_yet_is_told_what_the_others_know(tell, ask, ada, make_user):
    other = make_user()
    tell(ada)

    tell(ada, other)

    assert (ask("?after=0")[0], ask("?after=0", user=other)[0]) == ([1], [1])


def test_nobody_reads_what_others_are_told(tell, ask, ada, make_user):
    tell(ada)

    assert ask("?after=0", user=make_user()) == ([], 0)


def test_a_long_list_comes_in_parts_and_nothing_is_skipped(ask, ada):
    Notification.objects.bulk_create(
        Notification(recipient=ada, number=number, type=ROUND, training_id=TRAINING, round=number, body={})
        for number in range(1, 1004)
    )
    User.objects.update(last_notification=1003)

    first, last = ask("?after=0")
    assert (len(first), last) == (1000, 1000)
    assert ask(f"?after={last}") == ([1001, 1002, 1003], 1003)


@pytest.mark.parametrize(
    "query", ["?after=x", "?after=-1", "?after=1.5", f"?after={2**63}", "?wait=x", "?wait=-1", "?wait=nan", "?wait=inf"]
)
def test_a_question_that_makes_no_sense_is_refused_under_its_field(as_, ada, query):
    answer = as_(ada).get(PATH + query)

    assert answer.status_code == 400
    assert list(answer.json()) == [query[1:].split("=")[0]]


@pytest.mark.django_db(transaction=True)
def test_messages_of_two_trainings_at_once_get_numbers_of_their_own(ask, ada):
    trainings = [uuid4(), uuid4()]
    together = threading.Barrier(2)

    def tell_ten_times(training):
        together.wait()
        for number in range(10):
            deliver(Message(ROUND, training, {}, round=number), [ada.pk])
        connections.close_all()

    threads = [threading.Thread(target=tell_ten_times, args=[training]) for training in trainings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert ask("?after=0") == (list(range(1, 21)), 20)
