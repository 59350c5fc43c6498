"""Who may do what: the table of docs/permissions.md, put to the hub question by question."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from api_routes import all_routes
from django.db import transaction
from valid_requests import FILE, MODEL, prepare, request_for

from folkmoot.server.accounts.services import create_group, issue_token
from folkmoot.server.registry.models import Model
from folkmoot.server.uploads.services import open_upload

pytestmark = pytest.mark.django_db

WHO = ("anonymous", "stranger", "participant", "actor", "owner", "staff")
PAGE = Path(__file__).parents[2] / "docs/permissions.md"
ROW = re.compile(rf"^\| `([A-Z]+ /[^`]*)` {r'[|] (yes|401|403|404) ' * len(WHO)}\|", re.MULTILINE)
TABLE = {operation: dict(zip(WHO, cells, strict=True)) for operation, *cells in ROW.findall(PAGE.read_text())}
OF_ONE = [operation for operation in TABLE if "<id>" in operation]
SIGNED_IN_ONLY = [operation for operation, row in TABLE.items() if row["anonymous"] == "401"]


def test_the_table_has_a_row_for_every_operation_and_no_other():
    operations = [operation for route in all_routes() for operation in route.operations]

    assert sorted(TABLE) == sorted(operations)
    assert len(ROW.findall(PAGE.read_text())) == len(TABLE)


@pytest.mark.parametrize("operation", TABLE)
def test_everybody_may_do_what_the_table_says(questions, operation):
    assert {who: questions.verdict(operation, who) for who in WHO} == TABLE[operation]


@pytest.mark.parametrize("operation", SIGNED_IN_ONLY)
def test_a_disabled_user_is_nobody(questions, operation):
    assert questions.ask(operation, "disabled").status_code == 401


@pytest.mark.parametrize("pk", ["00000000-0000-0000-0000-000000000000", "1" * 30, "1-2", "%00", "ä", "none"])
@pytest.mark.parametrize("operation", OF_ONE)
def test_what_there_is_not_is_not_found(questions, operation, pk):
    answer = questions.ask(operation, "staff", pk=pk)

    assert answer.status_code == 404
    assert re.fullmatch(r"(User|Group|Token|Model|Upload|Training) .+ not found\.", answer.json()["detail"])


@pytest.mark.parametrize("who", ["stranger", "participant", "staff"])
def test_only_ones_own_trainings_are_listed(questions, who):
    assert questions.ask("GET /api/trainings/", who).json() == []


def test_ones_own_trainings_are_listed(questions):
    listed = questions.ask("GET /api/trainings/", "actor").json()

    assert [each["id"] for each in listed] == [str(questions.scene.id)]


@pytest.mark.parametrize(
    ("who", "sees"), [("stranger", False), ("staff", True), ("owner", True), ("participant", True)]
)
def test_a_model_is_listed_to_those_who_may_see_it(questions, who, sees):
    listed = {each["id"] for each in questions.ask("GET /api/models/", who).json()}

    assert (str(questions.scene.model_id) in listed) == sees


class Questions:
    """One of everything, and a valid request for each operation, put by whoever asks."""

    def __init__(self, scene, people, callers):
        self.scene, self._people, self._callers = scene, people, callers

    def verdict(self, operation, who):
        """`yes`, or the status of the refusal; what was done is undone."""
        with transaction.atomic():
            status = self.ask(operation, who).status_code
            transaction.set_rollback(True)
        return "yes" if status in (200, 201, 202, 204) else str(status)

    def ask(self, operation, who, *, pk=None):
        method, path = operation.split(" ")
        if "<id>" in path:
            thing = self._thing(path)
            prepare(operation, thing)
            path = path.replace("<id>", pk or str(thing.pk))
        request = request_for(operation, scene=self.scene, owner=self._people["owner"])
        return self._callers[who].generic(method, path + request.pop("query", ""), **request)

    def _thing(self, path):
        owner = self._people["owner"]
        match path.split("/")[2]:
            case "users":
                return owner
            case "tokens":
                return issue_token(owner)[0]
            case "groups":
                group = create_group("hospitals", creator=owner)
                group.user_set.add(self._people["participant"])
                return group
            case "uploads":
                return open_upload(owner, target="/api/models/", fields=MODEL, size=len(FILE))[0]
            case "models":
                return self.scene.training.model
        return self.scene.training


@pytest.fixture
def questions(make_scene, make_user, anonymous, as_):
    """A training under way, whose actor has handed its model over: what is the owner's is the actor's no more."""
    scene = make_scene(participants=1)
    people = {
        "stranger": make_user(),
        "participant": scene.participants[0],
        "actor": scene.actor,
        "owner": make_user(),
        "staff": make_user(is_staff=True),
        "disabled": make_user(is_active=False),
    }
    Model.objects.update(owner=people["owner"])
    callers = {who: as_(user) for who, user in people.items()}
    return Questions(scene, people, callers | {"anonymous": anonymous})
