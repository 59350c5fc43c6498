"""The log of a real hub, as a collector of logs reads it."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from harness import Process, Production, World, wait_until


@pytest.fixture
def settings() -> dict[str, str]:
    return {"FOLKMOOT_LOG_FORMAT": "json", "FOLKMOOT_ACCESS_LOG": "true", "FOLKMOOT_METRICS": "open"}


def test_a_request_can_be_followed_through_the_log_to_the_work_that_came_of_it(world: World) -> None:
    world.server.start()
    training = world.create_training(world.participants(2), rounds=1)

    answer = world.call(world.actor, "POST", f"/api/trainings/{training}/start/", headers={"X-Request-ID": "follow-me"})

    assert (answer.status_code, answer.headers["X-Request-ID"]) == (202, "follow-me")
    wait_until(lambda: handled(world.server, "follow-me"), "the worker's line")
    accesses = [line for line in lines(world.server, "follow-me") if line["logger"] == "folkmoot.access"]
    assert [(line["method"], line["route"], line["status"]) for line in accesses] == [
        ("POST", "/api/trainings/<pk>/start/", 202)
    ]


def test_it_can_be_followed_into_the_log_of_a_worker_on_another_machine(production: Production) -> None:
    training = production.create_training(production.participants(2), rounds=1)

    path = f"/api/trainings/{training}/start/"
    production.call(production.actor, "POST", path, headers={"X-Request-ID": "follow-me"})

    wait_until(lambda: handled(production.worker, "follow-me"), "the worker's line")
    assert lines(production.server, "follow-me")
    assert not handled(production.server, "follow-me")


def test_each_line_of_the_log_says_when_to_the_millisecond(world: World) -> None:
    began = datetime.now(UTC)
    world.server.start()
    world.call(None, "GET", "/api/", headers={"X-Request-ID": "look-here"})
    world.call(None, "GET", "/api/", headers={"X-Request-ID": "look-here"})

    first, second = (datetime.fromisoformat(str(line["time"])) for line in lines(world.server, "look-here"))

    assert began < first < second < datetime.now(UTC)


def lines(process: Process, request_id: str) -> list[dict[str, object]]:
    """What the process has logged for this request."""
    logged = [json.loads(line) for line in process.log.splitlines() if line.startswith("{")]
    return [line for line in logged if line["request_id"] == request_id]


def handled(process: Process, request_id: str) -> bool:
    return any(line.get("event") == "round_opened" for line in lines(process, request_id))


def test_prometheus_sees_who_waits_for_work(world: World) -> None:
    world.server.start()
    (ann,) = world.participants(1)
    training = world.create_training([ann], rounds=1)

    def held() -> float:
        text = world.call(None, "GET", "/metrics").text
        return float(re.search(r"^folkmoot_long_polls (\S+)$", text, re.MULTILINE)[1])

    assert held() == 0
    with ThreadPoolExecutor(1) as thread:
        poll = thread.submit(world.call, ann, "GET", "/api/notifications/", params={"wait": 50, "after": 0})
        wait_until(lambda: held() == 1, "the poll to be held")
        world.start(training)
        assert poll.result(timeout=30).json()["notifications"]
    assert held() == 0


def test_prometheus_may_read_without_a_token_where_the_operator_says_so(world: World) -> None:
    world.server.start()

    answer = world.call(None, "GET", "/metrics")

    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert "process_resident_memory_bytes" in answer.text
    assert 'folkmoot_trainings{state="ongoing"} 0.0' in answer.text
