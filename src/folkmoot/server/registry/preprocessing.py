"""The module that a model's inputs go through first: kept as it came, and never run here."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from folkmoot.errors import NotFound, UnsupportedContainer
from folkmoot.server.registry.models import Model
from folkmoot.server.storage import get_storage
from folkmoot.server.storage.made import OpenedFile
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.tensors import formats
from folkmoot.tensors.formats.torch import format as torch_format


@dataclass(frozen=True)
class PreprocessingFile:
    """The file to be sent."""

    model: Model

    @property
    def etag(self) -> str:
        return f'"{self.model.preprocessing_sha256}"'

    @property
    def filename(self) -> str:
        return f"model-{self.model.pk}-preprocessing.pt"

    def open(self) -> OpenedFile:
        sha256 = self.model.preprocessing_sha256
        with get_storage().file(sha256) as path:
            return OpenedFile(path.open("rb"), sha256)


def preprocessing_of(model: Model) -> PreprocessingFile:
    """Raises NotFound if the model has none."""
    if not model.preprocessing_sha256:
        raise NotFound(f"Model '{model.pk}' has no preprocessing model defined.")
    return PreprocessingFile(model)


def store_preprocessing(incoming: IncomingFile) -> str:
    """Keep the file, and return its SHA-256; raises InvalidFile unless it is a module or TorchScript."""
    kind = formats.recognise(incoming.path)
    if kind.NAME != torch_format.NAME:
        raise UnsupportedContainer(f"{kind.NAME} is no preprocessing module; taken are torch modules and TorchScript")
    torch_format.check_module(incoming.path, settings.MODEL_FILE_LIMITS)
    sha256 = incoming.sha256
    incoming.sync()
    get_storage().adopt(incoming.path, sha256)
    return sha256


def set_preprocessing(model: Model, incoming: IncomingFile) -> None:
    """Let this file be the model's preprocessing from now on; raises what `store_preprocessing` raises."""
    model.preprocessing_sha256 = store_preprocessing(incoming)
    model.save(update_fields=["preprocessing_sha256"])
