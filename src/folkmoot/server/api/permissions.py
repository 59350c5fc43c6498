"""Who may do what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from folkmoot.server.accounts.models import GroupCreation, Invitation, User
from folkmoot.server.accounts.services import NOT_INVITED
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings.models import Participation, Training, Update
from folkmoot.server.uploads.models import Upload


class MayRegister(BasePermission):
    """Anyone, where the server lets anyone in; or who has an invitation."""

    message = "Registration is closed on this server; ask its operator for an account."

    def has_permission(self, request: Request, view: APIView) -> bool:
        if settings.REGISTRATION != "invite":
            return settings.REGISTRATION == "open"
        # Before anything else is looked at: who is not invited does not learn which names are taken.
        self.message = NOT_INVITED
        told: Mapping[str, Any] = request.data  # a form or an object: the parsers take nothing else
        return Invitation.objects.valid(str(told.get("invitation", ""))).exists()


class IsOneselfOrStaff(BasePermission):
    """For what is a user's own; staff may do it for others, but not for those who may do more than staff."""

    def has_object_permission(self, request: Request, view: APIView, user: User) -> bool:
        if user.pk == request.user.pk or request.user.is_superuser:
            return True
        return request.user.is_staff and not user.is_superuser


class MayAccessAllGroups(BasePermission):
    """Staff."""

    message = "You are not allowed to access all groups."

    def has_permission(self, request: Request, view: APIView) -> bool:
        return request.user.is_staff


class MayAccessGroup(BasePermission):
    """Its members, its creator, staff."""

    message = "You are not allowed to access this group."

    def has_object_permission(self, request: Request, view: APIView, group: Group) -> bool:
        return request.user.groups.filter(pk=group.pk).exists() or _may_change(request, group)


class MayChangeGroup(BasePermission):
    """Its creator, staff."""

    def has_object_permission(self, request: Request, view: APIView, group: Group) -> bool:
        return _may_change(request, group)


class MaySeeTraining(BasePermission):
    """The actor, a participant, staff."""

    def has_object_permission(self, request: Request, view: APIView, training: Training) -> bool:
        return _takes_part(request, training) or request.user.is_staff


class TakesPart(BasePermission):
    """A participant."""

    def has_object_permission(self, request: Request, view: APIView, training: Training) -> bool:
        self.message = f"You are not a participant of training {training.pk}!"
        return training.has_participant(request.user)


class MaySteer(BasePermission):
    """The actor; a participant too, unless the training or the server leaves it to the actor."""

    def has_object_permission(self, request: Request, view: APIView, training: Training) -> bool:
        if training.actor_id == request.user.pk:
            return True
        shared = training.settings.participants_may_steer
        if shared is None:
            shared = settings.PARTICIPANTS_MAY_STEER
        return shared and training.has_participant(request.user)


class MaySteerOrLeave(MaySteer):
    """Who may steer; every participant where it names nobody but itself."""

    def has_object_permission(self, request: Request, view: APIView, training: Training) -> bool:
        leaves = request.data == {"clients": [str(request.user.pk)]} and training.has_participant(request.user)
        return leaves or super().has_object_permission(request, view, training)


class IsActor(BasePermission):
    """The actor."""

    message = "You are not the owner the training."

    def has_object_permission(self, request: Request, view: APIView, training: Training) -> bool:
        return training.actor_id == request.user.pk


class SeesAll(BasePermission):
    """Who may know what each participant has: the actor and staff."""

    def has_object_permission(self, request: Request, view: APIView, training: Training) -> bool:
        return training.shows_all_to(request.user)


class MaySeeModel(BasePermission):
    """Its owner, the actor and the participants of its training, staff; a local model not the other participants."""

    def has_object_permission(self, request: Request, view: APIView, model: Model | Update) -> bool:
        if isinstance(model, Update):
            return Update.objects.visible_to(request.user).filter(pk=model.pk).exists()
        return _is_involved(request, model) or request.user.is_staff


class OwnsModelOrSteers(BasePermission):
    """Its owner, and the actor of its training."""

    message = "You are neither the owner of the model nor the actor of the corresponding training."

    def has_object_permission(self, request: Request, view: APIView, model: Model | Update) -> bool:
        if isinstance(model, Update):
            return request.user.pk in (model.participant_id, model.round.training.actor_id)
        return (
            model.owner_id == request.user.pk or Training.objects.steered_by(request.user).filter(model=model).exists()
        )


class OwnsModel(BasePermission):
    """Its owner."""

    def has_object_permission(self, request: Request, view: APIView, model: Model) -> bool:
        self.message = f"You are not the owner of model {model.pk}!"
        return model.owner_id == request.user.pk


class MayReportMetrics(BasePermission):
    """Its owner, the actor and the participants of its training; staff only looks on."""

    def has_object_permission(self, request: Request, view: APIView, model: Model) -> bool:
        return _is_involved(request, model)


class IsUploader(BasePermission):
    """Who has opened it: an upload is nobody else's business until it is committed."""

    def has_object_permission(self, request: Request, view: APIView, upload: Upload) -> bool:
        return upload.owner_id == request.user.pk


def _may_change(request: Request, group: Group) -> bool:
    return request.user.is_staff or GroupCreation.objects.filter(group=group, creator=request.user.pk).exists()


def _is_involved(request: Request, model: Model) -> bool:
    # Its participants first: they ask in every round.
    return (
        model.owner_id == request.user.pk
        or Participation.objects.filter(training__model=model, user=request.user.pk).exists()
        or Training.objects.steered_by(request.user).filter(model=model).exists()
    )


def _takes_part(request: Request, training: Training) -> bool:
    return training.actor_id == request.user.pk or training.has_participant(request.user)
