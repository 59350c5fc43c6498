"""A hub's HTTP API as Python: one method for each call, the server's own errors when it fails."""

from __future__ import annotations

import importlib.metadata
import io
import json
import os
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import httpx2
import numpy as np
import numpy.typing as npt

from folkmoot import errors
from folkmoot.client.answers import json_object, raise_for_error
from folkmoot.client.chunks import CHUNK_BYTES, LOG_SECONDS, Progress
from folkmoot.client.partial import PartialFile
from folkmoot.client.prediction import Prediction, read_prediction
from folkmoot.client.uploads import CHUNKED_FROM_BYTES, Uploads
from folkmoot.protocol import paths
from folkmoot.uncertainty import Statistics, to_json

Json = dict[str, Any]

CONNECT_SECONDS = 10
READ_SECONDS = 60
PREDICTION_SECONDS = 120
"""A hub waits 30 s each, by default, for a process that is free, for the model to load, and for its answer."""
REPORT_SECONDS = 5
"""What is said on the side must not hold up the work."""
GRACE_SECONDS = 15
"""How much later than asked for a long poll may be answered before the connection counts as dead."""
# Shorter than any server's, so that a request seldom meets a connection that is being closed.
KEEP_ALIVE_SECONDS = 3


@dataclass(frozen=True)
class Notification:
    """What the hub tells a participant; `type` is one of `NotificationType`, or of a newer hub's."""

    id: int
    type: str
    training_id: str
    body: Json


class Hub:
    """The hub at `url`, spoken to with `token`; without one, only registering is possible.

    TLS certificates are verified, against the authorities in `ca_file` if it is given, else against the system's.
    Raises `Unavailable` where trying again may help. Files of `chunked_from` bytes or more go up in chunks of
    `chunk_bytes`: the same call again goes on where the line broke. The log says every `log_seconds` how far it is. May
    be used from several threads.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca_file: str | os.PathLike[str] | None = None,
        chunked_from: int = CHUNKED_FROM_BYTES,
        chunk_bytes: int = CHUNK_BYTES,
        log_seconds: float = LOG_SECONDS,
    ) -> None:
        host = _checked_host(url)
        self._http = httpx2.Client(
            base_url=url,
            headers={"User-Agent": _user_agent()} | ({"Authorization": f"Token {token}"} if token else {}),
            verify=_trusted(ca_file),
            timeout=httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(keepalive_expiry=KEEP_ALIVE_SECONDS),
            # A proxy of the environment is for the world outside, and cannot reach this machine's loopback.
            trust_env=host not in ("localhost", "127.0.0.1", "::1"),
        )
        self._uploads = Uploads(self._call, chunked_from=chunked_from, chunk_bytes=chunk_bytes, log_seconds=log_seconds)

    @classmethod
    def from_env(cls) -> Self:
        """The hub at FOLKMOOT_URL, with the token in FOLKMOOT_TOKEN.

        FOLKMOOT_CA_FILE may name a file with the certificates of a private authority.
        """
        url, token = _setting("FOLKMOOT_URL", "the address of the hub"), _setting("FOLKMOOT_TOKEN", "your token there")
        return cls(url, token, ca_file=os.environ.get("FOLKMOOT_CA_FILE") or None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def is_healthy(self) -> bool:
        try:
            with self._answer("GET", paths.HEALTH):
                return True
        except (errors.Unavailable, errors.Internal):
            return False

    def register(self, username: str, password: str, *, actor: bool = False, message_endpoint: str = "") -> Json:
        """Make a user; its `token` is in this answer and in no other."""
        user = {"username": username, "password": password, "actor": actor, "client": not actor}
        return self._object("POST", paths.USERS, json=user | {"message_endpoint": message_endpoint})

    def upload_model(
        self, name: str, description: str, path: Path, *, architecture: str = "", progress: Progress | None = None
    ) -> str:
        """The new model's id. `architecture` is what the hub puts bare weights into for predictions.

        `progress` is told how many bytes have arrived, of how many.
        """
        fields = {"name": name, "description": description} | ({"architecture": architecture} if architecture else {})
        return str(self._uploads.send_model(path, fields, progress)["model_id"])

    def download_model(
        self,
        model_id: str,
        path: Path,
        *,
        round: int | Literal["best", "latest"] | None = None,
        etag: str | None = None,
        format: str | None = None,
        part: str | None = None,
    ) -> str:
        """Write the latest weights, or those after `round` rounds or the best in tests, to `path`; returns their ETag.

        In the format of the upload, or in `format`: safetensors, npz or torch. `part="exchange"`: only the tensors that
        travel, where they are apart from the others. With the `etag` of an earlier download, `path` is left alone if
        the weights are still the same. It is replaced in one step and only when all bytes have come; a download that
        broke off goes on at the next call.
        """
        asked = {"round": round, "as": format, "part": part}
        params = {name: value for name, value in asked.items() if value is not None}
        partial = PartialFile(path)
        headers = partial.headers() | ({"If-None-Match": etag} if etag else {})
        with self._answer("GET", paths.model(model_id), headers=headers, params=params) as response:
            if response.status_code == httpx2.codes.NOT_MODIFIED and etag:
                partial.forget()
                return etag
            partial.receive(response)
            return str(response.headers.get("ETag", ""))

    def model_metrics(self, model_id: str) -> list[Json]:
        return list(self._call("GET", paths.model_metrics(model_id)))

    def upload_metrics(self, model_id: str, metrics: Mapping[str, float], *, round: int | None = None) -> None:
        """In a test round this is the answer that the hub waits for.

        They are of the model after `round` rounds, or as it is: with it, an answer that comes late is not taken for
        one to the next test.
        """
        fields = _metric_fields(metrics) | ({} if round is None else {"round": str(round)})
        self._call("POST", paths.model_metrics(model_id), data=fields)

    def upload_update(
        self,
        model_id: str,
        round: int,
        num_examples: int,
        path: Path,
        metrics: Mapping[str, float],
        *,
        sha256: str | None = None,
        progress: Progress | None = None,
    ) -> str:
        """The update's id. The same file may be sent any number of times: it counts once.

        With `sha256`, the file's digest in hex, bytes that were changed on the way are refused. `progress` is told how
        many bytes have arrived, of how many.
        """
        fields = {"round": str(round), "sample_size": str(num_examples)} | _metric_fields(metrics)
        return str(self._uploads.send_update(model_id, path, fields, sha256, progress)["update_id"])

    def upload_moments(self, model_id: str, round: int, num_examples: int, files: tuple[Path, Path] | None) -> None:
        """Answer a SWAG round with the first and the second moment, or without files: there are none."""
        form = {"round": str(round), "sample_size": str(num_examples if files else 0)}
        with ExitStack() as stack:
            names = ("first_moment_file", "second_moment_file")
            opened = {
                name: stack.enter_context(path.open("rb")) for name, path in zip(names, files or (), strict=False)
            }
            self._call("POST", paths.model_swag(model_id), data=form, files=opened or None)

    def send_calibration(self, model_id: str, round: int, statistics: Statistics) -> None:
        """Send what you have counted of the checkpoint of a round; see `folkmoot.uncertainty`.

        During its test others take their place, afterwards that raises `AlreadySubmitted`.
        """
        body = {"round": round, "statistics": to_json(statistics)}
        self._call("POST", paths.model_calibration(model_id), json=body)

    def calibration(self, model_id: str, round: int | None = None, *, coverage: float | None = None) -> Json:
        """How well calibrated the latest checkpoint is, or that of a round, from what its participants have counted.

        Raises `NotFound` where nobody has, or only one other participant.
        """
        asked = {"round": round, "coverage": coverage}
        params = {name: value for name, value in asked.items() if value is not None}
        return self._object("GET", paths.model_calibration(model_id), params=params)

    def predict(
        self,
        model_id: str,
        inputs: Path | npt.ArrayLike,
        *,
        round: int | Literal["best", "latest"] | None = None,
        coverage: float | None = None,
    ) -> Prediction:
        """Ask a model, as it is or as it was after `round` rounds; the first axis of `inputs` is that of the rows.

        A path is that of a file as hubs take them: a tensor (.npy, safetensors, torch) or an image. Raises ModelFailed
        where the model does not answer; InvalidInput where it takes no such input, or nobody has counted what
        `coverage` needs.
        """
        asked = {"model_id": model_id, "return_format": "safetensors", "round": round, "coverage": coverage}
        form = {name: str(value) for name, value in asked.items() if value is not None}
        timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, read=PREDICTION_SECONDS)
        with ExitStack() as stack:
            given = stack.enter_context(inputs.open("rb")) if isinstance(inputs, Path) else _npy(inputs)
            request = {"data": form, "files": {"model_input": given}, "timeout": timeout}
            response = stack.enter_context(self._answer("POST", paths.INFERENCE, **request))
            return read_prediction(response.read())

    def create_training(
        self,
        model_id: str,
        target_num_updates: int,
        *,
        aggregation_method: str = "FedAvg",
        clients: Sequence[str] = (),
        metric_names: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """The new training's id; it waits for `start`."""
        body = {
            "model_id": model_id,
            "target_num_updates": target_num_updates,
            "aggregation_method": aggregation_method,
            "clients": list(clients),
            "metric_names": list(metric_names),
            "options": dict(options or {}),
        }
        return str(self._object("POST", paths.TRAININGS, json=body)["training_id"])

    def add_participants(self, training_id: str, user_ids: Sequence[str]) -> None:
        self._call("PUT", paths.training_clients(training_id), json={"clients": list(user_ids)})

    def start(self, training_id: str) -> None:
        self._call("POST", paths.training_command(training_id, "start"))

    def pause(self, training_id: str) -> None:
        """Hold the training where it stands; what was asked for is still taken."""
        self._call("POST", paths.training_command(training_id, "pause"))

    def resume(self, training_id: str) -> None:
        self._call("POST", paths.training_command(training_id, "resume"))

    def stop(self, training_id: str, *, at_end_of_round: bool = False) -> None:
        """End the training; the last checkpoint stands."""
        when = "end_of_round" if at_end_of_round else "now"
        self._call("POST", paths.training_command(training_id, "stop"), json={"when": when})

    def retry(self, training_id: str) -> None:
        """After an error, take the step that failed once more."""
        self._call("POST", paths.training_command(training_id, "retry"))

    def clone(
        self,
        training_id: str,
        *,
        round: int | None = None,
        name: str | None = None,
        target_num_updates: int | None = None,
        options: Mapping[str, Any] | None = None,
        clients: Sequence[str] | None = None,
    ) -> str:
        """The id of a new training that goes on from the checkpoint after `round` rounds; it waits for `start`.

        What is not said is as in the training that is cloned.
        """
        said = {
            "round": round,
            "name": name,
            "target_num_updates": target_num_updates,
            "options": options,
            "clients": clients,
        }
        body = {field: value for field, value in said.items() if value is not None}
        return str(self._object("POST", paths.training_command(training_id, "clone"), json=body)["training_id"])

    def events(self, training_id: str, *, after: int = 0, limit: int | None = None) -> list[Json]:
        """What has happened to the training since the event `after`, the oldest first."""
        params = {"after": after} | ({"limit": limit} if limit else {})
        return list(self._call("GET", paths.training_events(training_id), params=params))

    def trainings(self) -> list[Json]:
        """Those that you are the actor of."""
        return list(self._call("GET", paths.TRAININGS))

    def training(self, training_id: str) -> Json:
        return self._object("GET", paths.training(training_id))

    def report_progress(
        self, training_id: str, round: int, state: str, *, percent: float | None = None, reason: str = ""
    ) -> None:
        """Say what I am doing in a round: `downloading`, `training`, `failed` or `declined`."""
        body = {"round": round, "state": str(state), "percent": percent, "reason": reason}
        timeout = httpx2.Timeout(REPORT_SECONDS)
        self._call("POST", paths.training_progress(training_id), json=body, timeout=timeout)

    def explain(self, training_id: str) -> Json:
        """What the training is doing and what it waits for: a `sentence`, a `code`, and the facts."""
        return self._object("GET", paths.training_explain(training_id))

    def notifications(self, after: int | None, *, wait: int) -> tuple[list[Notification], int]:
        """The notifications after that id, held back up to `wait` seconds until there is one, and the last id.

        Without `after`: all that still ask for work.
        """
        params = {"wait": wait} if after is None else {"wait": wait, "after": after}
        timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS, read=wait + GRACE_SECONDS)
        answer = self._object("GET", paths.NOTIFICATIONS, params=params, timeout=timeout)
        return [_notification(entry) for entry in answer["notifications"]], int(answer["last_id"])

    def _object(self, method: str, path: str, **request: Any) -> Json:
        return json_object(self._call(method, path, **request), path)

    def _call(self, method: str, path: str, **request: Any) -> Any:
        with self._answer(method, path, **request) as response:
            try:
                return json.loads(response.read() or b"null")
            except ValueError:
                raise errors.Unavailable(f"{response.url} was answered with no JSON; is it a hub?") from None

    @contextmanager
    def _answer(self, method: str, path: str, **request: Any) -> Iterator[httpx2.Response]:
        """An answer that is not an error, with its body still to be read."""
        try:
            with self._http.stream(method, path, **request) as response:
                raise_for_error(response)
                yield response
        except httpx2.RequestError as error:
            reason = str(error) or type(error).__name__
            raise errors.Unavailable(f"The hub at {self._http.base_url} did not answer: {reason}") from error


def _user_agent() -> str:
    try:
        return f"folkmoot/{importlib.metadata.version('folkmoot')}"
    except importlib.metadata.PackageNotFoundError:
        return "folkmoot"


def _setting(name: str, meaning: str) -> str:
    if value := os.environ.get(name):
        return value
    raise errors.Misconfigured(f"The environment variable {name} is missing: set it to {meaning}.")


def _npy(array: npt.ArrayLike) -> io.BytesIO:
    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=False)
    file.seek(0)
    return file


def _checked_host(url: str) -> str:
    """The host in the address of a hub; raises Misconfigured unless it is an http(s) address without a password."""
    try:
        parts = urlsplit(url)
        port_is_possible = parts.port != 0  # reading it raises ValueError beyond 65535
    except ValueError:
        port_is_possible = False
    if not port_is_possible or parts.scheme not in ("http", "https") or not parts.hostname:
        raise errors.Misconfigured(f"{url!r} is not the address of a hub; one looks like https://hub.example.org")
    if parts.username or parts.password:
        raise errors.Misconfigured("The address of the hub must not hold a password; the token says who you are.")
    return parts.hostname


def _trusted(ca_file: str | os.PathLike[str] | None) -> ssl.SSLContext | bool:
    if ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one, too
        raise errors.Misconfigured(f"{ca_file} holds no certificates that can be read: {error}") from error


def _metric_fields(metrics: Mapping[str, float]) -> dict[str, Any]:
    # As form fields, since JSON has no NaN.
    return {"metric_names": list(metrics), "metric_values": [repr(float(value)) for value in metrics.values()]}


def _notification(entry: Json) -> Notification:
    return Notification(entry["id"], entry["notification_type"], entry["training_uuid"], entry["body"])
