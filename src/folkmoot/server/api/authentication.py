"""Who is asking: a token, or a user name with a password."""

from __future__ import annotations

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from folkmoot.server.accounts.models import Token, User
from folkmoot.server.accounts.passwords import user_with_password
from folkmoot.server.rows import the_one


class TokenAuthentication(authentication.BaseAuthentication):
    """`Authorization: Token <40 hex digits>`, or `Bearer`."""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        scheme, _, plain = authentication.get_authorization_header(request).decode("latin-1").partition(" ")
        if scheme.lower() not in ("token", "bearer"):
            return None
        return user_of(plain.strip())

    def authenticate_header(self, request: Request) -> str:
        return "Token"


class BasicAuthentication(authentication.BasicAuthentication):
    """User name and password; or a token as the user name, with an empty password."""

    def authenticate_credentials(
        self, userid: str, password: str, request: Request | None = None
    ) -> tuple[User, Token | None]:
        if not password:
            return user_of(userid)
        user = user_with_password(userid, password)
        if user is None:
            raise AuthenticationFailed("Invalid username/password.")
        return user, None


def user_of(plain: str) -> tuple[User, Token]:
    """The user whose valid token this is; AuthenticationFailed for every other text."""
    token = the_one(Token.objects.matching(plain))
    if token is None or not token.is_valid:
        raise AuthenticationFailed("Invalid token.")
    return token.user, token


class TokenScheme(OpenApiAuthenticationExtension):
    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "apiKey", "in": "header", "name": "Authorization", "description": "`Token <40 hex digits>`"}


class BasicScheme(OpenApiAuthenticationExtension):
    target_class = BasicAuthentication
    name = "basic"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "basic"}
