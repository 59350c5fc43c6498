"""Groups of users."""

from __future__ import annotations

from django.contrib.auth.models import Group
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.viewsets import ModelViewSet

from folkmoot.server.accounts import services
from folkmoot.server.accounts.models import User
from folkmoot.server.api.parsers import FieldsParser, FormParser, JSONParser
from folkmoot.server.api.permissions import MayAccessAllGroups, MayAccessGroup, MayChangeGroup
from folkmoot.server.api.serializers.groups import GroupSerializer, GroupWithMembersSerializer, MembersSerializer
from folkmoot.server.api.serializers.queries import GroupQuery
from folkmoot.server.api.views.base import GenericResourceViewSet
from folkmoot.server.trainings.creation import find_users


@extend_schema_view(
    list=extend_schema(description="All groups, for staff."),
    create=extend_schema(description="Make a group, and belong to it."),
    retrieve=extend_schema(description="A group that I belong to or have made."),
    update=extend_schema(description="Rename the group."),
    partial_update=extend_schema(description="Rename the group."),
    destroy=extend_schema(description="Remove the group; its members stay users."),
)
class GroupViewSet(GenericResourceViewSet, ModelViewSet):
    """Make groups of users, and say who belongs to them."""

    thing = "Group"
    serializer_class = GroupSerializer
    query_class = GroupQuery
    parser_classes = (JSONParser, FormParser, FieldsParser)
    permission_classes = (IsAuthenticated, MayAccessGroup, MayChangeGroup)
    permission_classes_of = {  # noqa: RUF012
        "list": (IsAuthenticated, MayAccessAllGroups),
        "create": (IsAuthenticated,),
        "retrieve": (IsAuthenticated, MayAccessGroup),
    }

    def get_queryset(self) -> QuerySet[Group]:
        return Group.objects.order_by("pk")

    def parse_id(self, given: str) -> int | None:
        # Eighteen digits fit any database's integer.
        return int(given) if given.isascii() and given.isdigit() and len(given) <= 18 else None

    @extend_schema(request=MembersSerializer, responses=GroupWithMembersSerializer)
    @action(detail=True, methods=["put"], serializer_class=MembersSerializer)
    def members(self, request: Request, pk: str) -> Response:
        """Let users belong to the group."""
        group = self.get_object()
        services.add_members(group, self._users())
        return self._shown(group)

    @extend_schema(request=MembersSerializer, responses={200: GroupWithMembersSerializer})
    @members.mapping.delete
    def remove_members(self, request: Request, pk: str) -> Response:
        """End users' membership, also of those who are no members."""
        group = self.get_object()
        services.remove_members(group, self._users())
        return self._shown(group)

    def _shown(self, group: Group) -> Response:
        # Without its serializer: a page would fill the form for members from the group, which has none of its fields.
        return Response({**GroupWithMembersSerializer(group).data})

    def _users(self) -> list[User]:
        wanted = self.get_serializer(data=self.request.data)
        wanted.is_valid(raise_exception=True)
        return find_users(wanted.validated_data["users"])
