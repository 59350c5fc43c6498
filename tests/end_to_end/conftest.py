"""Worlds to break: each test has a copy of one in which everybody has registered already."""

from __future__ import annotations

import logging
import os
import random
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

pytest.register_assert_rewrite("buckets", "disturbing", "harness", "invariants")
sys.path.insert(0, str(Path(__file__).parent))  # --import-mode=importlib does not

from brokers import Broker, broker_of  # noqa: E402
from harness import (  # noqa: E402
    Beat,
    Place,
    Production,
    Server,
    Template,
    Worker,
    World,
    copy,
    finish,
    make_template,
)
from invariants import check_history  # noqa: E402

from services import POSTGRES  # noqa: E402

logger = logging.getLogger(__name__)
NO_POSTGRES = "no PostgreSQL at {url}: apt-get install postgresql, then name it in FOLKMOOT_TEST_POSTGRES_URL"


@pytest.fixture
def backend() -> str:
    """Parametrised by tests that are to hold for PostgreSQL, too."""
    return "sqlite"


@pytest.fixture
def settings() -> dict[str, str]:
    """Overridden by tests whose server needs environment variables of its own."""
    return {}


@pytest.fixture
def dice(record_property: Callable[[str, object], None]) -> random.Random:
    """For random moments; FOLKMOOT_TEST_SEED has them again. In the end the seed is printed."""
    seed = int(os.environ.get("FOLKMOOT_TEST_SEED") or random.randrange(10**6))
    logger.warning("FOLKMOOT_TEST_SEED=%d", seed)
    record_property("FOLKMOOT_TEST_SEED", seed)
    return random.Random(seed)


@pytest.fixture
def world(backend: str, tmp_path: Path, request: pytest.FixtureRequest, settings: dict[str, str]) -> Iterator[World]:
    """A world of the test's own; its server is not started yet. At the end the invariants hold."""
    template: Template = request.getfixturevalue(f"{backend}_template")
    database_url = request.getfixturevalue("postgres_database") if backend == "postgres" else ""
    world = World(
        Server(copy(template, tmp_path, database_url=database_url), **settings), template.accounts, template.model_id
    )
    try:
        yield world
        check_history(world.place)
        check_log(world.place)
    finally:
        world.server.kill()


@pytest.fixture
def broker_kind() -> str:
    """Overridden or parametrised by tests that are to hold for "rabbitmq", too."""
    return "redis"


@pytest.fixture
def broker(broker_kind: str, request: pytest.FixtureRequest) -> Iterator[Broker]:
    """A broker that is the test's own; skipped where there is none, but not under CI=true."""
    long = request.node.get_closest_marker("timeout")
    with broker_of(broker_kind, **({"seconds": int(long.args[0])} if long else {})) as broker:
        yield broker


@pytest.fixture
def idle_production(
    broker: Broker, postgres_template: Template, postgres_database: str, tmp_path: Path, settings: dict[str, str]
) -> Iterator[Production]:
    """As `production`, but nothing is started yet."""
    place = copy(postgres_template, tmp_path, database_url=postgres_database, broker=broker)
    parts = (Worker(place, **settings), Beat(place, **settings))
    production = Production(Server(place, **settings), postgres_template.accounts, postgres_template.model_id, *parts)
    try:
        yield production
        check_history(place)
        check_log(place)
    finally:
        production.kill()


@pytest.fixture
def production(idle_production: Production) -> Production:
    """A hub of the test's own on PostgreSQL and a broker, at work. In the end the invariants hold."""
    idle_production.start_all()
    return idle_production


@pytest.fixture
def hub(shared_world: World) -> Iterator[World]:
    """A world with a running server, for tests that do it no harm. At the end the invariants hold."""
    yield shared_world
    check_history(shared_world.place)
    check_log(shared_world.place)


@pytest.fixture(scope="session")
def shared_world(sqlite_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = copy(sqlite_template, tmp_path_factory.mktemp("hub"))
    # It lives long: at the others' pace its sweeps alone would take a tenth of a processor.
    server = Server(place, FOLKMOOT_SWEEP_SECONDS="1")
    world = World(server, sqlite_template.accounts, sqlite_template.model_id)
    server.start()
    world.let_all_begin_alike()
    yield world
    world.server.kill()


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    return make_template(Place(tmp_path_factory.mktemp("sqlite-template")))


@pytest.fixture(scope="session")
def postgres_template(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    with _database() as url:
        yield make_template(Place(tmp_path_factory.mktemp("postgres-template"), url))


@pytest.fixture
def postgres_database(postgres_template: Template) -> Iterator[str]:
    with _database(copy_of=postgres_template.place.database_url.rpartition("/")[2]) as url:
        yield url


@pytest.fixture(scope="session")
def undisturbed(sqlite_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], bytes]:
    """A function that gives what the model is after so many participants' so many rounds if nothing goes wrong.

    Every world has the same users, and so all that begin alike end with the same bytes.
    """

    @cache
    def final_model(participants: int, rounds: int) -> bytes:
        # Not in the shared world, where the participants would have to do whatever tests have left undone.
        place = copy(sqlite_template, tmp_path_factory.mktemp("undisturbed"))
        world = World(Server(place), sqlite_template.accounts, sqlite_template.model_id)
        world.server.start()
        try:
            training_id = world.started(world.participants(participants), rounds=rounds)
            finish(world, world.participants(participants), training_id)
            return world.weights(training_id)[1]
        finally:
            world.server.kill()

    return final_model


def check_log(place: Place) -> None:
    """The server has no traceback to tell of but those that the test expects."""
    log = place.log
    for expected in place.expected_in_log:
        log = re.sub(expected, "", log)
    assert "Traceback" not in log, log


@contextmanager
def _database(*, copy_of: str = "") -> Iterator[str]:
    """The address of a PostgreSQL database that is there for as long as a `with` block."""
    name = f"folkmoot_test_{uuid.uuid4().hex[:12]}"
    _administer(f'CREATE DATABASE "{name}"' + (f' TEMPLATE "{copy_of}"' if copy_of else ""))
    try:
        yield f"{POSTGRES.rpartition('/')[0]}/{name}"
    finally:
        _administer(f'DROP DATABASE "{name}" WITH (FORCE)')


def _administer(statement: str) -> None:
    import psycopg

    try:
        connection = psycopg.connect(POSTGRES, autocommit=True, connect_timeout=5)
    except psycopg.OperationalError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(NO_POSTGRES.format(url=POSTGRES))
    with connection:
        connection.execute(statement)
