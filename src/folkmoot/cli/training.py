"""`folkmoot training`: follow and steer trainings on the hub at FOLKMOOT_URL."""

from __future__ import annotations

import json
import time
from typing import Annotated, Any

import typer

from folkmoot.cli.verify import verify
from folkmoot.client import Hub
from folkmoot.protocol.rounds import ordinal
from folkmoot.protocol.states import RoundState, TrainingState

trainings = typer.Typer(
    no_args_is_help=True,
    help="Follow and steer trainings on the hub at FOLKMOOT_URL, with FOLKMOOT_TOKEN; verify them beside the hub.",
)

Id = Annotated[str, typer.Argument(metavar="ID", help="The training's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@trainings.callback()
def training() -> None:
    """Follow and steer trainings on the hub at FOLKMOOT_URL, with FOLKMOOT_TOKEN."""


trainings.command()(verify)


@trainings.command("list")
def list_(as_json: AsJson = False) -> None:
    """The trainings that you are the actor of."""
    with Hub.from_env() as hub:
        found = hub.trainings()
    if as_json:
        typer.echo(json.dumps(found))
        return
    for each in found:
        typer.echo(f"{each['id']}  {_state(each):<10}  {each['aggregation_method']}")


@trainings.command()
def show(training_id: Id, as_json: AsJson = False) -> None:
    """Where a training stands."""
    with Hub.from_env() as hub:
        _show(hub.training(training_id), as_json=as_json)


@trainings.command()
def explain(training_id: Id, as_json: AsJson = False) -> None:
    """What a training is doing, and whom it waits for until when."""
    with Hub.from_env() as hub:
        found = hub.explain(training_id)
    typer.echo(json.dumps(found) if as_json else found["sentence"])


@trainings.command()
def start(training_id: Id) -> None:
    """Open the first round."""
    with Hub.from_env() as hub:
        hub.start(training_id)
    typer.echo("started")


@trainings.command()
def pause(training_id: Id) -> None:
    """Hold the training where it stands; deadlines stand still."""
    with Hub.from_env() as hub:
        hub.pause(training_id)
    typer.echo("paused")


@trainings.command()
def resume(training_id: Id) -> None:
    """Let a paused training go on."""
    with Hub.from_env() as hub:
        hub.resume(training_id)
    typer.echo("resumed")


@trainings.command()
def stop(
    training_id: Id,
    end_of_round: Annotated[bool, typer.Option("--end-of-round", help="Once its round is closed.")] = False,
) -> None:
    """End the training; the last checkpoint stands."""
    with Hub.from_env() as hub:
        hub.stop(training_id, at_end_of_round=end_of_round)
    typer.echo("stops at the end of its round" if end_of_round else "stopped")


@trainings.command()
def retry(training_id: Id) -> None:
    """After an error, take the step that failed once more."""
    with Hub.from_env() as hub:
        hub.retry(training_id)
    typer.echo("retried")


@trainings.command()
def clone(
    training_id: Id,
    round: Annotated[int | None, typer.Option(min=0, help="The checkpoint to begin with; the latest.")] = None,
    updates: Annotated[int | None, typer.Option(min=1, help="How many updates of the model to make.")] = None,
    name: Annotated[str | None, typer.Option(help="The name of the new model.")] = None,
) -> None:
    """Make a training that goes on from an earlier round, and print its id; it waits for start."""
    with Hub.from_env() as hub:
        typer.echo(hub.clone(training_id, round=round, target_num_updates=updates, name=name))


@trainings.command()
def events(
    training_id: Id,
    after: Annotated[int, typer.Option(min=0, metavar="EVENT", help="Only those since this event.")] = 0,
    as_json: AsJson = False,
) -> None:
    """What has happened, the oldest first."""
    with Hub.from_env() as hub:
        found = hub.events(training_id, after=after)
    if as_json:
        typer.echo(json.dumps(found))
        return
    for each in found:
        typer.echo(f"{each['id']:>6}  {each['at'][:19]}  {each['sentence']}")


@trainings.command()
def wait(
    training_id: Id,
    timeout: Annotated[float | None, typer.Option(min=0, metavar="SECONDS", help="At most so long.")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until the training is over: exit code 0 if it is completed, 3 if it ended otherwise, 4 after the timeout."""
    ends_at = None if timeout is None else time.monotonic() + timeout
    with Hub.from_env() as hub:
        while not TrainingState((shown := hub.training(training_id))["state"]).is_final:
            if ends_at is not None and time.monotonic() >= ends_at:
                _show(shown, as_json=as_json)
                raise typer.Exit(4)
            time.sleep(1 if ends_at is None else min(1, max(0, ends_at - time.monotonic())))
    _show(shown, as_json=as_json)
    if shown["state"] != TrainingState.COMPLETED:
        raise typer.Exit(3)


def _show(shown: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(shown))
        return
    rounds = shown["rounds"]
    typer.echo(f"state   {_state(shown)}{', stops at the end of its round' if shown['stops_after_round'] else ''}")
    if rounds:
        last = rounds[-1]
        typer.echo(f"round   {ordinal(last['number'])} ({last['state'].lower()}), attempt {last['attempt']}")
        if last["state"] == RoundState.OPEN:
            typer.echo(f"updates {shown['local_models_arrived']} of {shown['local_models_expected']}")
    typer.echo(f"closed  {sum(each['state'] == 'CLOSED' for each in rounds)} of {shown['target_num_updates']} rounds")
    typer.echo(f"model   {shown['model']}")
    if shown["reason"]:
        typer.echo(f"reason  {shown['reason']}{' (' + shown['reason_code'] + ')' if shown['reason_code'] else ''}")


def _state(shown: dict[str, Any]) -> str:
    return TrainingState(shown["state"]).name.lower()
