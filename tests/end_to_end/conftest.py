"""Worlds to break: each test has a copy of one in which everybody has registered already."""

from __future__ import annotations

import os
import re
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

pytest.register_assert_rewrite("harness", "invariants")
sys.path.insert(0, str(Path(__file__).parent))  # --import-mode=importlib does not

from harness import Participants, Place, Server, Template, World, copy, make_template  # noqa: E402
from invariants import check_history  # noqa: E402

POSTGRES = os.environ.get("FOLKMOOT_TEST_POSTGRES_URL", "postgres://postgres@127.0.0.1:5432/postgres")
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
    # A model belongs to its first training; all further ones have copies, which begin where it never leaves.
    world.create_training([], rounds=1)
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
def undisturbed(shared_world: World) -> Callable[[int, int], bytes]:
    """A function that gives what the model is after so many participants' so many rounds if nothing goes wrong.

    Every world has the same users, and so all that begin alike end with the same bytes.
    """

    @cache
    def final_model(participants: int, rounds: int) -> bytes:
        accounts = shared_world.participants(participants)
        with Participants(shared_world, accounts):
            training_id = shared_world.started(accounts, rounds=rounds)
            shared_world.wait_for_end(training_id)
        return shared_world.weights(training_id)[1]

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
