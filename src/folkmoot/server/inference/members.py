"""Which files make up the model that is asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from folkmoot.errors import InvalidValue, Removed
from folkmoot.sandbox import ModelPart, SandboxModel
from folkmoot.server.inference.plans import Plan
from folkmoot.server.registry.downloads import Download
from folkmoot.server.registry.models import Kind, Model, Moments
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings import local_models
from folkmoot.server.trainings.models import Update
from folkmoot.tensors.formats import safetensors


@contextmanager
def opened(model: Model | Update, plan: Plan, *, round: int | None = None) -> Iterator[list[SandboxModel]]:
    """The model for the sandbox, its files open; an ensemble is several where its members are of several kinds.

    `round` counts rounds of training, by default all there were. Raises InvalidValue for what the model does not have.
    """
    with ExitStack() as stack:
        files = _Files(stack)
        if isinstance(model, Update):
            yield [_local(files, model, round)]
        elif model.type == Kind.MEAN:
            yield _mean(files, model, round)
        elif plan.method == "SWAG":
            yield [_swag(files, model, round)]
        else:
            yield [_global(files, model, plan, round)]


class _Files:
    """Made files may lose their names at any time, so they stay open for as long as they are wanted."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def blob(self, sha256: str) -> ModelPart:
        return ModelPart(sha256, self._stack.enter_context(get_storage().file(sha256)))

    def part(self, download: Download) -> ModelPart:
        opened = download.open()
        self._stack.enter_context(opened.file)
        return ModelPart(opened.sha256, Path(f"/proc/self/fd/{opened.file.fileno()}"))

    def tensors(self, model: Model | Update, round: int | None = None) -> ModelPart:
        download = local_models.download(model, round=round, format=safetensors.NAME)
        assert isinstance(download, Download)  # noqa: S101 - a moment is one only where a part was asked for
        return self.part(download)


def _global(files: _Files, model: Model, plan: Plan, round: int | None) -> SandboxModel:
    number = _known_round(model, round)
    if plan.method != "ENSEMBLE":
        weights = [files.tensors(model, number)]
    elif plan.over == "updates":
        weights = [files.tensors(update) for update in _updates(model, number)]
    elif plan.over == "checkpoints":
        rounds = model.checkpoints.kept().filter(round__lte=number).order_by("-round").values_list("round", flat=True)
        weights = [files.tensors(model, each) for each in rounds[: plan.k]]
    else:
        raise InvalidValue(f"Model {model.pk} is no MEAN model: options.uncertainty.over names its members.")
    return _of(files, model, weights)


def _swag(files: _Files, model: Model, round: int | None) -> SandboxModel:
    known = Moments.objects.filter(checkpoint__model=model, checkpoint__removed_at=None).select_related("checkpoint")
    if round is not None:
        known = known.filter(checkpoint__round=_known_round(model, round))
    newest = known.order_by("-checkpoint__round").first()
    if newest is None:
        raise InvalidValue(f"Model {model.pk} has no moments yet, which SWAG needs to predict.")
    moments = files.blob(newest.sha256)
    return replace(_of(files, model, [files.tensors(model, newest.checkpoint.round)]), moments=moments)


def _local(files: _Files, update: Update, round: int | None) -> SandboxModel:
    if round not in (None, update.round.number):
        raise InvalidValue(f"Local model {update.pk} is of round {update.round.number} and of no other.")
    return _of(files, update.base_model, [files.tensors(update)], owner=str(update.participant_id))


def _mean(files: _Files, ensemble: Model, round: int | None) -> list[SandboxModel]:
    if round is not None:
        raise InvalidValue(f"Model {ensemble.pk} is a MEAN model, which has no rounds; leave `round` out.")
    weights: dict[SandboxModel, list[ModelPart]] = {}
    for membership in ensemble.memberships.select_related("member"):
        kind = _of(files, membership.member, [])
        if ensemble.preprocessing_sha256:
            kind = replace(kind, preprocessing=files.blob(ensemble.preprocessing_sha256))
        weights.setdefault(kind, []).append(files.tensors(membership.member))
    return [replace(kind, weights=tuple(parts)) for kind, parts in weights.items()]


def _of(files: _Files, model: Model, weights: Sequence[ModelPart], *, owner: str | None = None) -> SandboxModel:
    return SandboxModel(
        owner=owner or str(model.owner_id),
        template=files.blob(model.template_sha256),
        weights=tuple(weights),
        preprocessing=files.blob(model.preprocessing_sha256) if model.preprocessing_sha256 else None,
        architecture=model.architecture or None,
    )


def _known_round(model: Model, round: int | None) -> int:
    if round is not None and not model.checkpoints.filter(round=round).exists():
        raise InvalidValue(f"Model {model.pk} has no checkpoint {round}.", code="not_found")
    if round is not None and not model.checkpoints.kept().filter(round=round).exists():
        raise InvalidValue(f"Checkpoint {round} of model {model.pk} was removed.", code=Removed.code)
    return model.round if round is None else round


def _updates(model: Model, number: int) -> list[Update]:
    """Those that went into this checkpoint."""
    made_in = Update.objects.in_aggregate().kept().filter(round__training__model=model, round__number=number - 1)
    found = list(made_in.select_related("round__training__model").order_by("participant"))
    if not found:
        raise InvalidValue(f"No updates are kept of which checkpoint {number} of model {model.pk} was made.")
    return found
