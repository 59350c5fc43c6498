"""Lists: whole or in pages, filtered, ordered, and quick however long they are."""

from __future__ import annotations

import re
import shutil
from uuid import UUID

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from folkmoot.protocol.states import TrainingState
from folkmoot.server.registry.models import Checkpoint, Metric, Model
from folkmoot.server.trainings.models import Participation, Round, Training, Update

pytestmark = pytest.mark.django_db

MANY = 10_000


@pytest.fixture
def owner(make_user):
    return make_user("owner")


@pytest.fixture
def make_models(owner):
    def make(number):
        fields = {"owner": owner, "description": "d", "format": "safetensors", "template_sha256": "0" * 64}
        return Model.objects.bulk_create(
            Model(name=f"model-{each}", round=each % 3, **fields) for each in range(number)
        )

    return make


@pytest.fixture
def make_trainings(owner, make_models, make_user):
    participants = [make_user() for _ in range(3)]

    def make(number, **fields):
        made = Training.objects.bulk_create(
            Training(actor=owner, model=model, target_num_updates=1, aggregation_method="FedAvg", **fields)
            for model in make_models(number)
        )
        Participation.objects.bulk_create(
            Participation(training=training, user=user) for training in made for user in participants
        )
        return made

    return make


@pytest.fixture
def make_metrics(owner, make_models):
    def make(number):
        (model,) = make_models(1)
        Metric.objects.bulk_create(
            (
                Metric(model=model, reporter=owner, key="loss", value_float=1 / (each + 1), step=each)
                for each in range(number)
            ),
            batch_size=5000,
        )
        return model

    return make


@pytest.fixture
def ask(as_, owner):
    def ask(path, user=None):
        return as_(user or owner).get(f"/api/{path}")

    return ask


@pytest.fixture
def names(ask):
    """A function: the names of the listed models."""
    return lambda query="": [each["name"] for each in ask(f"models/{query}").json()]


def links(answer):
    return {rel: url for url, rel in re.findall(r'<([^>]+)>; rel="(\w+)"', answer.headers.get("Link", ""))}


# Pages


def test_without_a_limit_a_list_is_whole(make_models, ask):
    make_models(1200)

    answer = ask("models/")

    assert len(answer.json()) == 1200
    assert "Link" not in answer.headers
    assert "X-Total-Count" not in answer.headers


def test_a_page_is_a_plain_array_with_the_rest_in_its_headers(make_models, names, ask):
    make_models(5)
    everything = names()

    answer = ask("models/?limit=2&offset=2")

    assert [each["name"] for each in answer.json()] == everything[2:4]
    assert answer["X-Total-Count"] == "5"
    assert links(answer) == {
        "next": "http://testserver/api/models/?limit=2&offset=4",
        "prev": "http://testserver/api/models/?limit=2",
    }


def test_following_the_links_shows_everything_once(make_models, names, ask):
    make_models(7)
    seen, path = [], "models/?limit=3&ordering=round"
    while path:
        answer = ask(path)
        seen += [each["name"] for each in answer.json()]
        path = links(answer).get("next", "").removeprefix("http://testserver/api/")

    assert seen == names("?ordering=round")
    assert len(set(seen)) == 7


def test_a_page_has_at_most_a_thousand(make_models, ask):
    make_models(1001)

    answer = ask("models/?limit=5000")

    assert len(answer.json()) == 1000
    assert answer["X-Total-Count"] == "1001"


def test_a_page_beyond_the_end_is_empty(make_models, ask):
    make_models(2)

    answer = ask("models/?limit=2&offset=99999999999999999999")

    assert answer.json() == []
    assert answer["X-Total-Count"] == "2"
    assert list(links(answer)) == ["prev"]


def test_the_total_is_of_what_was_asked_for(make_models, ask):
    make_models(6)

    assert ask("models/?limit=1&round=0")["X-Total-Count"] == "2"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=many", "limit"),
        ("limit=", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("limit=1&offset=-1", "offset"),
        ("limit=1&offset=1.5", "offset"),
        ("ordering=password", "ordering"),
        ("ordering=owner__password", "ordering"),
        ("ordering=name,,", "ordering"),
        ("ordering=--name", "ordering"),
        ("ordering=%00", "ordering"),
        ("owner=me", "owner"),
        ("name=%00", "name"),
        ("round=x", "round"),
        ("round=" + "9" * 30, "round"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_by_name(ask, query, field):
    answer = ask(f"models/?{query}")

    assert answer.status_code == 400
    assert list(answer.json()) == [field]


def test_a_wrong_order_is_told_with_the_right_ones(ask):
    assert ask("models/?ordering=owner").json() == {
        "ordering": ["'owner' is no order; valid ones: created_at, name, round."]
    }


@pytest.mark.parametrize(
    "path", ["users/", "tokens/", "models/", "trainings/", "uploads/", "users/groups/", "users/trainings/", "groups/"]
)
def test_every_list_comes_in_pages(owner, ask, path):
    owner.is_staff = True
    owner.save()

    answer = ask(f"{path}?limit=1")

    assert isinstance(answer.json(), list)
    assert int(answer["X-Total-Count"]) >= len(answer.json())


# Order and filters


def test_lists_are_ordered_as_asked(make_models, names):
    make_models(4)

    assert names("?ordering=-name") == ["model-3", "model-2", "model-1", "model-0"]
    assert names("?ordering=round,-name") == ["model-3", "model-0", "model-1", "model-2"]


def test_what_is_alike_comes_in_one_order_on_every_page(make_models, names):
    models = sorted(make_models(12), key=lambda model: (model.round, model.pk.hex))

    assert names("?ordering=round") == [model.name for model in models]


def test_models_are_found_by_name_owner_and_round(make_models, names, make_user, owner):
    make_models(12)

    assert names("?name=model-1") == ["model-1"]
    assert names("?name=model") == []
    assert names("?round=2&ordering=name") == ["model-11", "model-2", "model-5", "model-8"]
    assert len(names(f"?owner={owner.pk}")) == 12
    assert names(f"?owner={make_user().pk}") == []


@pytest.mark.parametrize("path", ["trainings/", "users/trainings/"])
def test_trainings_are_found_by_state_and_by_the_name_of_their_model(make_trainings, ask, path):
    initial, ended = make_trainings(1), make_trainings(2, state=TrainingState.COMPLETED)

    def found(query):
        return {each["id"] for each in ask(f"{path}?{query}").json()}

    assert found("state=C") == {str(each.pk) for each in ended}
    assert found("state=I") == {str(each.pk) for each in initial}
    assert found("state=E") == set()
    assert found("name=model-1") == {str(ended[1].pk)}
    assert found(f"model={initial[0].model_id}") == {str(initial[0].pk)}
    assert found("aggregation_method=FedAvg&state=C") == {str(each.pk) for each in ended}


def test_a_filter_never_shows_more_than_one_may_see(make_trainings, make_user, ask):
    make_trainings(1)

    assert ask("trainings/?state=I", make_user()).json() == []
    assert ask("models/?name=model-0", make_user()).json() == []


def test_a_state_that_is_none_is_refused(ask):
    assert ask("trainings/?state=Q").json() == {"state": ['"Q" is not a valid choice.']}


def test_users_are_found_by_name_and_kind(make_user, ask):
    make_user("ada", actor=True)
    make_user("bob", client=False)

    assert [each["username"] for each in ask("users/?username=ada").json()] == ["ada"]
    assert [each["username"] for each in ask("users/?actor=true").json()] == ["ada"]
    assert [each["username"] for each in ask("users/?client=false").json()] == ["bob"]
    assert [each["username"] for each in ask("users/?ordering=-username").json()] == ["owner", "bob", "ada"]


def test_metrics_are_found_by_name_step_and_reporter(owner, make_metrics, ask):
    model = make_metrics(5)
    Metric.objects.create(model=model, reporter=owner, key="accuracy", value_float=1, step=3)

    def found(query):
        return [(each["key"], each["step"]) for each in ask(f"models/{model.pk}/metrics/?{query}").json()]

    assert found("key=accuracy") == [("accuracy", 3)]
    assert found("step=3") == [("loss", 3), ("accuracy", 3)]
    assert found("ordering=key,-step&limit=2") == [("accuracy", 3), ("loss", 4)]
    assert found(f"reporter={UUID(int=1)}") == []
    assert found("phase=test") == []


def test_local_models_come_behind_the_others_on_pages_too(make_scene, as_):
    scene = make_scene()
    first, second = scene.participants
    for participant in scene.participants:
        scene.send_update(participant)
    staff = as_(scene.actor)

    def pages(query):
        answer = staff.get(f"/api/models/?{query}")
        return [each["owner"] for each in answer.json()], int(answer["X-Total-Count"])

    actor, *locals_ = [each["owner"] for each in staff.get("/api/models/").json()]
    assert (actor, set(locals_)) == (str(scene.actor.pk), {str(first.pk), str(second.pk)})
    assert pages("limit=2") == ([actor, locals_[0]], 3)
    assert pages("limit=2&offset=2") == ([locals_[1]], 3)
    assert pages(f"limit=9&owner={first.pk}&name=m&round=0") == ([str(first.pk)], 1)
    assert pages("limit=9&name=other") == ([], 0)


def test_the_models_of_a_training_come_in_pages(make_scene, as_):
    scene = make_scene()
    for participant in scene.participants:
        scene.send_update(participant)

    for path in (f"/api/trainings/{scene.id}/models/", f"/api/trainings/{scene.id}/models/latest/"):
        whole = as_(scene.actor).get(path)
        first, second = (as_(scene.actor).get(f"{path}?limit=2&offset={offset}") for offset in (0, 2))
        assert len(whole.json()) == 3
        assert "X-Total-Count" not in whole.headers
        assert [*first.json(), *second.json()] == whole.json()
        assert first["X-Total-Count"] == second["X-Total-Count"] == "3"
        assert links(first) == {"next": f"http://testserver{path}?limit=2&offset=2"}


@pytest.fixture
def make_history(owner, make_models):
    """A function: a model with so many rounds, of two participants each, behind it."""

    def make(rounds, participants):
        (model,) = make_models(1)
        training = Training.objects.create(actor=owner, model=model, target_num_updates=rounds)
        times = {"closes_at": timezone.now(), "aggregated_at": timezone.now()}
        made = Round.objects.bulk_create(Round(training=training, number=each, **times) for each in range(rounds))
        Update.objects.bulk_create(
            Update(round=each, participant=user, num_examples=each.number + 1, num_bytes=1)
            for each in made
            for user in participants
        )
        Checkpoint.objects.bulk_create(
            Checkpoint(model=model, round=each, sha256="0" * 64, num_bytes=1) for each in range(rounds + 1)
        )
        return model, training

    return make


def test_a_page_of_checkpoints_is_what_the_whole_list_has_there(make_history, make_user, ask):
    model, _ = make_history(5, [make_user(), make_user()])
    path = f"models/{model.pk}/checkpoints/"
    whole = ask(path)

    pages = [ask(f"{path}?limit=4&offset={offset}") for offset in (0, 4)]

    assert [each["round"] for each in whole.json()] == list(range(6))
    assert [each for page in pages for each in page.json()] == whole.json()
    assert [page["X-Total-Count"] for page in pages] == ["6", "6"]
    assert "X-Total-Count" not in whole.headers


# Long lists


@pytest.fixture
def queries(ask):
    """A function: what a list answers, and the queries that it took."""

    def count(path):
        with CaptureQueriesContext(connection) as captured:
            answer = ask(path)
        return answer.json(), [query["sql"] for query in captured]

    return count


TRAININGS = (
    "trainings/",
    "users/trainings/",
    "trainings/?limit=1000",
    "users/trainings/?limit=9&ordering=-state&state=I",
)
MODELS = ("models/", "models/?limit=1000&ordering=name")
METRICS = ("", "?limit=1000", "?limit=9&offset=5&ordering=-step&key=loss")


def test_ten_thousand_trainings_take_as_many_queries_as_few(make_trainings, queries):
    make_trainings(20)
    queries("users/myself/")
    few = {path: len(queries(path)[1]) for path in TRAININGS}
    make_trainings(MANY - 20)

    many = {path: queries(path) for path in TRAININGS}

    assert [len(listed) for listed, _ in many.values()] == [MANY, MANY, 1000, 9]
    assert all(len(each["participants"]) == 3 for each in many["trainings/"][0])
    assert {path: len(taken) for path, (_, taken) in many.items()} == few
    assert max(few.values()) <= 6


def test_ten_thousand_models_take_as_many_queries_as_few(make_models, queries):
    make_models(20)
    queries("users/myself/")
    few = {path: len(queries(path)[1]) for path in MODELS}
    make_models(MANY - 20)

    many = {path: queries(path) for path in MODELS}

    assert [len(listed) for listed, _ in many.values()] == [MANY, 1000]
    # A page that is full of them does not look for local models.
    assert all(len(taken) <= few[path] for path, (_, taken) in many.items())
    assert max(few.values()) <= 6


def test_a_hundred_thousand_metrics_take_as_many_queries_as_few(make_metrics, queries):
    short, long = make_metrics(20), make_metrics(100_000)
    queries("users/myself/")

    few = [len(queries(f"models/{short.pk}/metrics/{query}")[1]) for query in METRICS]
    many = [queries(f"models/{long.pk}/metrics/{query}") for query in METRICS]

    assert [len(listed) for listed, _ in many] == [100_000, 1000, 9]
    assert [len(taken) for _, taken in many] == few
    assert max(few) <= 5


def test_a_long_training_takes_as_many_queries_as_a_short_one(make_history, make_user, queries):
    people = [make_user() for _ in range(3)]
    queries("users/myself/")
    taken = []
    for rounds in (20, 600):
        model, training = make_history(rounds, people)
        # All of them local models: as in a daisy chain that has never been aggregated.
        paths = (f"models/{model.pk}/checkpoints/", f"trainings/{training.pk}/models/")
        answers = [queries(path + query) for path in (*paths, f"{paths[1]}latest/") for query in ("", "?limit=9")]
        taken.append([len(sql) for _, sql in answers])
        sizes = [len(listed) for listed, _ in answers]
        assert sizes == [rounds + 1, 9, 3 * rounds + 1, 9, 4, 4]

    assert taken[0] == taken[1]
    assert max(taken[0]) <= 8


@pytest.mark.parametrize("path", ["models/", "trainings/"])
def test_a_list_needs_no_file_and_no_tensor(make_scene, as_, storage, path):
    scene = make_scene()
    shutil.rmtree(storage.root)

    with CaptureQueriesContext(connection) as queries:
        answer = as_(scene.actor).get(f"/api/{path}")

    assert len(answer.json()) == 1
    # Whether a model has moments is asked in passing; no checkpoint is read.
    assert not [query["sql"] for query in queries if 'FROM "registry_checkpoint"' in query["sql"]]
