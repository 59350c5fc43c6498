"""`folkmoot serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from folkmoot.cli.extras import needs

DataDir = Annotated[
    Path, typer.Option(envvar="FOLKMOOT_DATA_DIR", help="Where the database, the models and the secret key are kept.")
]
DEFAULT_DATA_DIR = Path("folkmoot-data")


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 for any free one.")] = 8000,
    data_dir: DataDir = DEFAULT_DATA_DIR,
    tls_cert: Annotated[Path | None, typer.Option(help="A certificate in PEM; its chain may follow.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's private key in PEM.")] = None,
) -> None:
    """Start a hub: database, event handling and API in one process. It stops cleanly on SIGTERM or Ctrl-C."""
    with needs("server"):
        from folkmoot.server import process

    serving = process.Serving(host, port, data_dir.expanduser().absolute(), tls_cert, tls_key)
    process.serve(serving, on_ready=lambda address: _announce(address, serving.data_dir))


def _announce(address: str, data_dir: Path) -> None:
    typer.echo(f"Folkmoot is serving at {address} (data in {data_dir})")
