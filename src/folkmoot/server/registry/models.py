"""Models of all kinds, checkpoints, metrics, calibration."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.utils import timezone


class Kind(models.TextChoices):
    """What a model is made of: tensors, tensors with their moments, or other models."""

    GLOBAL = "GLOBAL"
    SWAG = "SWAG"
    MEAN = "MEAN"


class ModelQuerySet(models.QuerySet["Model"]):
    def with_details(self) -> ModelQuerySet:
        """Fetched so that showing each needs no further query."""
        moments = Moments.objects.filter(checkpoint__model=models.OuterRef("pk"))
        return self.prefetch_related("memberships").annotate(has_moments=models.Exists(moments))


class ModelManager(models.Manager["Model"]):
    """Leaves out what was removed: such a row is there for the history of its training alone."""

    def get_queryset(self) -> ModelQuerySet:
        return ModelQuerySet(self.model, using=self._db).filter(removed_at__isnull=True)

    def with_details(self) -> ModelQuerySet:
        return self.get_queryset().with_details()


class Model(models.Model):
    """A global model: the template as it was uploaded, and a checkpoint of its tensors after each round.

    One of kind MEAN has neither: it is an ensemble of its members.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="models")
    name = models.CharField(max_length=255)
    description = models.TextField()
    type = models.CharField(max_length=10, choices=Kind.choices, default=Kind.GLOBAL)
    input_shape = models.JSONField(null=True, blank=True)
    round = models.PositiveIntegerField(default=0)
    format = models.CharField(max_length=20)
    # What a template of mere weights is put into for predictions; empty where nobody has said.
    architecture = models.CharField(max_length=100, blank=True, default="")
    template_sha256 = models.CharField(max_length=64)
    # A torch module that inputs go through first, as it was uploaded; empty where there is none.
    preprocessing_sha256 = models.CharField(max_length=64, blank=True, default="")
    # Groups of names that are one and the same tensor in the template: an update may not tear them apart.
    tied = models.JSONField(default=list)
    # Which model this one began as a copy of, and after how many of its rounds.
    parent = models.ForeignKey("self", on_delete=models.SET_NULL, null=True, related_name="descendants")
    parent_round = models.PositiveIntegerField(null=True)
    # The first model in the line of copies, by which all others are found at once; that one itself has none.
    root = models.UUIDField(null=True, editable=False, db_index=True)
    members = models.ManyToManyField("self", through="Membership", symmetrical=False, related_name="ensembles")
    created_at = models.DateTimeField(default=timezone.now)
    removed_at = models.DateTimeField(null=True)

    objects = ModelManager()

    class Meta:
        ordering = ("created_at", "id")

    def __str__(self) -> str:
        return f"{self.name} {self.id}"

    @property
    def latest_checkpoint(self) -> Checkpoint:
        return self.checkpoints.get(round=self.round)


class Membership(models.Model):
    """A model is one of those that an ensemble is the mean of."""

    id = models.BigAutoField(primary_key=True)
    ensemble = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="memberships")
    member = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="member_of")

    class Meta:
        ordering = ("id",)
        constraints = (models.UniqueConstraint(fields=["ensemble", "member"], name="member_once"),)

    def __str__(self) -> str:
        return f"{self.member_id} in {self.ensemble_id}"


class Origin(models.TextChoices):
    """How a checkpoint came to be: as it was uploaded, as it was copied from another model, or in a round."""

    UPLOAD = "upload"
    COPY = "copy"
    AGGREGATION = "aggregation"


class CheckpointQuerySet(models.QuerySet["Checkpoint"]):
    def kept(self) -> CheckpointQuerySet:
        """Those whose files are there; of the others there is the history alone."""
        return self.filter(removed_at=None)


class Checkpoint(models.Model):
    """The model's tensors after `round` rounds, as a TensorFile in the storage; round 0 is the upload's own.

    Where only some tensors travel, the file has those; the others are in the files `beneath`, the uppermost first.
    """

    id = models.BigAutoField(primary_key=True)
    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="checkpoints")
    round = models.PositiveIntegerField()
    sha256 = models.CharField(max_length=64)
    num_bytes = models.PositiveBigIntegerField()
    # Of each block of the file's data (see tensors/checksums.py); empty for files of a version that had none.
    checksums = models.BinaryField(default=bytes)
    beneath = models.JSONField(default=list)
    origin = models.CharField(
        max_length=20, choices=Origin.choices, default=Origin.AGGREGATION, db_default=Origin.AGGREGATION
    )
    # Of the file that the training's strategy needs to go on from here; empty where it keeps nothing.
    state_sha256 = models.CharField(max_length=64, blank=True, default="")
    state_num_bytes = models.PositiveBigIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now)
    # Since when its files need not be kept; the row stays, for the history.
    removed_at = models.DateTimeField(null=True)

    objects = CheckpointQuerySet.as_manager()

    class Meta:
        ordering = ("round",)
        constraints = (models.UniqueConstraint(fields=["model", "round"], name="checkpoint_once"),)

    def __str__(self) -> str:
        return f"checkpoint {self.round} of {self.model_id}"


class Moments(models.Model):
    """The mean of a checkpoint's parameters near it, and that of their squares, flat, in one TensorFile."""

    checkpoint = models.OneToOneField(Checkpoint, on_delete=models.CASCADE, primary_key=True)
    sha256 = models.CharField(max_length=64)
    num_bytes = models.PositiveBigIntegerField()
    checksums = models.BinaryField(default=bytes)
    created_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"moments of {self.checkpoint}"


class Phase(models.TextChoices):
    """What a metric came with: an update of round `step`, the test of checkpoint `step`, or neither."""

    TRAIN = "train"
    TEST = "test"
    OTHER = "other"


class Metric(models.Model):
    """A number, or other bytes, that a user reported for a model at a step."""

    id = models.BigAutoField(primary_key=True)
    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="metrics")
    reporter = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    identifier = models.CharField(max_length=64, blank=True, default="")
    key = models.CharField(max_length=64)
    # NULL with no bytes either: a number that is not finite.
    value_float = models.FloatField(null=True)
    value_binary = models.BinaryField(null=True)
    step = models.PositiveIntegerField()
    phase = models.CharField(max_length=10, choices=Phase.choices, default=Phase.OTHER)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("id",)
        indexes = (models.Index(fields=["model", "step"], name="metric_step"),)

    def __str__(self) -> str:
        return f"{self.key} at {self.step}"


class Calibration(models.Model):
    """What a participant has counted of how well the checkpoint of a round does on its data; see uncertainty/."""

    id = models.BigAutoField(primary_key=True)
    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="calibrations")
    round = models.PositiveIntegerField()
    participant = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    statistics = models.JSONField()
    received_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ("round", "participant")
        constraints = (models.UniqueConstraint(fields=["model", "round", "participant"], name="calibration_once"),)

    def __str__(self) -> str:
        return f"calibration of {self.model_id} at {self.round} by {self.participant_id}"


class DamagedBlob(models.Model):
    """A file in the storage that was found not to have the bytes of its name, or to be gone."""

    sha256 = models.CharField(max_length=64, primary_key=True)
    found_at = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return self.sha256
