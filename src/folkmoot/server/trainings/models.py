"""Trainings, their participants, rounds and updates. Only lifecycle.py changes a state."""

from __future__ import annotations

import uuid
from collections import defaultdict
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from folkmoot.protocol.notifications import NotificationType
from folkmoot.protocol.states import RoundState, TrainingState, UpdateStatus
from folkmoot.server.accounts.models import User
from folkmoot.server.notifications.models import Notification
from folkmoot.server.registry.models import Model
from folkmoot.server.trainings.options import Options


class TrainingQuerySet(models.QuerySet["Training"]):
    def steered_by(self, user: User) -> TrainingQuerySet:
        """Those that the user is the actor of."""
        return self.filter(actor=user)

    def visible_to(self, user: User) -> TrainingQuerySet:
        """Those that involve the user; all of them for staff."""
        return self if user.is_staff else self.involving(user)

    def involving(self, user: User) -> TrainingQuerySet:
        """Those that the user is the actor of, or takes part in."""
        return self.filter(Q(actor=user) | Q(pk__in=Participation.objects.filter(user=user).values("training")))

    def with_details(self) -> TrainingQuerySet:
        """Fetched so that showing each needs no further query."""
        return self.select_related("model").prefetch_related("participants", "rounds__cohort", "rounds__updates")


class Training(models.Model):
    """One federated run of a fixed number of rounds."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="steered_trainings")
    model = models.OneToOneField(Model, on_delete=models.PROTECT, related_name="training")
    participants = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Participation", related_name="trainings")
    state = models.CharField(max_length=1, default=TrainingState.INITIAL)
    reason = models.TextField(blank=True, default="")
    target_num_updates = models.PositiveIntegerField()
    aggregation_method = models.CharField(max_length=50)
    uncertainty_method = models.CharField(max_length=20, default="NONE")
    metric_names = models.JSONField(default=list)
    options = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)
    last_update = models.DateTimeField(default=timezone.now)

    objects = TrainingQuerySet.as_manager()

    class Meta:
        ordering = ("created_at", "id")

    def __str__(self) -> str:
        return f"training {self.id}"

    @property
    def is_under_way(self) -> bool:
        return TrainingState(self.state).is_under_way

    @property
    def settings(self) -> Options:
        """The options with their defaults."""
        return Options.of(self.options)

    def has_participant(self, user: User) -> bool:
        return Participation.objects.filter(training=self, user=user).exists()


class ParticipationQuerySet(models.QuerySet["Participation"]):
    def users_by_training(self) -> dict[UUID, list[UUID]]:
        """The ids of the users, for those trainings that have any."""
        found = defaultdict(list)
        for training, user in self.values_list("training", "user"):
            found[training].append(user)
        return dict(found)


class Participation(models.Model):
    """A user takes part in a training."""

    id = models.BigAutoField(primary_key=True)
    training = models.ForeignKey(Training, on_delete=models.CASCADE, related_name="participations")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="participations")
    joined_at = models.DateTimeField(default=timezone.now)

    objects = ParticipationQuerySet.as_manager()

    class Meta:
        ordering = ("joined_at", "id")
        constraints = (models.UniqueConstraint(fields=["training", "user"], name="participation_once"),)

    def __str__(self) -> str:
        return f"{self.user_id} in {self.training_id}"


class RoundQuerySet(models.QuerySet["Round"]):
    def overdue(self, now: datetime) -> RoundQuerySet:
        """Those that still wait for participants although their time is up."""
        waiting = (RoundState.OPEN, RoundState.SWAG, RoundState.TESTING)
        under_way = [state for state in TrainingState if state.is_under_way]
        return self.filter(state__in=waiting, closes_at__lte=now, training__state__in=under_way)


class Round(models.Model):
    """One pass: send the model, collect updates, make the next model. Its checkpoint has `number` + 1."""

    id = models.BigAutoField(primary_key=True)
    training = models.ForeignKey(Training, on_delete=models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=20, default=RoundState.OPEN)
    attempt = models.PositiveIntegerField(default=1)
    # Who is asked: fixed as the round opens, but who leaves the training leaves this too.
    cohort = models.ManyToManyField(settings.AUTH_USER_MODEL, related_name="+")
    opened_at = models.DateTimeField(default=timezone.now)
    closes_at = models.DateTimeField()
    aggregated_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)

    objects = RoundQuerySet.as_manager()

    class Meta:
        ordering = ("number",)
        constraints = (models.UniqueConstraint(fields=["training", "number"], name="round_once"),)

    def __str__(self) -> str:
        return f"round {self.number} of {self.training_id}"

    def missing(self) -> models.QuerySet[User]:
        """Those of the cohort whose update is not in, or was rejected, by name."""
        return self.cohort.exclude(pk__in=self.updates.standing().values("participant")).order_by("username")

    def awaited(self) -> models.QuerySet[User]:
        """Those of the missing who can know of it: whose endpoint cannot be reached counts only once it polls."""
        asked = Notification.objects.about(self.training_id, NotificationType.UPDATE_ROUND_START, self.number)
        return self.missing().exclude(pk__in=asked.filter(attempt=self.attempt).lost().values("recipient"))


class UpdateQuerySet(models.QuerySet["Update"]):
    def standing(self) -> UpdateQuerySet:
        """Those that nothing has been found against."""
        return self.exclude(status=UpdateStatus.REJECTED)

    def waiting(self) -> UpdateQuerySet:
        """Those that no round has taken yet."""
        return self.filter(status=UpdateStatus.WAITING, counted_in=None)

    def rejected(self) -> UpdateQuerySet:
        return self.filter(status=UpdateStatus.REJECTED)

    def in_aggregate(self) -> UpdateQuerySet:
        return self.filter(status=UpdateStatus.ACCEPTED)

    def of_training(self, training: Training, *, shown_to: User) -> UpdateQuerySet:
        """All of the training's to its actor and to staff; to others their own: scores tell of what somebody has."""
        found = self.filter(round__training=training).select_related("round", "counted_in").defer("checksums")
        sees_all = shown_to.is_staff or training.actor_id == shown_to.pk
        found = found if sees_all else found.filter(participant=shown_to)
        return found.order_by("round__number", "received_at", "pk")

    def local_models(self) -> UpdateQuerySet:
        """Those that are in no aggregate yet: until then they are models of their own to the API."""
        pending = Q(round__number__gte=F("round__training__model__round")) | Q(status=UpdateStatus.WAITING)
        known = Q(round__training__model__removed_at__isnull=True)
        found = self.standing().filter(pending & known)
        return found.select_related("round__training__model").defer("checksums")

    def visible_to(self, user: User) -> UpdateQuerySet:
        """One's own, those one was sent, and those of trainings that one is the actor of; all of them for staff."""
        if user.is_staff:
            return self
        sent = Handover.objects.filter(participant=user).values("update")
        return self.filter(Q(participant=user) | Q(round__training__actor=user) | Q(pk__in=sent))


class Update(models.Model):
    """What one participant sent in one round, beginning with its model; `status` says what has become of it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="updates")
    # The round whose aggregate it goes into, once that has all it needs; in asynchronous training a later one perhaps.
    counted_in = models.ForeignKey(Round, on_delete=models.SET_NULL, null=True, related_name="counted")
    participant = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="updates")
    # Of the bytes as they came, by which a repeated upload is known, and of the TensorFile made of them.
    received_sha256 = models.CharField(max_length=64)
    sha256 = models.CharField(max_length=64)
    num_bytes = models.PositiveBigIntegerField()
    # Of each block of the TensorFile's data (see tensors/checksums.py).
    checksums = models.BinaryField(default=bytes)
    # As it came: the name of a format or "encoded", and the number of bytes.
    format = models.CharField(max_length=20, default="")
    received_bytes = models.PositiveBigIntegerField(default=0)
    num_examples = models.PositiveBigIntegerField()
    received_at = models.DateTimeField(default=timezone.now)
    status = models.CharField(max_length=20, default=UpdateStatus.WAITING)
    reason = models.TextField(blank=True, default="")
    # Scores (see aggregation/screening.py), from when the round is aggregated; NULL where a number does not exist.
    norm = models.FloatField(null=True)
    relative_norm = models.FloatField(null=True)
    cosine = models.FloatField(null=True)
    weight = models.FloatField(null=True)

    objects = UpdateQuerySet.as_manager()

    class Meta:
        ordering = ("round", "participant")
        constraints = (
            # One that was rejected does not keep its sender from sending another while the round is open.
            models.UniqueConstraint(
                fields=["round", "participant"], condition=~Q(status=UpdateStatus.REJECTED), name="update_once"
            ),
        )

    def __str__(self) -> str:
        return f"update of {self.participant_id} in round {self.round_id}"

    @property
    def staleness(self) -> int:
        """How many rounds before the one that it counts in it was begun; 0 while it counts in none."""
        return self.counted_in.number - self.round.number if self.counted_in else 0

    @property
    def base_model(self) -> Model:
        """The global model that it is to become a part of."""
        return self.round.training.model


class Handover(models.Model):
    """In daisy chaining: the participant begins the round with this local model of another."""

    id = models.BigAutoField(primary_key=True)
    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="handovers")
    participant = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    update = models.ForeignKey(Update, on_delete=models.CASCADE, related_name="handovers")

    class Meta:
        ordering = ("round", "participant")
        constraints = (models.UniqueConstraint(fields=["round", "participant"], name="handover_once"),)

    def __str__(self) -> str:
        return f"{self.update_id} to {self.participant_id} in round {self.round_id}"


class SwagStatisticQuerySet(models.QuerySet["SwagStatistic"]):
    def with_examples(self) -> SwagStatisticQuerySet:
        """Those that there is something to merge of."""
        return self.filter(num_examples__gt=0)


class SwagStatistic(models.Model):
    """The moments that one participant sent after one round; `num_examples` is 0 of who has none, or damaged ones."""

    id = models.BigAutoField(primary_key=True)
    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="statistics")
    participant = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    # Of both files as they came, and of the TensorFile made of them.
    received_sha256 = models.CharField(max_length=64, blank=True, default="")
    sha256 = models.CharField(max_length=64, blank=True, default="")
    num_bytes = models.PositiveBigIntegerField(default=0)
    checksums = models.BinaryField(default=bytes)
    num_examples = models.PositiveBigIntegerField(default=0)
    received_at = models.DateTimeField(default=timezone.now)

    objects = SwagStatisticQuerySet.as_manager()

    class Meta:
        ordering = ("round", "participant")
        constraints = (models.UniqueConstraint(fields=["round", "participant"], name="statistic_once"),)

    def __str__(self) -> str:
        return f"moments of {self.participant_id} in round {self.round_id}"
