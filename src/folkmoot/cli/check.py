"""`folkmoot check`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from folkmoot.cli.extras import needs
from folkmoot.cli.serve import DEFAULT_DATA_DIR, DataDir

if TYPE_CHECKING:
    from folkmoot.server.checks import Finding


def check(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say what is right and what is wrong with a hub's settings, data and machine; it changes nothing.

    The exit code is 1 where something is wrong.
    """
    with needs("server"):
        from folkmoot.server import checks

    found = []
    for finding in checks.findings(data_dir.expanduser().absolute()):
        found.append(finding)
        if not as_json:
            typer.echo(_line(finding))
    is_sound = all(finding.status != checks.Status.WRONG for finding in found)
    if as_json:
        typer.echo(json.dumps({"sound": is_sound, "findings": [asdict(finding) for finding in found]}))
    raise typer.Exit(0 if is_sound else 1)


def _line(finding: Finding) -> str:
    remedy = f"; {finding.remedy}" if finding.remedy else ""
    return f"{finding.status:<8} {finding.name}: {finding.detail}{remedy}"
