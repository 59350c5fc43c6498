"""Users and their tokens."""

from __future__ import annotations

from django.contrib.auth.models import Group
from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import mixins, status
from rest_framework.decorators import action
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from folkmoot.server.accounts.models import Token, User
from folkmoot.server.accounts.services import set_password
from folkmoot.server.api.parsers import FieldsParser, FormParser, JSONParser
from folkmoot.server.api.permissions import IsOneselfOrStaff, MayRegister
from folkmoot.server.api.serializers.groups import GroupSerializer
from folkmoot.server.api.serializers.queries import GroupQuery, TokenQuery, TrainingQuery, UserQuery
from folkmoot.server.api.serializers.trainings import TrainingSerializer
from folkmoot.server.api.serializers.users import (
    CurrentPasswordSerializer,
    IssuedTokenSerializer,
    PasswordSerializer,
    ProfileSerializer,
    RegisteredUserSerializer,
    RegistrationSerializer,
    TokenSerializer,
    UserSerializer,
)
from folkmoot.server.api.views.base import ResourceViewSet
from folkmoot.server.trainings.models import Training


@extend_schema_view(
    list=extend_schema(description="All users."),
    retrieve=extend_schema(description="A user."),
)
class UserViewSet(ResourceViewSet):
    """Register, look users up, and see what one takes part in."""

    thing = "User"
    serializer_class = UserSerializer
    query_class = UserQuery
    parser_classes = (JSONParser, FormParser, FieldsParser)
    # Whoever registers is nobody yet: a stale header must not get in the way.
    authentication_classes_of = {"create": ()}  # noqa: RUF012
    permission_classes_of = {"create": (MayRegister,)}  # noqa: RUF012
    serializer_class_of = {  # noqa: RUF012
        "create": RegistrationSerializer,
        "change_myself": ProfileSerializer,
        "remove_password": CurrentPasswordSerializer,
    }

    def get_queryset(self) -> QuerySet[User]:
        return User.objects.order_by("date_joined", "pk")

    @extend_schema(request=RegistrationSerializer, responses={201: RegisteredUserSerializer})
    def create(self, request: Request) -> Response:
        """Register a user; the answer holds its token, this one time."""
        return super().create(request)

    @extend_schema(responses=UserSerializer)
    @action(detail=False)
    def myself(self, request: Request) -> Response:
        """Who I am."""
        return Response(self.get_serializer(request.user).data)

    @extend_schema(request=ProfileSerializer, responses=UserSerializer)
    @myself.mapping.patch
    def change_myself(self, request: Request) -> Response:
        """Change my names, my address, or where notifications are pushed to."""
        profile = self.get_serializer(request.user, data=request.data, partial=True)
        profile.is_valid(raise_exception=True)
        profile.save()
        return Response(profile.data)

    @extend_schema(responses=GroupSerializer(many=True))
    @action(detail=False, name="My groups", serializer_class=GroupSerializer, query_class=GroupQuery)
    def groups(self, request: Request) -> Response:
        """The groups that I belong to."""
        mine: QuerySet[Group] = request.user.groups.order_by("pk")
        return self.listed(mine)

    @extend_schema(responses=TrainingSerializer(many=True))
    @action(detail=False, name="My trainings", serializer_class=TrainingSerializer, query_class=TrainingQuery)
    def trainings(self, request: Request) -> Response:
        """The trainings that I am the actor of, or take part in."""
        return self.listed(Training.objects.involving(request.user))

    @extend_schema(request=PasswordSerializer, responses={204: None})
    @action(
        detail=True,
        methods=["put"],
        serializer_class=PasswordSerializer,
        permission_classes=[IsAuthenticated, IsOneselfOrStaff],
    )
    def password(self, request: Request, pk: str) -> Response:
        """Set a user's password: one's own by telling the present one, if there is one; staff sets those of others."""
        user = self.get_object()
        passwords = self.get_serializer(user, data=request.data)
        passwords.is_valid(raise_exception=True)
        set_password(user, passwords.validated_data["password"])
        return Response(status=status.HTTP_204_NO_CONTENT)

    @extend_schema(request=CurrentPasswordSerializer, responses={204: None})
    @password.mapping.delete
    def remove_password(self, request: Request, pk: str) -> Response:
        """Leave a user with tokens alone: no password signs in any more."""
        user = self.get_object()
        self.get_serializer(user, data=request.data).is_valid(raise_exception=True)
        set_password(user, None)
        return Response(status=status.HTTP_204_NO_CONTENT)


@extend_schema_view(
    list=extend_schema(description="My tokens, without their digits."),
    retrieve=extend_schema(description="A token of mine, without its digits."),
    destroy=extend_schema(description="Revoke a token of mine: it is valid no more."),
)
class TokenViewSet(mixins.DestroyModelMixin, ResourceViewSet):
    """My tokens: make them, list them, revoke them."""

    thing = "Token"
    serializer_class = TokenSerializer
    serializer_class_of = {"create": IssuedTokenSerializer}  # noqa: RUF012
    query_class = TokenQuery
    parser_classes = (JSONParser, FormParser, FieldsParser)

    def get_queryset(self) -> QuerySet[Token]:
        return Token.objects.filter(user=self.request.user.pk)

    @extend_schema(request=TokenSerializer, responses={201: IssuedTokenSerializer})
    def create(self, request: Request) -> Response:
        """Make a token; the answer holds its 40 hex digits, this one time."""
        return super().create(request)
