"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class InferenceConfig(AppConfig):
    name = "folkmoot.server.inference"

    def ready(self) -> None:
        from folkmoot.server.inference import handlers  # noqa: F401 - registers itself
