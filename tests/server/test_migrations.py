"""Of a hub of several machines some still run the older version while others migrate (expand, then contract)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import migrations
from django.db.migrations.loader import MigrationLoader

from folkmoot.server.outbox.models import Event
from folkmoot.server.trainings.models import Training

OLDER = {
    "accounts": "0003_invitation",
    "inference": "0001_initial",
    "notifications": "0002_polled",
    "outbox": "0003_lane_of_models",
    "registry": "0008_calibration",
    "trainings": "0006_counted_in",
    "uploads": "0001_initial",
}
"""The last migration of each app that the oldest version knows of those that may run beside this one."""
NOW = datetime(2026, 1, 1, tzinfo=UTC)

# What takes from an older version what it reads and writes.
CONTRACTING = (
    migrations.AlterModelTable,
    migrations.DeleteModel,
    migrations.RemoveField,
    migrations.RenameField,
    migrations.RenameModel,
)


@pytest.fixture(scope="module")
def older():
    """A function: the model of this name as the older version has it."""
    apps = MigrationLoader(None).project_state(list(OLDER.items())).apps
    return apps.get_model


@pytest.mark.django_db
@pytest.mark.parametrize("app", OLDER)
def test_an_older_version_reads_every_table_that_it_knows(app, older):
    state = MigrationLoader(None).project_state(list(OLDER.items()))

    for label, name in state.models:
        if label == app:
            assert list(older(label, name).objects.all()) == []


@pytest.mark.django_db
def test_an_older_version_still_writes_the_rows_of_a_round(older):
    user = older("accounts", "User").objects.create(username="ann")
    model = older("registry", "Model").objects.create(owner=user, name="m")
    checkpoint = {"model": model, "round": 0, "num_bytes": 1, "checksums": b""}
    older("registry", "Checkpoint").objects.create(**checkpoint)
    training = older("trainings", "Training").objects.create(
        actor=user, model=model, target_num_updates=1, aggregation_method="FedAvg"
    )
    older("trainings", "Participation").objects.create(training=training, user=user)
    current = older("trainings", "Round").objects.create(training=training, number=0, closes_at=NOW)
    current.cohort.add(user)
    older("trainings", "Update").objects.create(
        round=current, participant=user, received_bytes=1, num_bytes=1, num_examples=1, checksums=b""
    )
    older("notifications", "Notification").objects.create(
        recipient=user, number=1, type="T", training_id=training.pk, body={}
    )
    older("uploads", "Upload").objects.create(owner=user, size=1)
    older("outbox", "Event").objects.create(subject=training.pk, kind="round_opened")

    read = Training.objects.get()
    assert (read.reason_code, read.stops_after_round) == ("", False)
    assert [(each.doing, each.reason) for each in read.rounds.get().assignments.all()] == [("assigned", "")]
    assert Event.objects.get().request_id == ""


def test_nothing_that_an_older_version_knows_is_renamed_or_removed():
    loader = MigrationLoader(None)
    newer = [each for key, each in loader.disk_migrations.items() if key[0] in OLDER and key[1] > OLDER[key[0]]]

    contracting = [
        f"{migration}: {operation}"
        for migration in newer
        for operation in migration.operations
        if isinstance(operation, CONTRACTING)
    ]

    assert newer
    assert contracting == []
