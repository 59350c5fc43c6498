"""The file of an update, made as the training asks for it."""

from __future__ import annotations

import logging
from pathlib import Path

from folkmoot.client.error_feedback import ErrorFeedback
from folkmoot.client.task import Task
from folkmoot.errors import InvalidValue
from folkmoot.tensors import Schema, Tensors, WrittenFile, write_tensors
from folkmoot.tensors.encodings import Base, Encoding, encode
from folkmoot.tensors.layers import Selected

logger = logging.getLogger("folkmoot.client")


class Outgoing:
    """Writes one update after another to `path`, and remembers for each training what they could not say.

    None of it outlives the program, so none of it waits for the disk.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "update"
        self._feedback = ErrorFeedback(folder)

    def write(self, update: Tensors, model: Tensors, task: Task) -> WrittenFile:
        """Write the update, which was trained from `model`; raises NonFinite."""
        encoding = _encoding(task)
        if encoding is None:
            return write_tensors(self.path, update, durable=False)
        if not encoding.difference:
            return encode(update, encoding, self.path, durable=False)
        schema = Schema.of(update)
        base = Base.of(Selected(model, schema))
        if not encoding.leaves_unsent:
            return encode(update, encoding, self.path, base=base, durable=False)
        unsent = self._feedback.unsent(task.training_id, schema)
        draft = self._feedback.draft
        return encode(update, encoding, self.path, base=base, unsent=unsent, left=draft, durable=False)

    def taken(self, task: Task) -> None:
        """The hub has the update that was written last."""
        encoding = _encoding(task)
        if encoding is not None and encoding.leaves_unsent:
            self._feedback.taken(task.training_id)

    def forget(self, training_id: str) -> None:
        """Nothing more will be sent for this training."""
        self._feedback.forget(training_id)


def _encoding(task: Task) -> Encoding | None:
    try:
        return Encoding.of(task.encoding) if task.encoding else None
    except InvalidValue as error:  # of a newer hub, which takes plain updates all the same
        logger.warning("round %d: the update is sent as it is: %s", task.round, error)
        return None
