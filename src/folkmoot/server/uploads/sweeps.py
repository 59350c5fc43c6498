"""Uploads that nobody finishes, and what they leave behind."""

from __future__ import annotations

from django.conf import settings

from folkmoot.server import clock
from folkmoot.server.outbox.worker import sweep
from folkmoot.server.storage import get_storage
from folkmoot.server.storage.age import old_ones
from folkmoot.server.uploads.models import Upload
from folkmoot.server.uploads.services import discard


@sweep(every="SWEEP_SECONDS")
def remove_expired_uploads() -> None:
    """Rows whose time is up, with their files."""
    discard(Upload.objects.expired(clock.now()))


@sweep(every="ORPHAN_GRACE_SECONDS", on_each_machine=True)
def remove_files_without_upload() -> None:
    """Files of this machine that no unfinished upload has, unless so young that one is being opened."""
    old = {path.name: path for path in old_ones(get_storage().partials(), settings.ORPHAN_GRACE_SECONDS)}
    wanted = {pk.hex for pk in Upload.objects.unfinished().values_list("pk", flat=True)}
    for name in old.keys() - wanted:
        old[name].unlink(missing_ok=True)


@sweep(every="ORPHAN_GRACE_SECONDS")
def remove_uploads_without_file() -> None:
    """Only where one process has all files: of several machines another may have it."""
    if settings.EMBEDDED:
        unfinished = Upload.objects.unfinished()
        discard(unfinished.filter(pk__in=[upload.pk for upload in unfinished if not upload.path.exists()]))
