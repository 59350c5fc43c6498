"""The process that loads one model and answers questions about it, until the server hangs up."""

from __future__ import annotations

import os
import socket
import warnings
from typing import Any

from folkmoot.errors import FolkmootError, InvalidValue, ModelFailed
from folkmoot.sandbox.confinement import confine
from folkmoot.sandbox.handing import HandedFile
from folkmoot.sandbox.limits import ChildSettings
from folkmoot.sandbox.loading import Files, LoadedModel, load
from folkmoot.sandbox.model import Sampling
from folkmoot.sandbox.wire import Array, Channel, Gone, Message

_KEPT_DESCRIPTORS = 3  # of /dev/null
_ALL_DESCRIPTORS = 1 << 16


def run_child(line: int, settings: ChildSettings, parent: int) -> None:
    """Confine this process, then answer; never returns."""
    os.closerange(_KEPT_DESCRIPTORS, line)
    os.closerange(line + 1, _ALL_DESCRIPTORS)
    warnings.simplefilter("ignore")
    channel = Channel(socket.socket(fileno=line), takes_descriptors=True)
    confine(memory_bytes=settings.memory_bytes, cpu_seconds=settings.cpu_seconds, parent=parent)
    try:
        _Conversation(settings).go_on(channel)
    except Gone:
        os._exit(0)


class _Conversation:
    def __init__(self, settings: ChildSettings) -> None:
        self._settings = settings
        self._files: Files = {}
        self._model: LoadedModel | None = None

    def go_on(self, channel: Channel) -> None:
        while True:
            fields, arrays = self._reply(channel.receive())
            channel.send(fields, arrays)

    def _reply(self, question: Message) -> tuple[dict[str, Any], list[Array]]:
        try:
            fields, arrays = self._answer(question)
            self._check_size(arrays)
            return fields, arrays
        except FolkmootError as error:
            return {"code": error.code, "message": error.message}, []
        except MemoryError:
            return _failed("the model takes more memory than it may"), []
        except BaseException as error:  # of a model, SystemExit too
            return _failed(_sentence(error, question)), []

    def _answer(self, question: Message) -> tuple[dict[str, Any], list[Array]]:
        match question:
            case ({"ask": "file", "role": str(role)}, _, int(descriptor)):
                self._files.setdefault(role, []).append(HandedFile.of(descriptor))
                return {}, []
            case ({"ask": "load", "architecture": str() | None as architecture}, _, _):
                self._model = load(self._files, architecture, self._settings.torch_classes)
                return {}, []
            case ({"ask": "predict", "sampling": dict(sampling)}, [inputs], _):
                return {}, [self._loaded().predict(inputs, Sampling(**sampling))]
            case ({"ask": "preprocess"}, [inputs], _):
                return {}, [self._loaded().preprocess(inputs)]
            case ({"ask": "summary", "shape": list(shape)}, _, _):
                return {"summary": self._loaded().summary(tuple(shape))}, []
        raise InvalidValue("a question that is not known")

    def _loaded(self) -> LoadedModel:
        if self._model is None:
            raise InvalidValue("no model has been loaded")
        return self._model

    def _check_size(self, arrays: list[Array]) -> None:
        size, most = sum(array.nbytes for array in arrays), self._settings.output_bytes
        if size > most:
            raise ModelFailed(f"the model's output has {size} bytes; at most {most} are taken")


def _failed(message: str) -> dict[str, Any]:
    return {"code": ModelFailed.code, "message": message}


def _sentence(error: BaseException, question: Message) -> str:
    """Our own words: what the exception says was chosen by whoever wrote the model."""
    kind = next((each.__name__ for each in type(error).__mro__ if each.__module__ == "builtins"), "an exception")
    if question.fields["ask"] == "load":
        return f"the model could not be loaded: {kind}"
    shapes = ", ".join(f"{array.dtype} of shape {array.shape}" for array in question.arrays)
    return f"the model raised {kind} for its input" + (f", {shapes}" if shapes else "")
