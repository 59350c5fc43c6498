"""Whoever is told where something is finds it there."""

from __future__ import annotations

import pytest
from api_routes import all_routes
from django.db import transaction

pytestmark = pytest.mark.django_db

WRITING = [
    operation for route in all_routes() for operation in route.operations if operation.split()[0] in ("POST", "PUT")
]
WITHOUT = {
    "PUT /api/users/<id>/password/",
    "PUT /api/groups/<id>/",
    "PUT /api/groups/<id>/members/",
    "POST /api/inference/",
    "POST /api/trainings/<id>/progress/",
}
"""Those where nothing is made that would be elsewhere."""
WHO_MAY = ("participant", "actor", "owner", "staff", "anonymous")


@pytest.mark.parametrize("operation", WRITING)
def test_the_location_of_what_was_made_or_changed_leads_to_it(questions, operation):
    found = {_status_there(questions, operation, who) for who in WHO_MAY}

    assert found - {None} == (set() if operation in WITHOUT else {200})


def _status_there(questions, operation, who):
    """What the answer's `Location` is answered with, to the same caller; None where it was neither 201 nor 202."""
    with transaction.atomic():
        answer = questions.ask(operation, who)
        status = None
        if answer.status_code in (201, 202):
            # Who has just registered has no other caller yet.
            token = {"Authorization": f"Token {answer.json()['token']}"} if operation == "POST /api/users/" else {}
            status = questions.caller(who).get(answer["Location"], headers=token).status_code
        transaction.set_rollback(True)
    return status
