"""A valid request for each operation: what Django's test client is to send, and what has to be so before."""

from __future__ import annotations

import hashlib
import io
import json
from functools import cache

import numpy as np
import pytest
import safetensors.numpy
from django.test.client import BOUNDARY, MULTIPART_CONTENT, encode_multipart

from folkmoot.protocol.reasons import ReasonCode
from folkmoot.protocol.states import RoundState, TrainingState
from folkmoot.server.accounts.models import User
from folkmoot.server.registry.calibration import note_calibration
from folkmoot.server.registry.intake import StoredFile
from folkmoot.server.registry.models import Model
from folkmoot.server.registry.preprocessing import set_preprocessing
from folkmoot.server.registry.services import add_checkpoint
from folkmoot.server.storage import get_storage
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings import lifecycle
from folkmoot.server.trainings.models import Round, Training
from folkmoot.server.uploads import services as uploads
from folkmoot.uncertainty import RegressionStatistics, to_json

FILE = safetensors.numpy.save({"w": np.zeros(2, "f4")})
DIGEST = hashlib.sha256(FILE).hexdigest()
MODEL = {"name": "m", "description": "d"}
PASSWORD = "correct horse battery staple"
STATISTICS = RegressionStatistics.of([1.0, 2.0], [1.5, 2.0])


def as_json(**fields):
    return {"data": json.dumps(fields), "content_type": "application/json"}


def as_form(**fields):
    files = {name: _named(name, value) if isinstance(value, bytes) else value for name, value in fields.items()}
    return {"data": encode_multipart(BOUNDARY, files), "content_type": MULTIPART_CONTENT}


def as_bytes(**more):
    return {"data": FILE, "content_type": "application/octet-stream", **more}


@cache
def preprocessing_file():
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save(torch.nn.Flatten(), file)
    return file.getvalue()


def _question(scene, owner):
    """To the scene's model, whose tensor is of a file that can be run from now on."""
    template = incoming(running_file())
    get_storage().adopt(template.path, template.sha256)
    Model.objects.filter(pk=scene.model_id).update(template_sha256=template.sha256, format="torch")
    return as_json(model_id=str(scene.model_id), model_input=[[1, 2]])


@cache
def running_file():
    torch = pytest.importorskip("torch")

    class Scaled(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return x * self.w

    file = io.BytesIO()
    torch.jit.save(torch.jit.script(Scaled()), file)
    return file.getvalue()


def request_for(operation, *, scene, owner):
    """The arguments of a request; `scene` has the model that is trained, `owner` is any user."""
    make = REQUESTS.get(operation, lambda scene, owner: {})
    return make(scene, owner)


def prepare(operation, thing):
    """Bring about what the request asks for, of the thing that it is sent to."""
    PREPARATIONS.get(operation, lambda thing: None)(thing)


def is_done(status):
    """Whether this is an answer to a valid request."""
    return status in (200, 201, 202, 204)


def _clients(scene, owner):
    return as_json(clients=[])


def _members(scene, owner):
    return as_json(users=[str(owner.pk)])


def _name(scene, owner):
    return as_json(name="clinics")


REQUESTS = {
    "POST /api/users/": lambda *_: as_json(username="new", password=PASSWORD),
    "PATCH /api/users/myself/": lambda *_: as_json(first_name="Ada"),
    "PUT /api/users/<id>/password/": lambda *_: as_json(password=PASSWORD),
    "POST /api/groups/": _name,
    "PUT /api/groups/<id>/": _name,
    "PATCH /api/groups/<id>/": _name,
    "PUT /api/groups/<id>/members/": _members,
    "DELETE /api/groups/<id>/members/": _members,
    "POST /api/tokens/": _name,
    "POST /api/models/": lambda *_: as_form(model_file=FILE, **MODEL),
    "POST /api/models/<id>/": lambda *_: as_form(model_file=FILE, round=0, sample_size=1),
    "PUT /api/models/<id>/update/": lambda *_: as_bytes(query="?round=0&sample_size=1"),
    "POST /api/models/<id>/metrics/": lambda *_: as_json(metric_names=["loss"], metric_values=[1]),
    "POST /api/models/<id>/preprocessing/": lambda *_: as_form(model_preprocessing_file=preprocessing_file()),
    "POST /api/models/<id>/swag/": lambda *_: as_json(round=1, sample_size=0),
    "POST /api/models/<id>/calibration/": lambda *_: as_json(round=0, statistics=to_json(STATISTICS)),
    "POST /api/inference/": _question,
    "POST /api/uploads/": lambda *_: as_json(target="/api/models/", fields=MODEL, size=len(FILE)),
    "PATCH /api/uploads/<id>/": lambda *_: as_bytes(headers={"Upload-Offset": "0", "X-Content-SHA256": DIGEST}),
    "POST /api/uploads/<id>/commit/": lambda *_: as_json(sha256=DIGEST),
    "POST /api/trainings/": lambda scene, _: as_json(
        model_id=str(scene.model_id), target_num_updates=1, aggregation_method="FedAvg"
    ),
    "PUT /api/trainings/<id>/clients/": _clients,
    "POST /api/trainings/<id>/progress/": lambda scene, _: as_json(round=0, state="training", percent=40),
    "POST /api/trainings/<id>/clients/": _clients,
    "DELETE /api/trainings/<id>/clients/": _clients,
}


def _end_training(model):
    Training.objects.filter(model=model).update(state=TrainingState.COMPLETED)


def _await_moments(model):
    first = model.latest_checkpoint
    add_checkpoint(model, 1, StoredFile(first.sha256, first.num_bytes, bytes(first.checksums)))
    Model.objects.filter(pk=model.pk).update(round=1)
    Training.objects.filter(model=model).update(state=TrainingState.SWAG_ROUND)
    Round.objects.filter(training__model=model).update(state=RoundState.SWAG)


def _calibrate(model):
    """By two, so that no one's own numbers are shown."""
    for user in User.objects.all()[:2]:
        note_calibration(model, user, round=0, statistics=STATISTICS, may_replace=False)


def _unstart(training):
    training.rounds.all().delete()
    Training.objects.filter(pk=training.pk).update(state=TrainingState.INITIAL)


PREPARATIONS = {
    "DELETE /api/models/<id>/": _end_training,
    "GET /api/models/<id>/preprocessing/": lambda model: set_preprocessing(model, incoming(preprocessing_file())),
    "GET /api/models/<id>/calibration/": _calibrate,
    "POST /api/models/<id>/swag/": _await_moments,
    "POST /api/uploads/<id>/commit/": lambda upload: uploads.append(upload, incoming(FILE), offset=0),
    "POST /api/trainings/<id>/start/": _unstart,
    "POST /api/trainings/<id>/resume/": lambda training: lifecycle.pause(training, by=training.actor),
    "POST /api/trainings/<id>/retry/": lambda training: lifecycle.fail(training.pk, "r", code=ReasonCode.QUORUM),
}


def _named(name, data):
    file = io.BytesIO(data)
    file.name = name
    return file


def incoming(data):
    file = IncomingFile("file")
    file.append(data)
    return file
