"""Users, their passwords and tokens."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from rest_framework import serializers

from folkmoot.server.accounts import services
from folkmoot.server.accounts.models import Token, User
from folkmoot.server.api.serializers import examples
from folkmoot.server.api.serializers.examples import example, example_of
from folkmoot.server.api.serializers.strict import TEXT_FIELDS
from folkmoot.server.trainings.models import Training


def check_endpoint(value: str) -> None:
    """Any absolute http(s) URL with a host; single-label host names are fine."""
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or "@" in urlsplit(value).netloc or any(ord(character) <= ord(" ") for character in value):
        raise serializers.ValidationError("Enter an absolute http or https URL with a host, and no user in it.")


@example(
    id=examples.HOSPITALS[0],
    username="hospital-1",
    first_name="",
    last_name="",
    email="it@hospital-1.example",
    actor=False,
    client=True,
    message_endpoint="https://hospital-1.example:8101/",
)
class UserSerializer(serializers.ModelSerializer):
    """`email` and `message_endpoint` are empty unless it is you, or you are staff or the actor of a shared training."""

    # As text: where there is none, or it is not shown, it is empty.
    email = serializers.CharField(read_only=True)

    class Meta:
        model = User
        fields = ("id", "username", "first_name", "last_name", "email", "actor", "client", "message_endpoint")
        read_only_fields = fields

    def to_representation(self, user: User) -> dict[str, Any]:
        shown = super().to_representation(user)
        if not self._may_see_contact(user):
            shown |= {"email": "", "message_endpoint": ""}
        return shown

    def _may_see_contact(self, user: User) -> bool:
        viewer = self.context["request"].user
        if viewer.is_anonymous:
            return False
        return viewer.is_staff or viewer.pk == user.pk or user.pk in self._participants_of(viewer)

    def _participants_of(self, viewer: User) -> set[Any]:
        # Once for a whole list.
        if "participants" not in self.context:
            mine = Training.objects.steered_by(viewer)
            self.context["participants"] = set(mine.values_list("participants", flat=True))
        return self.context["participants"]


def _password(**options: Any) -> serializers.CharField:
    style = {"input_type": "password"}
    return serializers.CharField(max_length=1000, trim_whitespace=False, write_only=True, style=style, **options)


@example(username="hospital-1", password=examples.OWN_PASSWORD, message_endpoint="https://hospital-1.example:8101/")
class RegistrationSerializer(serializers.ModelSerializer):
    """Creating a user; the answer holds its first token, this one time."""

    password = _password()
    client = serializers.BooleanField(default=True)
    invitation = serializers.CharField(
        max_length=100,
        required=False,
        allow_blank=True,
        write_only=True,
        help_text="where `FOLKMOOT_REGISTRATION` is `invite`",
    )

    class Meta:
        model = User
        fields = (
            "username",
            "password",
            "first_name",
            "last_name",
            "email",
            "actor",
            "client",
            "message_endpoint",
            "invitation",
        )
        extra_kwargs = {"message_endpoint": {"validators": [check_endpoint]}}  # noqa: RUF012

    def validate_password(self, password: str) -> str:
        validate_password(password)
        return password

    def create(self, validated_data: dict[str, Any]) -> User:
        if settings.REGISTRATION != "invite":
            validated_data.pop("invitation", None)
        user, self.context["token"] = services.register(**validated_data)
        return user

    def to_representation(self, user: User) -> dict[str, Any]:
        return RegisteredUserSerializer(user, context=self.context).data


@example(message_endpoint="https://hospital-1.example:8101/")
class ProfileSerializer(serializers.ModelSerializer):
    """What a user changes about itself; the answer shows all of it."""

    serializer_field_mapping = TEXT_FIELDS

    class Meta:
        model = User
        fields = ("first_name", "last_name", "email", "message_endpoint")
        extra_kwargs = {"message_endpoint": {"validators": [check_endpoint]}}  # noqa: RUF012

    def to_representation(self, user: User) -> dict[str, Any]:
        return UserSerializer(user, context=self.context).data


@example(current_password=examples.OWN_PASSWORD)
class CurrentPasswordSerializer(serializers.Serializer):
    """What a user who has a password tells to change it; staff does without for others."""

    current_password = _password(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        given = attrs.pop("current_password", None)
        if self._is_asked_of(self.user):
            if given is None:
                raise serializers.ValidationError({"current_password": ["This field is required."]})
            if not self.user.check_password(given):
                raise serializers.ValidationError({"current_password": ["This is not your current password."]})
        return attrs

    @property
    def user(self) -> User:
        return cast(User, self.instance)

    def _is_asked_of(self, user: User) -> bool:
        # Who has none signs in by token, and a token can make further tokens: a password gives it nothing new.
        return self.context["request"].user.pk == user.pk and user.has_usable_password()


@example(password=examples.NEW_PASSWORD)
class PasswordSerializer(CurrentPasswordSerializer):
    """A new password."""

    password = _password()

    def validate_password(self, password: str) -> str:
        validate_password(password, self.user)
        return password


@example(**example_of(UserSerializer), token=examples.TOKEN)
class RegisteredUserSerializer(serializers.ModelSerializer):
    """The answer to a registration: the user with a token, which is not shown again."""

    email = serializers.CharField(read_only=True)
    token = serializers.SerializerMethodField()

    class Meta:
        model = User
        fields = (*UserSerializer.Meta.fields, "token")

    def get_token(self, user: User) -> str:
        return str(self.context["token"])


@example(
    id="0c9e7b1a-5d42-4f68-93a0-b8e6d1f2c745",
    name="laptop",
    prefix=examples.TOKEN[:8],
    created_at=examples.EARLIER,
    expires_at=None,
)
class TokenSerializer(serializers.ModelSerializer):
    """A token without its digits: only `prefix`, the first eight of them."""

    serializer_field_mapping = TEXT_FIELDS

    class Meta:
        model = Token
        fields = ("id", "name", "prefix", "created_at", "expires_at")
        read_only_fields = ("id", "prefix", "created_at")


@example(token=examples.TOKEN)
class IssuedTokenSerializer(TokenSerializer):
    """The answer to making a token: its 40 hex digits, which are not shown again."""

    token = serializers.SerializerMethodField()

    class Meta(TokenSerializer.Meta):
        fields = (*TokenSerializer.Meta.fields, "token")

    def create(self, validated_data: dict[str, Any]) -> Token:
        token, self.context["token"] = services.issue_token(self.context["request"].user, **validated_data)
        return token

    def get_token(self, token: Token) -> str:
        return str(self.context["token"])
