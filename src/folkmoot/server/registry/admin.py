"""Models in Django's admin: to look at, and to name."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from folkmoot.server.registry.models import Model


@admin.register(Model)
class ModelAdmin(admin.ModelAdmin):
    """Files come in and go by the API alone, which knows who still needs them."""

    list_display = ("name", "owner", "round", "format", "created_at")
    list_select_related = ("owner",)
    search_fields = ("name", "owner__username")
    show_full_result_count = False
    readonly_fields = ("id", "owner", "input_shape", "round", "format", "template_sha256", "parent", "created_at")
    fields = ("name", "description", *readonly_fields)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
