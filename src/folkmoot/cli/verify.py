"""`folkmoot training verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer

from folkmoot.cli.extras import needs
from folkmoot.cli.serve import DEFAULT_DATA_DIR, DataDir
from folkmoot.errors import InvalidValue, Misconfigured
from folkmoot.protocol.rounds import ordinal

MAX_MANIFEST_BYTES = 2**30


def verify(
    training: Annotated[
        str, typer.Argument(metavar="MANIFEST_OR_ID", help="A file with a manifest, or the id of a training.")
    ],
    round: Annotated[int | None, typer.Option(min=1, help="This round alone, counted from 1.")] = None,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make the checkpoint of each round once more of the files that this hub keeps, and compare the digests.

    A line for each round says ok, differs or not kept. The exit code is 1 where something differs, and 3 where there
    was nothing to compare.
    """
    with needs("server"):
        from folkmoot.server.process import prepare
    prepare(data_dir.expanduser().absolute())

    from folkmoot.server.storage import get_storage
    from folkmoot.server.trainings.verification import Outcome, verify

    get_storage().prepare()
    found = []
    try:
        for verdict in verify(_manifest(training), round=None if round is None else round - 1):
            detail = f": {verdict.detail}" if verdict.detail else ""
            typer.echo(f"round {ordinal(verdict.round)}: {verdict.outcome}{detail}")
            found.append(verdict.outcome)
    except InvalidValue as error:
        raise Misconfigured(f"{training}: {error.message}") from error
    if not set(found) - {Outcome.NOT_KEPT}:
        why = "of no round all files are kept" if found else "no round has made a model yet"
        typer.echo(f"nothing was compared: {why}", err=True)
        raise typer.Exit(3)
    raise typer.Exit(1 if Outcome.DIFFERS in found else 0)


def _manifest(training: str) -> Any:
    if (path := Path(training)).is_file():
        return _read(path)

    from folkmoot.server.trainings.manifest import manifest_of
    from folkmoot.server.trainings.models import Training

    try:
        found = Training.objects.filter(pk=UUID(training)).first()
    except ValueError:
        found = None
    if found is None:
        raise Misconfigured(f"{training} is neither a file nor the id of a training of this hub")
    return manifest_of(found)


def _read(path: Path) -> Any:
    if path.stat().st_size > MAX_MANIFEST_BYTES:
        raise Misconfigured(f"{path} is larger than any manifest: at most {MAX_MANIFEST_BYTES:,} bytes are read")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise Misconfigured(f"{path} holds no JSON: {error}") from error
