"""Trying again, without waiting for it."""

import pytest

from folkmoot import errors
from folkmoot.client.answers import Busy
from folkmoot.client.retry import until_settled


class Attempts:
    """A call that fails with the given errors, one after the other, and then succeeds."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.pauses = []

    def __call__(self):
        if self.failures:
            raise self.failures.pop(0)
        return "done"

    def until_settled(self, drawn=1.0):
        return until_settled(self, sleep=self.pauses.append, draw=lambda: drawn)


def test_an_answer_is_returned_at_once():
    attempts = Attempts()

    assert attempts.until_settled() == "done"
    assert attempts.pauses == []


@pytest.mark.parametrize(
    "kind",
    [errors.Unavailable, errors.StorageFull, errors.Internal, errors.DigestMismatch, errors.IncompleteRequest],
)
def test_what_may_pass_is_tried_again(kind):
    attempts = Attempts(kind("for now"), kind("for now"))

    assert attempts.until_settled() == "done"
    assert len(attempts.pauses) == 2


@pytest.mark.parametrize(
    "kind", [errors.InvalidInput, errors.RoundClosed, errors.NotAllowed, errors.NotAuthenticated, errors.Misconfigured]
)
def test_what_would_come_again_is_raised(kind):
    attempts = Attempts(kind("for good"))

    with pytest.raises(kind):
        attempts.until_settled()
    assert attempts.pauses == []


def test_the_longest_pauses_double_up_to_a_minute_and_stay_there():
    attempts = Attempts(*[errors.Unavailable("away")] * 2000)

    attempts.until_settled(drawn=1.0)

    assert attempts.pauses[:9] == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert attempts.pauses[-1] == 60


def test_the_jitter_is_full():
    attempts = Attempts(*[errors.Unavailable("away")] * 5)

    attempts.until_settled(drawn=0.0)

    assert attempts.pauses == [0, 0, 0, 0, 0]


def test_a_pause_that_the_hub_asked_for_is_kept_and_jitter_comes_on_top():
    attempts = Attempts(Busy("later", retry_after=90), Busy("later", retry_after=3))

    attempts.until_settled(drawn=0.5)

    assert attempts.pauses == [90.25, 3.5]


def test_a_pause_can_be_broken_off():
    def interrupted(seconds):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        until_settled(Attempts(errors.Unavailable("away")), sleep=interrupted)
