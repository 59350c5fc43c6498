"""The table of a model's layers: made by the sandbox in a job, once, when it is first asked for."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from folkmoot.errors import FolkmootError, NotInstalled, Unavailable
from folkmoot.server.inference import members
from folkmoot.server.inference.models import LayerSummary
from folkmoot.server.inference.plans import Plan
from folkmoot.server.inference.pool import question_to
from folkmoot.server.outbox.events import record
from folkmoot.server.outbox.models import Lane
from folkmoot.server.registry.models import Kind, Model

WANTED = "layer_summary_wanted"


def summary_of(model: Model) -> dict[str, Any] | None:
    """What is known; where nobody has asked before, it is to be made from now on."""
    known = LayerSummary.objects.filter(model=model).first()
    if known is None and _can_be_made(model):
        with transaction.atomic():
            _, is_new = LayerSummary.objects.get_or_create(model=model)
            if is_new:
                record(model.pk, WANTED, lane=Lane.MODELS)
    return known.summary if known else None


def make_summary(model_id: UUID) -> None:
    """Make it and keep it, if that is still wanted; where it cannot be made it stays null. Raises Unavailable."""
    wanted = LayerSummary.objects.filter(model=model_id, made_at=None).select_related("model").first()
    if wanted is None:
        return
    try:
        wanted.summary = _made(wanted.model)
    except Unavailable:
        raise
    except NotInstalled:
        wanted.delete()  # so that it is made once it can be
        return
    except FolkmootError:
        wanted.summary = None  # of this model it never will be
    wanted.made_at = timezone.now()
    wanted.save(update_fields=["summary", "made_at"])


def give_up(model_id: UUID) -> None:
    """Let the next who asks try again."""
    LayerSummary.objects.filter(model=model_id, made_at=None).delete()


def _can_be_made(model: Model) -> bool:
    return model.type != Kind.MEAN and bool(model.input_shape)


def _made(model: Model) -> dict[str, Any] | None:
    with members.opened(model, Plan()) as (asked,), question_to(asked.owner) as sandbox:
        return sandbox.summary(asked, model.input_shape or ())
