import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("trainings", "0009_paused"), migrations.swappable_dependency(settings.AUTH_USER_MODEL)]

    operations = [
        # The rows that Django kept for the cohorts by itself become a model.
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.CreateModel(
                    name="Assignment",
                    fields=[
                        ("id", models.BigAutoField(primary_key=True, serialize=False)),
                        (
                            "round",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.CASCADE,
                                related_name="assignments",
                                to="trainings.round",
                            ),
                        ),
                        (
                            "user",
                            models.ForeignKey(
                                on_delete=django.db.models.deletion.CASCADE,
                                related_name="+",
                                to=settings.AUTH_USER_MODEL,
                            ),
                        ),
                    ],
                    options={
                        "ordering": ("round", "user"),
                        "unique_together": {("round", "user")},
                        "db_table": "trainings_round_cohort",
                    },
                ),
                migrations.AlterField(
                    model_name="round",
                    name="cohort",
                    field=models.ManyToManyField(
                        related_name="+", through="trainings.Assignment", to=settings.AUTH_USER_MODEL
                    ),
                ),
            ],
        ),
        migrations.AddField("assignment", "doing", models.CharField(db_default="assigned", default="assigned", max_length=20)),
        migrations.AddField("assignment", "percent", models.FloatField(null=True)),
        migrations.AddField("assignment", "reason", models.TextField(blank=True, db_default="", default="")),
        migrations.AddField("assignment", "reported_at", models.DateTimeField(null=True)),
    ]
