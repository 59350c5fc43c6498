"""What the sandbox has found out about models, and is not asked again."""

from __future__ import annotations

from django.db import models

from folkmoot.server.registry.models import Model


class LayerSummary(models.Model):
    """The table of a model's layers; `summary` is NULL until it is made, and where it cannot be made."""

    model = models.OneToOneField(Model, on_delete=models.CASCADE, primary_key=True, related_name="layer_summary")
    summary = models.JSONField(null=True)
    made_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"layers of {self.model_id}"
