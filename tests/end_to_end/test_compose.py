"""`compose.yaml`, without Docker: the commands of its services, with the environment that it gives them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url
import pytest
import yaml
from harness import Production, wait_until

from folkmoot.server.storage.address import S3Address, parse_address

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
HUB = {name: service for name, service in SERVICES.items() if service.get("image") == "folkmoot"}
SECRETS = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "deploy/env.example").read_text(), re.MULTILINE)) | {
    "FOLKMOOT_HOST": "127.0.0.1"
}


@pytest.fixture
def settings() -> dict[str, str]:
    """What compose.yaml sets, but for the addresses of services that tests have elsewhere."""
    elsewhere = ("FOLKMOOT_DATA_DIR", "FOLKMOOT_DATABASE_URL", "FOLKMOOT_BROKER_URL", "FOLKMOOT_STORAGE_URL")
    given = HUB["web"]["environment"].items()
    return {name: expanded(str(value)) for name, value in given if name not in elsewhere}


@pytest.fixture
def services(idle_production: Production) -> Production:
    """The hub's services, each started by its command there; a port given later counts."""
    parts = {"worker": idle_production.worker, "beat": idle_production.beat, "web": idle_production.server}
    for name, process in parts.items():
        program, *arguments = HUB[name]["command"]
        assert program == "folkmoot"
        process._command = tuple(arguments)
    idle_production.start_all()
    return idle_production


def expanded(text: str) -> str:
    """With the variables that .env has to set."""
    return re.sub(r"\$\{(\w+)(?::[?-]([^}]*))?\}", lambda found: SECRETS.get(found[1]) or found[2] or "x" * 40, text)


def test_every_service_of_the_hub_has_the_same_environment_and_may_write_nothing_but_its_data() -> None:
    assert set(HUB) == {"web", "worker", "beat"}
    for service in HUB.values():
        assert service["environment"] == HUB["web"]["environment"]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["volumes"] == [f"data:{service['environment']['FOLKMOOT_DATA_DIR']}"]


def test_every_variable_that_env_example_names_is_used_and_no_other_is_needed() -> None:
    needed = set(re.findall(r"\$\{(\w+):\?", (ROOT / "compose.yaml").read_text()))

    assert needed == set(SECRETS)


def test_the_services_of_the_hub_work_together_with_the_commands_and_settings_given_there(services: Production) -> None:
    participants = services.participants(2)
    training = services.started(participants, rounds=1, tests="never")
    for each in services.updates_of(participants, training, 0):
        assert services.send(each).status_code == 201

    assert services.wait_for_end(training)["state"] == "C"


def test_the_health_of_the_web_process_is_what_its_check_says(services: Production) -> None:
    kind, program, *arguments = HUB["web"]["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "python")
    arguments = [part.replace("http://localhost:8000", services.server.url) for part in arguments]
    check = [sys.executable, *arguments]

    assert subprocess.run(check, timeout=30).returncode == 0
    services.server.terminate()
    assert subprocess.run(check, timeout=30, stderr=subprocess.DEVNULL).returncode != 0


def test_the_store_and_the_database_have_addresses_that_the_hub_understands() -> None:
    given = {name: expanded(str(value)) for name, value in HUB["web"]["environment"].items()}

    store = parse_address(given["FOLKMOOT_STORAGE_URL"])
    assert isinstance(store, S3Address)
    assert f"hub/{store.bucket}" in SERVICES["bucket"]["command"][0]
    assert store.endpoint == "http://minio:9000"
    assert dj_database_url.parse(given["FOLKMOOT_DATABASE_URL"])["HOST"] in SERVICES
    assert urlsplit(given["FOLKMOOT_BROKER_URL"]).hostname in SERVICES


def test_redis_starts_with_the_command_given_there(tmp_path: Path) -> None:
    command = list(SERVICES["redis"]["command"])
    socket = tmp_path / "redis.sock"
    with subprocess.Popen(
        [*command, "--port", "0", "--unixsocket", str(socket)], cwd=tmp_path, stdout=subprocess.DEVNULL
    ) as redis:
        check = [*SERVICES["redis"]["healthcheck"]["test"][1:]]
        check[1:1] = ["-s", str(socket)]
        try:
            wait_until(
                lambda: subprocess.run(check, capture_output=True, text=True).stdout == "PONG\n", "Redis to answer"
            )
        finally:
            redis.terminate()


@pytest.mark.skipif(shutil.which("caddy") is None, reason="no Caddy here: apt-get install caddy")
def test_the_proxy_finds_nothing_wrong_with_its_configuration() -> None:
    command = ["caddy", "validate", "--adapter", "caddyfile", "--config", "deploy/Caddyfile"]
    result = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "FOLKMOOT_HOST": "hub.example"}, capture_output=True, text=True
    )

    assert result.returncode == 0, result.stderr
