"""One piece of work: fetch the model, let the participant's own function have it, send what comes out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from folkmoot.client.global_model import GlobalModel
from folkmoot.client.hub import Hub
from folkmoot.client.outgoing import Outgoing
from folkmoot.client.patience import Patience
from folkmoot.client.reporting import Reporter
from folkmoot.client.task import Declined, Task
from folkmoot.client.update import fit
from folkmoot.errors import Conflict, FolkmootError, InvalidInput, NotAllowed, NotFound
from folkmoot.protocol.states import Doing
from folkmoot.tensors import Schema, Tensors, WrittenFile, open_tensors, write_tensors
from folkmoot.tensors.schema import BFLOAT16
from folkmoot.uncertainty import Statistics

logger = logging.getLogger("folkmoot.client")

Weights = dict[str, npt.NDArray[Any]]
Metrics = Mapping[str, float]
Train = Callable[[Weights, Task], tuple[Mapping[str, npt.ArrayLike], int, Metrics]]
Evaluate = Callable[[Weights, Task], tuple[int, Metrics] | tuple[int, Metrics, Statistics | None]]
Swag = Callable[[Weights, Task], tuple[npt.ArrayLike, npt.ArrayLike, int]]
Returned = TypeVar("Returned")


class Refused(Exception):
    """The hub's answer is final: this piece of work is over, others may follow."""

    def __init__(self, reason: FolkmootError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Worker:
    """Does tasks for `hub`, with files in `folder`, as patiently as `patience` allows."""

    def __init__(self, hub: Hub, patience: Patience, folder: Path) -> None:
        self._hub = hub
        self._patience = patience
        self._reporter = Reporter(hub)
        self._model = GlobalModel(hub, folder)
        self._outgoing = Outgoing(folder)
        self._folder = folder

    def train(self, function: Train, task: Task) -> None:
        """Raises Refused, and whatever `function` raises, of which the hub is told."""
        with self._reporter.during(task, Doing.DOWNLOADING):
            weights, model = self._fetch(task)
        logger.info("round %d: training", task.round)
        trained, num_examples, metrics = self._call_to_train(function, weights, task)
        with _refusals():
            written = self._outgoing.write(fit(trained, Schema.of(model), task.exchange), model, task)
            self._send(written, task, num_examples, metrics)
        self._outgoing.taken(task)

    def evaluate(self, function: Evaluate | None, task: Task) -> None:
        """Without a function the hub is told not to wait for one; raises Refused, and whatever `function` raises."""
        if function is None:
            self._report(task, {"num_examples": 0})
            return
        weights, _ = self._fetch(task)
        num_examples, metrics, *rest = _call(function, weights, task)
        # First, since the metrics may end the test.
        for statistics in rest:
            self._send_calibration(task, statistics)
        self._report(task, {**metrics, "num_examples": num_examples})

    def swag(self, function: Swag | None, task: Task) -> None:
        """Without a function the hub is told that there are no moments; raises Refused, and what `function` raises."""
        if function is None:
            self._send_moments(task, 0, None)
            return
        weights, _ = self._fetch(task)
        first, second, num_examples = _call(function, weights, task)
        files = (self._folder / "first-moment", self._folder / "second-moment")
        for path, moment in zip(files, (first, second), strict=True):
            write_tensors(path, {"moment": np.asarray(moment)}, durable=False)
        self._send_moments(task, num_examples, files)

    def forget(self, training_id: str) -> None:
        """The training asks for nothing more."""
        self._outgoing.forget(training_id)

    def _call_to_train(
        self, function: Train, weights: Weights, task: Task
    ) -> tuple[Mapping[str, npt.ArrayLike], int, Metrics]:
        asked = replace(
            task,
            read_state=lambda: self._fetch_state(task),
            tell=lambda percent: self._reporter.say_percent(task, percent),
        )
        try:
            with self._reporter.during(task, Doing.TRAINING):
                return _call(function, weights, asked)
        except Declined as declined:
            self._reporter.say(task, Doing.DECLINED, reason=str(declined))
            raise
        except Exception as error:
            self._reporter.say(task, Doing.FAILED, reason=f"{type(error).__name__}: {error}")
            raise

    def _fetch(self, task: Task) -> tuple[Weights, Tensors]:
        with _refusals():
            tensors: Tensors = self._patience.until_settled(lambda: self._model.fetch(task))
            return {name: _workable(tensor) for name, tensor in tensors.items()}, tensors

    def _fetch_state(self, task: Task) -> Tensors:
        """What the hub's strategy keeps beside the task's model; nothing where it keeps nothing."""
        path = self._folder / "state"

        def download() -> str:
            return self._hub.download_model(task.model_id, path, round=task.round, format="safetensors", part="state")

        try:
            self._patience.until_settled(download)
        except NotFound:
            return {}
        return open_tensors(path)

    def _send(self, update: WrittenFile, task: Task, num_examples: int, metrics: Metrics) -> None:
        started = time.monotonic()
        self._patience.until_settled(
            lambda: self._hub.upload_update(
                task.model_id, task.round, num_examples, self._outgoing.path, metrics, sha256=update.sha256
            )
        )
        milliseconds = 1000 * (time.monotonic() - started)
        logger.info("round %d: update sent (%.1f MB, %.0f ms)", task.round, update.num_bytes / 1e6, milliseconds)

    def _report(self, task: Task, metrics: Metrics) -> None:
        with _refusals():
            self._patience.until_settled(lambda: self._hub.upload_metrics(task.model_id, metrics, round=task.round))
        logger.info("round %d: evaluation sent", task.round)

    def _send_calibration(self, task: Task, statistics: Statistics | None) -> None:
        """The test goes on without those that the hub does not take."""
        if statistics is None:
            return
        try:
            with _refusals():
                self._patience.until_settled(lambda: self._hub.send_calibration(task.model_id, task.round, statistics))
        except Refused as refused:
            logger.warning("round %d: calibration statistics not taken: %s", task.round, refused.reason)

    def _send_moments(self, task: Task, num_examples: int, files: tuple[Path, Path] | None) -> None:
        with _refusals():
            self._patience.until_settled(
                lambda: self._hub.upload_moments(task.model_id, task.round, num_examples, files)
            )
        logger.info("round %d: %s", task.round, "moments sent" if files else "no moments to send")


def _workable(tensor: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy to work on; bfloat16, which NumPy and most of its friends do not know, as float32."""
    return np.array(tensor, np.float32 if tensor.dtype == BFLOAT16 else None)


@contextmanager
def _refusals() -> Iterator[None]:
    # Not around the participant's own functions: what they raise is for their author, even if it looks like ours.
    try:
        yield
    except (InvalidInput, Conflict, NotAllowed, NotFound) as reason:
        raise Refused(reason) from reason


def _call(function: Callable[[Weights, Task], Returned], weights: Weights, task: Task) -> Returned:
    try:
        return function(weights, task)
    except Declined:
        raise
    except Exception:
        logger.exception("round %d: the participant's own function failed", task.round)
        raise
