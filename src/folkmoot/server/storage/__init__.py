"""Blobs: bytes under their SHA-256."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from django.conf import settings

from folkmoot.server.storage.address import S3Address, parse_address
from folkmoot.server.storage.contract import Storage
from folkmoot.server.storage.folder import FolderStorage


@cache
def get_storage() -> Storage:
    """The storage that the settings name; raises Misconfigured where a library is missing for it."""
    local = settings.DATA_DIR / "blobs"
    match parse_address(settings.STORAGE_URL):
        case S3Address() as address:
            # Imported here: boto3 takes a while, and most hubs have no use for it.
            from folkmoot.server.storage.s3 import S3Storage

            cache_bytes, seconds = settings.STORAGE_CACHE_BYTES, settings.STORAGE_TIMEOUT
            return S3Storage(local, address, cache_bytes=cache_bytes, seconds=seconds)
        case Path() as folder:
            return FolderStorage(folder)
    return FolderStorage(local)


# A process that is split off must not speak over its parent's connections.
os.register_at_fork(after_in_child=get_storage.cache_clear)
