"""Who may do what: the table of docs/permissions.md, put to the hub question by question."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from api_routes import all_routes

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
