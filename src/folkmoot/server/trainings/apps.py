"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class TrainingsConfig(AppConfig):
    name = "folkmoot.server.trainings"

    def ready(self) -> None:
        from folkmoot.server.trainings import handlers, sweeps  # noqa: F401 - register themselves
