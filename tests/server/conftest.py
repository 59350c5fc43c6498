"""A hub in this process: the whole of Django's stack, a database of its own, a folder of its own for every test.

The database is SQLite, or PostgreSQL in the second run of `make test`; everything else is as in an embedded hub.

No threads: a test handles the events itself, one by one or until none is due.
"""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import django
import numpy as np
import pytest
import safetensors.numpy

from services import ON_POSTGRES, POSTGRES


def _set_up_django():
    """Load the settings, whatever the environment of whoever runs the tests says."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("FOLKMOOT_")]:
        del os.environ[name]
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "folkmoot.server.settings",
        "FOLKMOOT_ADMIN": "true",
        "FOLKMOOT_DATABASE_URL": POSTGRES if ON_POSTGRES else "",
        "FOLKMOOT_DATA_DIR": "/nonexistent",
        "FOLKMOOT_REGISTRATION": "open",
        "FOLKMOOT_SECRET_KEY": "of the tests",
    }
    try:
        django.setup()
    finally:
        os.environ.clear()
        os.environ.update(before)
    # The tests of the client, in the same process, listen to what this logger says.
    logger = logging.getLogger("folkmoot")
    logger.setLevel(logging.NOTSET)
    logger.handlers.clear()


_set_up_django()
sys.path.insert(0, str(Path(__file__).parent))  # --import-mode=importlib does not

import interrupting  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402 - needs the settings
from django.utils import timezone  # noqa: E402
from questions import Questions  # noqa: E402

from folkmoot.server.accounts.models import User  # noqa: E402
from folkmoot.server.accounts.services import create_group, issue_token  # noqa: E402
from folkmoot.server.outbox.events import handle_next_event  # noqa: E402
from folkmoot.server.outbox.models import Event, Lane  # noqa: E402
from folkmoot.server.registry import services  # noqa: E402
from folkmoot.server.registry.models import Model  # noqa: E402
from folkmoot.server.storage import get_storage  # noqa: E402
from folkmoot.server.storage.upload import IncomingFile  # noqa: E402
from folkmoot.server.trainings import lifecycle  # noqa: E402
from folkmoot.server.trainings.creation import create_training  # noqa: E402
from folkmoot.server.trainings.models import Training  # noqa: E402
from folkmoot.server.uploads.services import open_upload  # noqa: E402
from object_store import CREDENTIALS, object_store  # noqa: E402


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory):
    """One for this process alone: other runs may go on at the same time."""
    from django.conf import settings

    # A file: threads that share a database in memory do not lock each other out as those of a real one do.
    file = tmp_path_factory.mktemp("database") / "test.sqlite3"
    name = f"folkmoot_test_{uuid.uuid4().hex[:12]}" if ON_POSTGRES else file
    settings.DATABASES["default"].setdefault("TEST", {})["NAME"] = name


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup, django_db_blocker):
    """The database, which can be removed in the end: threads that wait for work have connections to it still."""
    yield
    if ON_POSTGRES:
        with django_db_blocker.unblock(), connection.cursor() as cursor:
            others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            cursor.execute(f"SELECT pg_terminate_backend(pid) {others}")


@pytest.fixture(scope="session", autouse=True)
def static_files_found_once():
    """Each client has a middleware of its own, which would look for all files of the admin's pages again."""
    from whitenoise.middleware import WhiteNoiseMiddleware

    found = WhiteNoiseMiddleware(lambda request: None).files
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WhiteNoiseMiddleware, "add_files_from_finders", lambda self: self.files.update(found))
        yield


@pytest.fixture(autouse=True)
def quick_passwords(settings):
    # Argon2 is slow on purpose; that it is what the settings name has a test of its own.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


@pytest.fixture(autouse=True)
def storage(settings, tmp_path_factory):
    """The hub's blobs, in a folder of the test's own."""
    settings.DATA_DIR = tmp_path_factory.mktemp("data")
    get_storage.cache_clear()
    get_storage().prepare()
    yield get_storage()
    get_storage.cache_clear()


@pytest.fixture
def embedded_hub(settings):
    """What a hub on a developer's machine allows and a deployment does not, whichever database is below."""
    settings.EMBEDDED = True


@pytest.fixture(scope="session")
def s3_store():
    """An S3-compatible store, spoken to over HTTP."""
    with object_store() as store:
        yield store


@pytest.fixture
def bucket(s3_store):
    return s3_store.new_bucket()


@pytest.fixture
def aws_credentials(monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def s3_storage(bucket, aws_credentials, tmp_path):
    """A storage in that bucket, and a local folder of its own."""
    from folkmoot.server.storage.address import parse_address
    from folkmoot.server.storage.s3 import S3Storage

    storage = S3Storage(tmp_path / "s3", parse_address(bucket.url()), cache_bytes=2**30, seconds=10)
    storage.prepare()
    return storage


def file_of(**tensors):
    """A safetensors file; a tensor may be given as a number or a list, and is float32 then."""
    arrays = {name: each if isinstance(each, np.ndarray) else np.asarray(each, "f4") for name, each in tensors.items()}
    return safetensors.numpy.save(arrays)


class Caller(Client):
    """A user's program: JSON unless it says otherwise, and a 500 is an answer like any other."""

    def __init__(self, token=None, **headers):
        if token is not None:
            headers["Authorization"] = f"Token {token}"
        super().__init__(headers=headers, raise_request_exception=False)

    def send(self, method, path, body=None):
        return self.generic(method, path, *self._as_json(body))

    def _as_json(self, body):
        return (b"", "") if body is None else (json.dumps(body).encode(), "application/json")


@pytest.fixture
def make_user(db):
    numbers = itertools.count(1)

    def make(username=None, **fields):
        return User.objects.create_user(username or f"user-{next(numbers)}", **fields)

    return make


@pytest.fixture
def anonymous():
    return Caller()


@pytest.fixture
def as_():
    """A function: the program of a user, signed in by token."""
    callers = {}

    def sign_in(user):
        if user.pk not in callers:
            callers[user.pk] = Caller(issue_token(user)[1])
        return callers[user.pk]

    return sign_in


@pytest.fixture
def make_model(make_user):
    def make(owner=None, *, round=0, file=None, **tensors):
        incoming = IncomingFile("model")
        incoming.append(file or file_of(**(tensors or {"w": [0.0, 0.0]})))
        with incoming:
            return services.upload_model(incoming, owner=owner or make_user(), name="m", description="d", round=round)

    return make


@pytest.fixture
def make_training(make_user, make_model):
    """Of a model with one tensor `w` of two numbers, with two participants, for one round."""

    def make(actor=None, *, model=None, participants=2, **fields):
        actor = actor or make_user()
        if isinstance(participants, int):
            participants = [make_user() for _ in range(participants)]
        fields = {"target_num_updates": 1, "aggregation_method": "FedAvg", "options": {}} | fields
        model = model or make_model(actor)
        clients = [str(user.pk) for user in participants]
        return create_training(actor, model_id=str(model.pk), clients=clients, **fields)

    return make


class Scene:
    """A training with its people, and what they do."""

    def __init__(self, training, as_):
        self.id = training.pk
        self.model_id = training.model_id
        self.actor = training.actor
        self.participants = list(training.participants.order_by("username"))
        self._as = as_

    @property
    def training(self):
        return Training.objects.get(pk=self.id)

    @property
    def shown(self):
        """The training as its actor sees it."""
        return self._as(self.actor).get(f"/api/trainings/{self.id}/").json()

    @property
    def state(self):
        return self.shown["state"]

    @property
    def round_states(self):
        return [each["state"] for each in self.shown["rounds"]]

    def one_of(self, path):
        """The id of one of what the path is about: the actor's, or of the training."""
        things = {
            "users": lambda: self.actor,
            "tokens": lambda: issue_token(self.actor)[0],
            "groups": lambda: create_group("hospitals", creator=self.actor),
            "models": lambda: self.training.model,
            "uploads": lambda: open_upload(self.actor, target="/api/models/", fields={}, size=1)[0],
            "trainings": lambda: self.training,
        }
        resource = path.split("/")[2] if "<id>" in path else ""
        return things[resource]().pk if resource else None

    def weights(self, round=None):
        query = "" if round is None else f"?round={round}"
        answer = self._as(self.actor).get(f"/api/models/{self.model_id}/{query}")
        return safetensors.numpy.load(answer.getvalue())["w"].tolist()

    def send_update(self, user, *, round=0, sample_size=1, w=(1.0, 2.0), file=None, **fields):
        upload = io.BytesIO(file_of(w=w) if file is None else file)
        upload.name = "update.safetensors"
        fields = {"round": round, "sample_size": sample_size, "model_file": upload} | fields
        return self._as(user).post(f"/api/models/{self.model_id}/", fields)

    def report(self, user, **metrics):
        fields = {"metric_names": list(metrics), "metric_values": list(metrics.values())}
        return self._as(user).post(f"/api/models/{self.model_id}/metrics/", fields)

    def remove(self, *users):
        body = {"clients": [str(user.pk) for user in users]}
        return self._as(self.actor).send("DELETE", f"/api/trainings/{self.id}/clients/", body)

    def add(self, *users):
        body = {"clients": [str(user.pk) for user in users]}
        return self._as(self.actor).send("PUT", f"/api/trainings/{self.id}/clients/", body)

    def command(self, name, body=None):
        """As the actor: pause, resume and so on."""
        return self._as(self.actor).send("POST", f"/api/trainings/{self.id}/{name}/", body)

    def told(self, user):
        """All that the user was ever told: type and body."""
        answer = self._as(user).get("/api/notifications/?after=0").json()
        return [(each["notification_type"], each["body"]) for each in answer["notifications"]]

    def types_told(self, user):
        return [kind for kind, _ in self.told(user)]

    def asked_of(self, user):
        """What still asks the user for work."""
        answer = self._as(user).get("/api/notifications/").json()
        return [each["notification_type"] for each in answer["notifications"]]

    def let_deadline_pass(self):
        """As the sweep does it, at a moment after the open round's deadline."""
        current = self.training.rounds.latest("number")
        lifecycle.close_if_overdue(current, current.closes_at + timedelta(seconds=1))
        handle_all()


def handle_all(lane=Lane.TRAININGS):
    """Handle events until none is due, as the hub's worker does."""
    while handle_next_event(lane):
        pass


@pytest.fixture
def make_scene(make_training, as_):
    """A training of two participants that has started, its first round announced."""

    def make(*, started=True, **fields):
        training = make_training(**fields)
        if started:
            lifecycle.start(training, by=training.actor)
            handle_all()
        return Scene(training, as_)

    return make


@pytest.fixture
def scene_of(as_):
    """A function: the scene of a training that came about in another way."""
    return lambda training: Scene(training, as_)


@pytest.fixture
def work():
    return handle_all


@pytest.fixture
def bring_forward():
    """Whatever waits to be tried again is due now."""

    def bring():
        return Event.objects.unhandled().update(due_at=timezone.now(), leased_until=None)

    return bring


@pytest.fixture
def tensors_file():
    return file_of


@pytest.fixture
def caller():
    return Caller


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


@pytest.fixture
def meanwhile(tmp_path, monkeypatch):
    """A list: a function in it is called while a round with the strategy Interrupted is aggregated, once."""
    metadata = tmp_path / "interrupting-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: interrupting\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[folkmoot.strategies]\nInterrupted = interrupting:interrupted\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield interrupting.meanwhile
    interrupting.meanwhile.clear()
