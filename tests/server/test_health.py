"""Whether the hub is alive and able to work, for whoever watches over it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.django_db


def test_a_hub_that_answers_is_healthy(anonymous):
    answer = anonymous.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_hub_that_can_work_is_ready(anonymous):
    answer = anonymous.get("/readyz")

    assert answer.status_code == 200
    assert answer.json() == {"status": "ok", "checks": {"database": True, "storage": True}}


def test_a_hub_without_its_storage_is_not_ready_and_says_so(anonymous, storage):
    (storage.root / "incoming").rmdir()
    storage.root.rename(storage.root.with_name("gone"))

    answer = anonymous.get("/readyz")

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.json() == {"status": "unavailable", "checks": {"database": True, "storage": False}}


def test_a_hub_whose_broker_is_away_works_on_and_says_so(anonymous, settings):
    settings.BROKER_URL = "redis://127.0.0.1:1/0"

    answer = anonymous.get("/readyz")

    assert answer.status_code == 200
    checks = {"database": True, "storage": True, "broker": False}
    assert answer.json() == {"status": "degraded", "checks": checks}
