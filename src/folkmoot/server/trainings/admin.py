"""Trainings in Django's admin: to look at. lifecycle/ alone changes them, with everything that follows from it."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from folkmoot.server.trainings.models import Training


@admin.register(Training)
class TrainingAdmin(admin.ModelAdmin):
    list_display = ("id", "state", "model", "actor", "aggregation_method", "target_num_updates", "last_update")
    list_filter = ("state",)
    list_select_related = ("actor", "model")
    search_fields = ("model__name", "actor__username")
    show_full_result_count = False
    # Whatever is no field of the form has to be among these; the others are as little to be changed.
    readonly_fields = ("participants",)
    fields = (
        "id",
        "state",
        "reason",
        "model",
        "actor",
        "participants",
        "target_num_updates",
        "aggregation_method",
        "uncertainty_method",
        "metric_names",
        "options",
        "created_at",
        "last_update",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
