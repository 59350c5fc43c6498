"""What a file is for that comes in chunks: to be a new model, or an update to one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

from rest_framework import serializers, status

from folkmoot.errors import InvalidValue, NotFound
from folkmoot.protocol.paths import MODELS
from folkmoot.server.accounts.models import User
from folkmoot.server.api.serializers.models import ModelFieldsSerializer, UpdateFieldsSerializer
from folkmoot.server.registry import services
from folkmoot.server.registry.models import Model
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.server.trainings import submissions
from folkmoot.server.trainings.creation import as_uuid
from folkmoot.server.trainings.models import Update
from folkmoot.server.uploads.models import Upload

Answer = dict[str, Any]
_TARGET = re.compile(re.escape(MODELS) + r"(?:([^/]+)/)?")


def model_accepted(model: Model) -> Answer:
    """The answer to whoever has uploaded a model."""
    body = {"detail": "Model Upload Accepted", "model_id": str(model.pk)}
    return {"status": status.HTTP_201_CREATED, "body": body, "model": str(model.pk)}


def update_accepted(update_id: object, model: Model | Update, *, is_new: bool) -> Answer:
    """The answer to whoever has sent an update."""
    body = {"detail": "Model Update Accepted", "update_id": str(update_id)}
    code = status.HTTP_201_CREATED if is_new else status.HTTP_200_OK
    return {"status": code, "body": body, "model": str(model.pk)}


class Target(Protocol):
    """What can be done with a file once it is there whole, and whether that will be allowed."""

    def check(self, user: User, fields: dict[str, Any], sha256: str) -> None:
        """Raise, before any bytes come, what `deliver` would."""

    def deliver(self, upload: Upload, incoming: IncomingFile) -> Answer:
        """Do it. The same upload may come again, after a process has died: it has the same effect once."""


def find_target(path: str) -> Target:
    """The target at this path; InvalidValue if there is none."""
    match = _TARGET.fullmatch(path)
    if match is None:
        raise InvalidValue(f"target must be {MODELS} or {MODELS}<id>/, not {path[:100]}")
    return UpdateTarget(match[1]) if match[1] else ModelTarget()


class ModelTarget:
    """A new model. It has the upload's id, by which it is known to be there already."""

    def check(self, user: User, fields: dict[str, Any], sha256: str) -> None:
        _validated(ModelFieldsSerializer, fields)

    def deliver(self, upload: Upload, incoming: IncomingFile) -> Answer:
        model = Model.objects.filter(pk=upload.pk).first()
        if model is None:
            fields = _validated(ModelFieldsSerializer, upload.fields)
            model = services.upload_model(incoming, owner=upload.owner, id=upload.pk, **fields)
        return model_accepted(model)


@dataclass(frozen=True)
class UpdateTarget:
    """An update to the model; the same bytes again are the same update."""

    model_id: str

    def check(self, user: User, fields: dict[str, Any], sha256: str) -> None:
        model = self._model()
        if model is None:
            raise InvalidValue(f"Model {self.model_id} not found.", code="not_found")
        round = _validated(UpdateFieldsSerializer, fields)["round"]
        submissions.check(model, user, round=round, received_sha256=sha256)

    def deliver(self, upload: Upload, incoming: IncomingFile) -> Answer:
        model = self._model()
        if model is None:
            raise NotFound(f"Model {self.model_id} not found.")
        fields = _validated(UpdateFieldsSerializer, upload.fields)
        update, is_new = submissions.submit(model, upload.owner, incoming, **fields)
        return update_accepted(update.pk, model, is_new=is_new)

    def _model(self) -> Model | Update | None:
        known = as_uuid(self.model_id)
        return submissions.find_target(known) if known else None


def _validated(kind: type[serializers.Serializer], fields: dict[str, Any]) -> dict[str, Any]:
    serializer = kind(data=fields)
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)
