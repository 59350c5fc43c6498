"""Users and their tokens."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import mixins, status
from rest_framework.decorators import action
from rest_framework.request import Request
from rest_framework.response import Response

from folkmoot.server.accounts.models import Token, User
from folkmoot.server.api.parsers import FormParser, JSONParser
from folkmoot.server.api.permissions import RegistrationIsOpen
from folkmoot.server.api.serializers.users import (
    IssuedTokenSerializer,
    RegisteredUserSerializer,
    RegistrationSerializer,
    TokenSerializer,
    UserSerializer,
)
from folkmoot.server.api.views.base import ResourceViewSet


class UserViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, ResourceViewSet):
    """Register, and look users up."""

    thing = "User"
    serializer_class = UserSerializer
    parser_classes = (JSONParser, FormParser)

    def get_queryset(self) -> QuerySet[User]:
        return User.objects.order_by("date_joined", "pk")

    def get_authenticators(self) -> list[Any]:
        # Whoever registers is nobody yet: a stale header must not get in the way.
        return [] if self._registers() else super().get_authenticators()

    def get_permissions(self) -> list[Any]:
        return [RegistrationIsOpen()] if self._registers() else super().get_permissions()

    @extend_schema(request=RegistrationSerializer, responses={201: RegisteredUserSerializer})
    def create(self, request: Request) -> Response:
        """Register a user; the answer holds its token, this one time."""
        registration = RegistrationSerializer(data=request.data, context=self.get_serializer_context())
        registration.is_valid(raise_exception=True)
        user = registration.save()
        shown = RegisteredUserSerializer(user, context=registration.context)
        return Response(shown.data, status.HTTP_201_CREATED, headers=self.location_of("user-detail", user.pk))

    @action(detail=False)
    def myself(self, request: Request) -> Response:
        """Who I am."""
        return Response(self.get_serializer(request.user).data)

    def _registers(self) -> bool:
        return self.request is not None and self.request.method == "POST"


class TokenViewSet(mixins.ListModelMixin, mixins.DestroyModelMixin, ResourceViewSet):
    """My tokens: make them, list them, revoke them."""

    thing = "Token"
    serializer_class = TokenSerializer

    def get_queryset(self) -> QuerySet[Token]:
        return Token.objects.filter(user=self.request.user.pk)

    @extend_schema(request=TokenSerializer, responses={201: IssuedTokenSerializer})
    def create(self, request: Request) -> Response:
        """Make a token; the answer holds its 40 hex digits, this one time."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        token = serializer.save(user=request.user)
        shown = IssuedTokenSerializer(token, context=serializer.context)
        return Response(shown.data, status.HTTP_201_CREATED, headers=self.location_of("token-detail", token.pk))
