"""Writers of one process wait in turn."""

from __future__ import annotations

import threading

import pytest
from django.db import connection, transaction

from folkmoot.server.accounts.models import User
from folkmoot.server.forgettable import forgettable

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(transaction=True)]


def write_elsewhere(name: str) -> threading.Thread:
    """Begin to write in another thread, with a connection of its own."""

    def write() -> None:
        with transaction.atomic():
            User.objects.create(username=name)
        connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@transaction.atomic
def write_and_fail(*, closing: bool) -> None:
    User.objects.create(username="first")
    if closing:
        connection.close()
    raise ZeroDivisionError


def test_a_second_writer_goes_on_when_the_first_has_ended():
    with transaction.atomic():
        second = write_elsewhere("second")
        User.objects.create(username="first")
        assert second.is_alive()

    second.join(timeout=4)

    assert set(User.objects.values_list("username", flat=True)) == {"first", "second"}


@pytest.mark.parametrize("end", ["rolled back", "closed"])
def test_a_transaction_that_ends_badly_keeps_nobody_waiting(end):
    with pytest.raises(ZeroDivisionError):
        write_and_fail(closing=end == "closed")

    write_elsewhere("second").join(timeout=4)

    assert list(User.objects.values_list("username", flat=True)) == ["second"]


def synchronous() -> str:
    """How far a commit waits for the disk, in SQLite's own words."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA synchronous")
        return ("OFF", "NORMAL", "FULL")[cursor.fetchone()[0]]


def test_only_what_may_be_forgotten_is_not_waited_for():
    assert synchronous() == "FULL"
    with forgettable():
        assert synchronous() == "NORMAL"
    assert synchronous() == "FULL"


def test_after_an_error_commits_wait_for_the_disk_again():
    with pytest.raises(ZeroDivisionError), forgettable():
        raise ZeroDivisionError
    assert synchronous() == "FULL"


def test_within_a_transaction_nothing_may_be_forgotten():
    with transaction.atomic(), forgettable():
        User.objects.create(username="first")
        assert synchronous() == "FULL"
