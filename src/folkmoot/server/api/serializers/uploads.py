"""Uploads in chunks."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from rest_framework import serializers

from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example
from folkmoot.server.api.serializers.flat import FlatSerializer, missing, whole
from folkmoot.server.uploads.models import Upload

MAX_SIZE = 2**62


def _digest(field: str, **options: Any) -> serializers.RegexField:
    messages = {"invalid": f"{field} must be 64 hexadecimal digits"}
    return serializers.RegexField(r"^[0-9a-fA-F]{64}\Z", error_messages=missing(field) | messages, **options)


@example(target="/api/models/", fields={"name": "digits", "description": "a large network"}, size=3_000_000_000)
class OpenUploadSerializer(FlatSerializer):
    """What is to come, and what for: `fields` are those of the target's own form, without its file."""

    target = serializers.CharField(
        max_length=200, error_messages=missing("target"), help_text="`/api/models/` or `/api/models/<id>/`"
    )
    fields = serializers.DictField(default=dict, error_messages={"not_a_dict": "fields must be a JSON object"})
    size = serializers.IntegerField(**whole("size", 0, MAX_SIZE))
    sha256 = _digest("sha256", default="", allow_blank=True)

    def validate_sha256(self, digest: str) -> str:
        return digest.lower()


@example(sha256=examples.SHA256)
class CommitSerializer(FlatSerializer):
    """The digest of the whole file, unless it was given when the upload was opened."""

    sha256 = _digest("sha256", default="", allow_blank=True)


class ChunkSerializer(FlatSerializer):
    """The headers of a chunk."""

    offset = serializers.IntegerField(**whole("Upload-Offset", 0, MAX_SIZE))
    sha256 = _digest("X-Content-SHA256")


@example(
    id="8d5f2e1c-6a97-4b30-a1c4-0f7e9b3d6582",
    target="/api/models/",
    offset=8_388_608,
    size=3_000_000_000,
    max_chunk_bytes=8_388_608,
    expires_at=examples.LATER,
)
class UploadSerializer(serializers.ModelSerializer):
    """An upload: it goes on at `offset`, with chunks of at most `max_chunk_bytes`."""

    max_chunk_bytes = serializers.SerializerMethodField()

    class Meta:
        model = Upload
        fields = ("id", "target", "offset", "size", "max_chunk_bytes", "expires_at")
        read_only_fields = fields

    def get_max_chunk_bytes(self, upload: Upload) -> int:
        return settings.MAX_CHUNK_BYTES
