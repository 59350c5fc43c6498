"""Making models and their copies, noting metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from uuid import UUID, uuid4

from django.db import transaction
from django.utils import timezone

from folkmoot.errors import InvalidValue
from folkmoot.server.accounts.models import User
from folkmoot.server.registry import intake
from folkmoot.server.registry.intake import StoredFile, StoredModel
from folkmoot.server.registry.models import Checkpoint, Kind, Metric, Model, Moments, Origin, Phase
from folkmoot.server.registry.preprocessing import store_preprocessing
from folkmoot.server.storage.upload import IncomingFile
from folkmoot.tensors.tensor_file import WrittenFile

MAX_METRICS = 1000
MAX_METRIC_NAME = 64
MAX_METRIC_BYTES = 64 * 1024

Metrics = Sequence[tuple[str, float | bytes]]
"""Names with their values, as they were reported: one name may come several times."""


def upload_model(
    incoming: IncomingFile,
    *,
    owner: User,
    name: str,
    description: str,
    round: int = 0,
    type: Kind = Kind.GLOBAL,  # noqa: A002
    input_shape: Sequence[int | None] | None = None,
    preprocessing: IncomingFile | None = None,
    architecture: str = "",
    id: UUID | None = None,  # noqa: A002
) -> Model:
    """Take in a model file of any known format; raises InvalidInput where it is none."""
    preprocessing_sha256 = store_preprocessing(preprocessing) if preprocessing else ""
    stored = intake.store_model(incoming)
    return add_model(
        stored,
        id=id or uuid4(),
        owner=owner,
        name=name,
        description=description,
        round=round,
        type=type,
        input_shape=input_shape,
        template_sha256=incoming.sha256,
        preprocessing_sha256=preprocessing_sha256,
        architecture=architecture,
    )


@transaction.atomic
def add_model(stored: StoredModel, *, round: int = 0, **fields: Any) -> Model:
    """Make a model of files that are in the storage."""
    model = Model.objects.create(round=round, format=stored.format, tied=stored.tied, **fields)
    add_checkpoint(model, round, stored.tensors, origin=Origin.UPLOAD)
    return model


def add_checkpoint(
    model: Model,
    round: int,
    tensors: StoredFile,
    *,
    origin: Origin = Origin.AGGREGATION,
    beneath: Sequence[str] = (),
    state: WrittenFile | None = None,
) -> Checkpoint:
    """Note that the model's tensors after `round` rounds are these, over those of the files `beneath`.

    `state` is the strategy's, as it is after the same rounds.
    """
    return Checkpoint.objects.create(
        model=model,
        round=round,
        sha256=tensors.sha256,
        num_bytes=tensors.num_bytes,
        checksums=tensors.checksums,
        origin=origin,
        beneath=list(beneath),
        state_sha256=state.sha256 if state else "",
        state_num_bytes=state.num_bytes if state else 0,
    )


def add_moments(checkpoint: Checkpoint, tensors: StoredFile) -> Moments:
    """Note that these are the checkpoint's moments."""
    return Moments.objects.create(checkpoint=checkpoint, **asdict(tensors))


@transaction.atomic
def clone(
    model: Model,
    *,
    checkpoint: Checkpoint | None = None,
    keeps_state: bool = False,
    owner: User | None = None,
    name: str = "",
) -> Model:
    """Make a model of its own that begins where `model` is now, or was at a checkpoint; no bytes are copied.

    The strategy's state stays behind unless it is asked for: another training may have another strategy, other options
    or other participants.
    """
    source = checkpoint or model.latest_checkpoint
    copy = Model.objects.create(
        owner=owner or model.owner,
        name=name or model.name,
        description=model.description,
        round=source.round,
        type=model.type,
        input_shape=model.input_shape,
        format=model.format,
        template_sha256=model.template_sha256,
        preprocessing_sha256=model.preprocessing_sha256,
        architecture=model.architecture,
        tied=model.tied,
        parent=model,
        parent_round=source.round,
        root=model.root or model.pk,
    )
    add_checkpoint(
        copy,
        source.round,
        StoredFile(source.sha256, source.num_bytes, bytes(source.checksums)),
        origin=Origin.COPY,
        beneath=source.beneath,
        state=WrittenFile(source.state_sha256, source.state_num_bytes) if keeps_state else None,
    )
    return copy


def begin_moments(model: Model) -> None:
    """Moments are to be collected for this model from now on."""
    model.type = Kind.SWAG
    model.save(update_fields=["type"])


@transaction.atomic
def retire(model: Model) -> None:
    """Take the model out of the API, with its files; its name and metrics stay for the history of its training."""
    model.checkpoints.all().delete()
    model.descendants.update(parent=None)
    model.template_sha256 = model.preprocessing_sha256 = ""
    model.removed_at = timezone.now()
    model.save()


def checked_metrics(names: Sequence[str], values: Sequence[Any]) -> Metrics:
    """Pair names with values: numbers where they are numbers, other text as its bytes."""
    if len(names) != len(values):
        raise InvalidValue("Metric names and values must have the same length")
    if len(names) > MAX_METRICS:
        raise InvalidValue(f"{len(names)} metrics came; at most {MAX_METRICS} are taken in one request")
    too_long = next((name for name in names if len(name) > MAX_METRIC_NAME), None)
    if too_long is not None:
        raise InvalidValue(f"a metric name may have {MAX_METRIC_NAME} characters: {too_long[:80]}")
    return [(name, _metric_value(name, value)) for name, value in zip(names, values, strict=True)]


def note_metrics(model_id: UUID, metrics: Metrics, *, reporter: User, step: int, phase: Phase = Phase.OTHER) -> None:
    """Write down what was reported; a number that is not finite is kept as no number."""
    Metric.objects.bulk_create(
        Metric(
            model_id=model_id,
            reporter=reporter,
            identifier=str(reporter.pk),
            key=name,
            value_float=value if isinstance(value, float) and math.isfinite(value) else None,
            value_binary=value if isinstance(value, bytes) else None,
            step=step,
            phase=phase,
        )
        for name, value in metrics
    )


def _metric_value(name: str, value: Any) -> float | bytes:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        binary = value if isinstance(value, bytes) else str(value).encode()
    if len(binary) > MAX_METRIC_BYTES:
        raise InvalidValue(f"metric {name} has {len(binary):,} bytes; at most {MAX_METRIC_BYTES:,} are taken")
    return binary
