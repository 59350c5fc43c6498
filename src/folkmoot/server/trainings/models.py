"""Trainings, their participants, rounds and updates. Only lifecycle/ changes a state."""

from __future__ import annotations

import uuid
from collections import defaultdict
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import models
from django.db.models import F, Min, Prefetch, Q
from django.utils import timezone

from folkmoot.protocol.notifications import NotificationType
from folkmoot.protocol.states import Doing, RoundState, TrainingState, UpdateStatus
from folkmoot.server.accounts.models import User
from folkmoot.server.notifications.models import Notification
from folkmoot.server.registry.models import Model, Phase
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
        # Without an order a database gives rows as they happen to lie; participants come as they joined.
        cohorts = Prefetch("rounds__cohort", User.objects.only("id").order_by("id"))
        updates = Prefetch("rounds__updates", Update.objects.defer("checksums"))
        as_joined = User.objects.order_by("participations__joined_at", "participations__id")
        return self.select_related("model").prefetch_related(Prefetch("participants", as_joined), cohorts, updates)


class Training(models.Model):
    """One federated run of a fixed number of rounds."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="steered_trainings")
    model = models.OneToOneField(Model, on_delete=models.PROTECT, related_name="training")
    participants = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Participation", related_name="trainings")
    state = models.CharField(max_length=1, default=TrainingState.INITIAL)
    reason = models.TextField(blank=True, default="")
    # One of ReasonCode, once the training has ended early; what it waits for has none.
    reason_code = models.CharField(max_length=40, blank=True, default="", db_default="")
    target_num_updates = models.PositiveIntegerField()
    aggregation_method = models.CharField(max_length=50)
    uncertainty_method = models.CharField(max_length=20, default="NONE")
    metric_names = models.JSONField(default=list)
    options = models.JSONField(default=dict)
    created_at = models.DateTimeField(default=timezone.now)
    last_update = models.DateTimeField(default=timezone.now)
    # Since when it is paused: as long deadlines stand still.
    paused_at = models.DateTimeField(null=True)
    # As asked by who steers it.
    stops_after_round = models.BooleanField(default=False, db_default=False)

    objects = TrainingQuerySet.as_manager()

    class Meta:
        ordering = ("created_at", "id")

    def __str__(self) -> str:
        return f"training {self.id}"

    @property
    def is_under_way(self) -> bool:
        return TrainingState(self.state).is_under_way

    @property
    def is_begun(self) -> bool:
        return TrainingState(self.state).is_begun

    @property
    def first_round(self) -> int:
        """The number of its first round: not 0 where its model had been trained before."""
        first = self.rounds.aggregate(first=Min("number"))["first"]
        return int(self.model.round if first is None else first)

    @property
    def settings(self) -> Options:
        """The options with their defaults, some of which are the deployment's."""
        of_deployment = {"round_timeout": settings.ROUND_TIMEOUT, "round_retries": settings.ROUND_RETRIES}
        return Options.of(of_deployment | self.options)

    def shows_all_to(self, user: User) -> bool:
        """Whether the user sees what each participant has, and not only its own: the actor and staff do."""
        return user.is_staff or self.actor_id == user.pk

    def has_participant(self, user: User) -> bool:
        return Participation.objects.filter(training=self, user=user).exists()


class ParticipationQuerySet(models.QuerySet["Participation"]):
    def of_training(self, training: Training, *, shown_to: User) -> ParticipationQuerySet:
        """All of the training's to its actor and to staff, to others their own."""
        found = self.filter(training=training).select_related("user")
        return found if training.shows_all_to(shown_to) else found.filter(user=shown_to)

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
    def unfinished(self) -> RoundQuerySet:
        """Of a training that has begun, the one that it is at."""
        return self.exclude(state__in=(RoundState.CLOSED, RoundState.FAILED))

    def with_metrics(self) -> RoundQuerySet:
        """Fetched so that showing each, with what came in and what it came to, needs no further query."""
        updates = models.Prefetch("updates", Update.objects.defer("checksums"))
        asked = models.Prefetch("assignments", Assignment.objects.select_related("user").order_by("user__username"))
        return self.prefetch_related(asked, updates, "metrics")

    def overdue(self, now: datetime) -> RoundQuerySet:
        """Those that still wait for participants although their time is up."""
        waiting = (RoundState.WAITING, RoundState.OPEN, RoundState.SWAG, RoundState.TESTING)
        under_way = [state for state in TrainingState if state.is_under_way]
        return self.filter(state__in=waiting, closes_at__lte=now, training__state__in=under_way)


class Round(models.Model):
    """One pass: send the model, collect updates, make the next model. Its checkpoint has `number` + 1."""

    id = models.BigAutoField(primary_key=True)
    training = models.ForeignKey(Training, on_delete=models.CASCADE, related_name="rounds")
    number = models.PositiveIntegerField()
    state = models.CharField(max_length=20, default=RoundState.OPEN)
    attempt = models.PositiveIntegerField(default=1)
    # How many of the attempts came before it was tried again after an error: they are not held against it.
    attempts_before = models.PositiveIntegerField(default=0, db_default=0)
    # Who is asked: fixed as the round opens, but who leaves the training leaves this too.
    cohort = models.ManyToManyField(settings.AUTH_USER_MODEL, through="Assignment", related_name="+")
    # How many answers end each of its steps, where more are asked for than are needed.
    goal = models.PositiveIntegerField(null=True)
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

    @property
    def arrived(self) -> list[UUID]:
        """Whose updates are in; of an open round without those that were rejected: their senders are asked again."""
        is_open = self.state == RoundState.OPEN
        updates = [each for each in self.updates.all() if not is_open or each.status != UpdateStatus.REJECTED]
        return list(dict.fromkeys(each.participant_id for each in updates))

    @property
    def may_be_retried(self) -> bool:
        """Whether the options let those who are missing be asked once more."""
        return self.attempt - self.attempts_before <= self.training.settings.round_retries

    @property
    def was_asked_for(self) -> bool:
        """Whether it was ever open, though all of its cohort may have left since."""
        return self.assignments.exists() or self.updates.exists() or self.handovers.exists()

    def missing(self) -> models.QuerySet[User]:
        """Those of the cohort whose update is not in, or was rejected, by name."""
        return self.cohort.exclude(pk__in=self.updates.standing().values("participant")).order_by("username")

    def has_enough(self, answers: int) -> bool:
        """Whether so many end the step at hand although others might still come."""
        return self.goal is not None and answers >= self.goal

    def awaited(self) -> models.QuerySet[User]:
        """Those of the missing who may yet send one.

        Not whose endpoint cannot be reached, unless it polls, nor who says that none will come.
        """
        return self.missing().exclude(pk__in=self._lost()).exclude(pk__in=self.assignments.given_up().values("user"))

    def awaits_anybody(self) -> bool:
        """Whether anybody is awaited, which is asked with every update that comes."""
        # There are at least as many as stay if nobody is both, which is counted sooner than they are told apart.
        left = self.assignments.hopeful().count() - self.updates.standing().count()
        return (left > 0 and left > self._lost().count()) or self.awaited().exists()

    def _lost(self) -> models.QuerySet[Notification, Any]:
        """Those whose endpoint cannot be reached, and who do not poll."""
        asked = Notification.objects.about(self.training_id, NotificationType.UPDATE_ROUND_START, self.number)
        return asked.filter(attempt=self.attempt).lost().order_by().values("recipient")


class AssignmentQuerySet(models.QuerySet["Assignment"]):
    def unanswered(self) -> AssignmentQuerySet:
        """Those whose round may still be worked for."""
        return self.exclude(doing__in=(Doing.UPLOADED, Doing.LATE))

    def given_up(self) -> AssignmentQuerySet:
        """Those whom nobody waits for: they say that no update will come."""
        return self.filter(doing__in=[each for each in Doing if each.gives_up])

    def hopeful(self) -> AssignmentQuerySet:
        """The others."""
        return self.filter(doing__in=[each for each in Doing if not each.gives_up])


class Assignment(models.Model):
    """A member of a round's cohort, and what it says that it is doing."""

    id = models.BigAutoField(primary_key=True)
    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="assignments")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    doing = models.CharField(max_length=20, default=Doing.ASSIGNED, db_default=Doing.ASSIGNED)
    # Of the training, where the participant has said so; and why it failed, or declined.
    percent = models.FloatField(null=True)
    reason = models.TextField(blank=True, default="", db_default="")
    reported_at = models.DateTimeField(null=True)

    objects = AssignmentQuerySet.as_manager()

    class Meta:
        # Of a time when it was no more than the many-to-many relation; an older version knows it by this name.
        db_table = "trainings_round_cohort"
        ordering = ("round", "user")
        unique_together = (("round", "user"),)

    def __str__(self) -> str:
        return f"{self.user_id} in round {self.round_id}: {self.doing}"


class UpdateQuerySet(models.QuerySet["Update"]):
    def standing(self) -> UpdateQuerySet:
        """Those that nothing has been found against."""
        return self.exclude(status=UpdateStatus.REJECTED)

    def kept(self) -> UpdateQuerySet:
        """Those whose files are there; of the others there is the history alone."""
        return self.filter(removed_at=None)

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
        found = found if training.shows_all_to(shown_to) else found.filter(participant=shown_to)
        return found.order_by("round__number", "received_at", "pk")

    def local_models(self) -> UpdateQuerySet:
        """Those that are in no aggregate yet: until then they are models of their own to the API."""
        pending = Q(round__number__gte=F("round__training__model__round")) | Q(status=UpdateStatus.WAITING)
        known = Q(round__training__model__removed_at__isnull=True)
        found = self.standing().kept().filter(pending & known)
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
    # Since when its file need not be kept; the row stays, for the history.
    removed_at = models.DateTimeField(null=True)

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
    removed_at = models.DateTimeField(null=True)

    objects = SwagStatisticQuerySet.as_manager()

    class Meta:
        ordering = ("round", "participant")
        constraints = (models.UniqueConstraint(fields=["round", "participant"], name="statistic_once"),)

    def __str__(self) -> str:
        return f"moments of {self.participant_id} in round {self.round_id}"


class ShardedPass(models.Model):
    """The making of a round's model by many workers; the file that they assemble is known by `key` and `upload`."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    round = models.OneToOneField(Round, on_delete=models.CASCADE, related_name="sharded_pass")
    key = models.CharField(max_length=1024)
    upload = models.CharField(max_length=1024)
    shard_bytes = models.PositiveBigIntegerField()
    num_shards = models.PositiveIntegerField()
    # The ids of the updates that are aggregated; the numbers of the shards that are; the updates' scores by their ids.
    inputs = models.JSONField()
    done = models.JSONField(default=list)
    scores = models.JSONField(default=dict)

    def __str__(self) -> str:
        return f"{len(self.done)} of {self.num_shards} shards of {self.round}"


class RoundMetric(models.Model):
    """What the participants' values of one metric come to in one round; see summaries.py.

    The values are those that came with the round's updates, or in the test of its model.
    """

    id = models.BigAutoField(primary_key=True)
    round = models.ForeignKey(Round, on_delete=models.CASCADE, related_name="metrics")
    phase = models.CharField(max_length=10, choices=Phase.choices)
    name = models.CharField(max_length=64)
    mean = models.FloatField(null=True)
    std = models.FloatField(null=True)
    minimum = models.FloatField(null=True)
    maximum = models.FloatField(null=True)
    count = models.PositiveIntegerField()
    num_examples = models.PositiveBigIntegerField()
    num_left_out = models.PositiveIntegerField()
    worst = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.SET_NULL, null=True, related_name="+")

    class Meta:
        ordering = ("round", "phase", "name")
        constraints = (models.UniqueConstraint(fields=["round", "phase", "name"], name="round_metric_once"),)

    def __str__(self) -> str:
        return f"{self.name} of {self.round}"


class Aggregation(models.Model):
    """What a round's model was made of, and what came of it: see provenance.py. For the manifest.

    Written once, and once more where SWAG's moments come to it.
    """

    round = models.OneToOneField(Round, on_delete=models.CASCADE, primary_key=True)
    facts = models.JSONField()

    def __str__(self) -> str:
        return f"aggregation of {self.round}"
