"""The Django app."""

from __future__ import annotations

from django.apps import AppConfig


class NotificationsConfig(AppConfig):
    name = "folkmoot.server.notifications"

    def ready(self) -> None:
        from folkmoot.server.notifications import push  # noqa: F401 - registers its handler
