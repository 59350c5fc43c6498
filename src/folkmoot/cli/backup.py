"""`folkmoot backup` and `folkmoot restore`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from folkmoot.cli.extras import needs
from folkmoot.cli.serve import DEFAULT_DATA_DIR, DataDir


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it; there must be no such file yet.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Write all that a hub has, as one moment had it, to one file. The hub may go on running.

    Whoever has the file can read every model, and can sign in as anybody whose token is known to them: keep it safe.
    """
    with needs("server"):
        from folkmoot.server import process

    data_dir = data_dir.expanduser().absolute()
    process.prepare(data_dir)
    from folkmoot.server.backup import services

    missing = services.back_up(file.expanduser().absolute(), progress=_show)
    for sha256 in sorted(missing):
        typer.echo(f"The hub has lost a file that its database names, and the backup lacks it: {sha256}", err=True)
    typer.echo(f"Wrote {file} ({file.expanduser().stat().st_size / 2**20:,.1f} MiB)")


def restore(
    file: Annotated[Path, typer.Argument(help="What folkmoot backup has written.")],
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Make a new hub of a backup, with the database and the storage that the environment names. Then start it.

    Everybody's tokens and passwords are as they were; trainings go on where they were.
    """
    with needs("server"):
        from folkmoot.server import process

    data_dir = data_dir.expanduser().absolute()
    with process.usable_data_dir(data_dir):
        process.prepare(data_dir)
        from folkmoot.server.backup import services
        from folkmoot.server.storage import get_storage

        get_storage().prepare()
        head = services.restore(file.expanduser().absolute(), progress=_show)
    typer.echo(f"Restored a hub of Folkmoot {head.version} with {head.blobs:,} files; start it with folkmoot serve")


def _show(done: int, of: int) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r{done:,} of {of:,} files", nl=done == of, err=True)
