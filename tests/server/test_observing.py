"""What operators see of a hub from outside: ids of requests, figures for Prometheus."""

from __future__ import annotations

import re

import pytest
from django.urls import path
from prometheus_client.parser import text_string_to_metric_families

from folkmoot.server.outbox.models import Event
from folkmoot.server.trainings.models import Update

pytestmark = pytest.mark.django_db

# A hub of which one path is broken.
handler500 = "folkmoot.server.api.errors.server_error"
urlpatterns = [path("broken", lambda request: 1 / 0)]


@pytest.fixture
def training(make_training):
    return make_training()


@pytest.fixture
def actor(training, as_):
    return as_(training.actor)


@pytest.fixture
def staff(make_user, as_):
    return as_(make_user(is_staff=True))


def figures(client) -> dict[tuple[str, frozenset], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200, answer.content
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.content.decode())
        for sample in family.samples
    }


def figure(found, name: str, *labels: str) -> float:
    return found[name, frozenset(labels)]


def test_every_answer_has_an_id_and_no_two_the_same(anonymous):
    first, second = (anonymous.get("/healthz")["X-Request-ID"] for _ in range(2))

    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second


def test_the_id_that_a_proxy_has_given_is_kept(anonymous):
    assert anonymous.get("/healthz", headers={"X-Request-ID": "proxy-17.a"})["X-Request-ID"] == "proxy-17.a"


@pytest.mark.parametrize("given", ["", "a" * 65, "two words", "line\tbreak", "<script>"])
def test_what_can_be_no_id_is_replaced(anonymous, given):
    assert re.fullmatch("[0-9a-f]{32}", anonymous.get("/healthz", headers={"X-Request-ID": given})["X-Request-ID"])


def test_what_follows_from_a_request_carries_its_id(training, actor):
    actor.post(f"/api/trainings/{training.pk}/start/", headers={"X-Request-ID": "start-1"})

    assert set(Event.objects.filter(kind="round_opened").values_list("request_id", flat=True)) == {"start-1"}


@pytest.mark.urls(__name__)
def test_a_fault_of_the_server_names_the_request_to_look_for(anonymous):
    anonymous.raise_request_exception = False

    answer = anonymous.get("/broken", headers={"X-Request-ID": "look-here"})

    assert answer.status_code == 500
    assert answer.json() == {"detail": "A fault of the server.", "code": "internal", "request_id": "look-here"}


def test_prometheus_reads_what_the_hub_is_doing(training, actor, staff, work):
    actor.post(f"/api/trainings/{training.pk}/start/")
    before = figures(staff)
    work()
    after = figures(staff)

    assert figure(after, "folkmoot_trainings", "ongoing") == 1
    assert figure(after, "folkmoot_trainings", "completed") == 0
    assert figure(after, "folkmoot_rounds", "open") == 1
    assert figure(before, "folkmoot_events_waiting", "trainings") == 1
    assert figure(after, "folkmoot_events_waiting", "trainings") == 0
    assert figure(before, "folkmoot_notifications_open") == 0
    assert figure(after, "folkmoot_notifications_open") > 0


def test_each_figure_of_rounds_updates_bytes_waits_and_the_queue_moves(make_scene, staff, work):
    scene = make_scene(started=False, options={"tests": "never"})
    seen = [figures(staff)]
    scene.command("start")
    seen.append(figures(staff))
    work()
    for participant in scene.participants:
        scene.send_update(participant)
    seen.append(figures(staff))
    work()
    seen.append(figures(staff))

    def course(name, *labels):
        return [figure(each, name, *labels) for each in seen]

    num_bytes = sum(Update.objects.values_list("received_bytes", flat=True))
    assert course("folkmoot_rounds", "open") == [0, 1, 0, 0]
    assert course("folkmoot_rounds", "closed") == [0, 0, 0, 1]
    assert course("folkmoot_round_seconds_count") == [0, 0, 0, 1]
    assert course("folkmoot_updates", "waiting") == [0, 0, 2, 0]
    assert course("folkmoot_updates", "accepted") == [0, 0, 0, 2]
    assert course("folkmoot_update_bytes_total") == [0, 0, num_bytes, num_bytes]
    assert course("folkmoot_events_waiting", "trainings") == [0, 1, 1, 0]
    assert [each > 0 for each in course("folkmoot_round_wait_seconds")] == [False, True, False, False]
    assert [each > 0 for each in course("folkmoot_event_wait_seconds")] == [False, True, True, False]


def test_requests_are_counted_by_their_route_and_not_by_their_path(training, actor, staff):
    route = "/api/trainings/<pk>/"
    before = figures(staff).get(("folkmoot_http_requests_total", frozenset(("GET", route, "200"))), 0)
    actor.get(f"/api/trainings/{training.pk}/")
    found = figures(staff)

    assert figure(found, "folkmoot_http_requests_total", "GET", route, "200") == before + 1
    assert not any(str(training.pk) in label for _, labels in found for label in labels)


def test_only_staff_reads_the_figures(anonymous, actor):
    assert (anonymous.get("/metrics").status_code, actor.get("/metrics").status_code) == (401, 403)
