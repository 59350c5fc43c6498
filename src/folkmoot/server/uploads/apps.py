"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class UploadsConfig(AppConfig):
    name = "folkmoot.server.uploads"

    def ready(self) -> None:
        from folkmoot.server.uploads import sweeps  # noqa: F401 - registers itself
