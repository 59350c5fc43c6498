"""Groups and their members."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Group
from rest_framework import serializers

from folkmoot.server.accounts import services
from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example
from folkmoot.server.api.serializers.form_lists import FormListField


@example(id=3, name="hospitals")
class GroupSerializer(serializers.ModelSerializer):
    """A group of users."""

    class Meta:
        model = Group
        fields = ("id", "name")

    def create(self, validated_data: dict[str, Any]) -> Group:
        return services.create_group(validated_data["name"], creator=self.context["request"].user)

    def update(self, group: Group, validated_data: dict[str, Any]) -> Group:
        return services.rename_group(group, validated_data.get("name", group.name))


@example(users=examples.HOSPITALS)
class MembersSerializer(serializers.Serializer):
    """Ids of users."""

    users = FormListField(child=serializers.CharField(max_length=100), max_length=100_000, is_divided=True)


@example(users=examples.HOSPITALS)
class GroupWithMembersSerializer(GroupSerializer):
    """A group, and the ids of its members."""

    users: serializers.ManyRelatedField = serializers.PrimaryKeyRelatedField(
        source="user_set", many=True, read_only=True
    )

    class Meta(GroupSerializer.Meta):
        fields = (*GroupSerializer.Meta.fields, "users")
