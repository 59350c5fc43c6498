"""The face of the sandbox: ask a model, get arrays; whatever the model does, it does to itself."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from folkmoot.errors import ModelFailed
from folkmoot.sandbox.children import Children
from folkmoot.sandbox.limits import ChildSettings, SandboxLimits
from folkmoot.sandbox.model import Sampling, SandboxModel
from folkmoot.sandbox.nursery import Nursery
from folkmoot.sandbox.summary_fields import checked_summary


class Sandbox:
    """Loads models in processes of their own, and keeps those that were asked last. Thread-safe.

    `torch_classes` are the classes of modules, as "module.Name", that the operator takes beyond torch's own.

    Every call raises ModelFailed for what the model does wrong, InvalidInput for what is wrong with its files or the
    question, NotInstalled where a library is missing, Unavailable where all processes are at work.
    """

    def __init__(
        self,
        limits: SandboxLimits = SandboxLimits(),  # noqa: B008 (frozen)
        *,
        torch_classes: Collection[str] = (),
    ) -> None:
        self._nursery = Nursery(ChildSettings.of(limits, torch_classes), start_seconds=limits.start_seconds)
        self._children = Children(self._nursery, limits)

    def warm(self) -> None:
        """Start what takes seconds to start, in the background; without this the first call waits for it."""
        self._nursery.warm()

    def predict(
        self,
        model: SandboxModel,
        inputs: npt.NDArray[Any],
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    ) -> npt.NDArray[Any]:
        """What the model answers, float32 or float64 as it ends, of shape (members, rows, ...).

        The first axis of `inputs` is that of the rows.
        """
        fields = {"method": sampling.method, "samples": sampling.samples, "seed": sampling.seed}
        outputs = self._array(model, {"ask": "predict", "sampling": fields}, inputs)
        if outputs.dtype not in (np.float32, np.float64) or not outputs.ndim:
            raise ModelFailed("the model's process answered with something else than its outputs")
        return outputs

    def preprocess(self, model: SandboxModel, inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What the model's preprocessing module makes of `inputs`: to be looked at, and then predicted from."""
        return self._array(model, {"ask": "preprocess"}, inputs)

    def summary(self, model: SandboxModel, input_shape: Sequence[int | None]) -> dict[str, Any] | None:
        """The table of the model's layers for an input of this shape; None where it cannot be made."""
        with self._children.lend(model) as child:
            answer = child.ask({"ask": "summary", "shape": list(input_shape)})
        return checked_summary(answer.fields.get("summary"))

    def close(self) -> None:
        """End all processes."""
        self._children.close()
        self._nursery.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _array(self, model: SandboxModel, question: dict[str, Any], inputs: npt.NDArray[Any]) -> npt.NDArray[Any]:
        with self._children.lend(model) as child:
            answer = child.ask(question, [inputs])
        if len(answer.arrays) != 1:
            raise ModelFailed("the model's process answered with something else than one array")
        (array,) = answer.arrays
        if not array.size:
            # A model has billions of rows of nothing for free; whoever measures them has not.
            raise ModelFailed(f"the model answered with no numbers: an array of shape {array.shape}")
        return array
