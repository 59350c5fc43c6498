"""What updates could not say is said by later ones: without this, small changes would never be heard."""

from __future__ import annotations

from pathlib import Path

from folkmoot.tensors import Schema, TensorFile, Tensors
from folkmoot.tensors.limits import TRUSTED
from folkmoot.tensors.schema import is_float


class ErrorFeedback:
    """Keeps, in `folder`, what the updates of each training have left unsent so far.

    Sources: Seide et al. 2014, https://www.isca-archive.org/interspeech_2014/seide14_interspeech.html; Stich et al.
    2018, https://arxiv.org/abs/1809.07599; Karimireddy et al. 2019, https://arxiv.org/abs/1901.09847.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, Path] = {}
        self._number = 0
        self.draft = folder / "unsent"
        """Where to write what would be left once the update in hand is taken."""

    def unsent(self, training_id: str, update: Schema) -> Tensors:
        """What is to be added to the next difference: nothing, or the floats of `update`."""
        if training_id not in self._kept:
            return {}
        kept = TensorFile.open(self._kept[training_id], limits=TRUSTED)
        floats = Schema(spec for spec in update if is_float(spec.numpy_dtype))
        return kept if kept.schema == floats else {}

    def taken(self, training_id: str) -> None:
        """The hub has the update, so the draft is what is left now.

        Not before: an update that is refused has said nothing.
        """
        if training_id not in self._kept:
            self._number += 1
            self._kept[training_id] = self._folder / f"unsent-{self._number}"
        self.draft.replace(self._kept[training_id])

    def forget(self, training_id: str) -> None:
        """The training is over, or goes on without us."""
        if path := self._kept.pop(training_id, None):
            path.unlink()
