"""Blobs: bytes under their SHA-256."""

from __future__ import annotations

from functools import cache

from django.conf import settings

from folkmoot.server.storage.folder import FolderStorage


@cache
def get_storage() -> FolderStorage:
    """The storage that the settings name."""
    return FolderStorage(settings.DATA_DIR / "blobs")
