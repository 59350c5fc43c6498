"""`folkmoot model`: model files on this machine, read as a hub reads them: nothing in them is run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sized
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any

import numpy.typing as npt
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress, TaskID
from rich.table import Table

from folkmoot.errors import InvalidInput, Misconfigured
from folkmoot.tensors import FORMATS, Format, Limits, check_finite, recognise
from folkmoot.tensors.formats import EXPORTED
from folkmoot.tensors.parameters import count_parameters
from folkmoot.tensors.schema import StoredTensors

models = typer.Typer(no_args_is_help=True, help="Look into model files, and convert them; nothing in them is run.")

# A hub's own defaults: see docs/configuration.md.
HUB_LIMITS = Limits(max_bytes=20 * 2**30)
WORTH_A_BAR = 200_000_000
WRITABLE = ", ".join(EXPORTED)
OTHER_NAMES = {"pth": "torch", "st": "safetensors", "safetensor": "safetensors"}
BY_NAME: dict[str, Format] = {
    **FORMATS,
    **{known.EXTENSION.removeprefix("."): known for known in FORMATS.values()},
    **{other: FORMATS[name] for other, name in OTHER_NAMES.items()},
}
"""Formats by whatever people call them."""

ModelFile = Annotated[Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="A model file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")]


@models.callback()
def model() -> None:
    """Look into model files, and convert them; nothing in them is run."""


@models.command()
def show(file: ModelFile, as_json: AsJson = False) -> None:
    """Tell what is in a model file of any format.

    Or why a hub with default settings would refuse it; then the exit code is 1.
    """
    try:
        found, tensors = _open(file)
        with _watched(tensors, "Reading") as watched:
            check_finite(watched)
    except InvalidInput as error:
        if as_json:
            typer.echo(json.dumps({"refused": {"code": error.code, "detail": error.message}}))
        raise type(error)(f"a hub with default settings would refuse {file.name}: {error.message}") from error
    described = _described(file, found, tensors)
    if as_json:
        typer.echo(json.dumps(described))
    else:
        _print(described)


@models.command()
def convert(
    file: ModelFile,
    output: Annotated[
        Path, typer.Argument(metavar="OUTPUT", dir_okay=False, help="What to write; appears whole or not at all.")
    ],
    wanted: Annotated[
        str | None,
        typer.Option("--as", metavar="FORMAT", help=f"One of {WRITABLE}; by default by the ending of OUTPUT."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the tensors of a model file in another format.

    What an .npz cannot hold, bfloat16, becomes float32. No ONNX is written: its graph cannot be made of tensors.
    """
    target = _target(output, wanted)
    if not output.parent.is_dir():
        raise Misconfigured(f"there is no folder {output.parent}")
    found, tensors = _open(file)
    try:
        with _watched(tensors, "Writing") as watched:
            written = target.export(watched, output)
    except OSError as error:
        raise Misconfigured(f"{output} cannot be written: {error.strerror}") from error
    if as_json:
        facts = {"from": found.NAME, "format": target.NAME, "path": str(output)}
        typer.echo(json.dumps({**facts, "bytes": written.num_bytes, "sha256": written.sha256}))
    else:
        typer.echo(f"{output}: {target.NAME}, {_count(tensors)}, {decimal(written.num_bytes)}")


def _target(output: Path, wanted: str | None) -> Format:
    name = output.suffix if wanted is None else wanted
    target = BY_NAME.get(name.lower().removeprefix("."))
    if target is not None:
        return target
    if wanted is not None:
        raise Misconfigured(f"{wanted!r} is no format to write; there are {WRITABLE}")
    endings = ", ".join(known.EXTENSION for known in EXPORTED.values())
    raise Misconfigured(f"{output.name} ends with none of {endings}; name the format with --as")


def _open(file: Path) -> tuple[Format, StoredTensors]:
    try:
        found = recognise(file)
        return found, found.read(file, HUB_LIMITS)
    except OSError as error:
        raise Misconfigured(f"{file} cannot be read: {error.strerror}") from error


class _Watched(StoredTensors):
    """Tensors that tell a progress bar what has been asked of them."""

    def __init__(self, tensors: StoredTensors, progress: Progress, task: TaskID) -> None:
        self.schema, self.tied, self.trainable = tensors.schema, tensors.tied, tensors.trainable
        self._tensors, self._progress, self._task = tensors, progress, task

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        array = self._tensors[name]
        self._progress.advance(self._task, array.nbytes)
        return array


@contextmanager
def _watched(tensors: StoredTensors, what: str) -> Iterator[StoredTensors]:
    """Show a bar on standard error while many bytes are read, if someone is looking."""
    screen = Console(stderr=True)
    num_bytes = tensors.schema.num_bytes
    with Progress(
        console=screen, transient=True, disable=not screen.is_terminal or num_bytes < WORTH_A_BAR
    ) as progress:
        yield _Watched(tensors, progress, progress.add_task(what, total=num_bytes))


def _described(file: Path, found: Format, tensors: StoredTensors) -> dict[str, Any]:
    same_as = {name: names[0] for names in tensors.tied for name in names[1:]}
    parameters = count_parameters(tensors.schema, tensors.tied, tensors.trainable)
    return {
        "format": found.NAME,
        "bytes": file.stat().st_size,
        "parameters": parameters.total,
        "trainable_parameters": parameters.trainable,
        "tensors": [
            {
                "name": spec.name,
                "dtype": spec.dtype,
                "shape": list(spec.shape),
                "parameters": spec.num_elements,
                "bytes": spec.num_bytes,
                "trainable": tensors.trainable.get(spec.name),
                "same_as": same_as.get(spec.name),
            }
            for spec in tensors.schema
        ],
    }


def _print(described: dict[str, Any]) -> None:
    tensors = described["tensors"]
    trainable = described["trainable_parameters"]
    of_these = "" if trainable is None else f" ({trainable:,} trainable)"
    totals = f"{_count(tensors)}, {described['parameters']:,} parameters{of_these}, {decimal(described['bytes'])}"
    typer.echo(f"{described['format']}: {totals}")
    rows = [_row(tensor) for tensor in sorted(tensors, key=itemgetter("name"))]
    columns = [column for column in COLUMNS if any(row[column] for row in rows)]
    table = Table(box=None, pad_edge=False)
    for column in columns:
        # A name is folded rather than cut: it may be wanted for a pattern.
        table.add_column(column, justify="right" if column == "parameters" else "left", overflow="fold")
    for row in rows:
        table.add_row(*(row[column] for column in columns))
    if rows:
        Console(markup=False, emoji=False, highlight=False).print(table)


def _count(tensors: Sized) -> str:
    return "1 tensor" if len(tensors) == 1 else f"{len(tensors):,} tensors"


_KINDS = {True: "parameter", False: "buffer", None: ""}
COLUMNS = ("name", "dtype", "shape", "parameters", "kind", "same as")


def _row(tensor: dict[str, Any]) -> dict[str, str]:
    return {
        "name": tensor["name"],
        "dtype": tensor["dtype"],
        "shape": " x ".join(map(str, tensor["shape"])) or "scalar",
        "parameters": f"{tensor['parameters']:,}",
        "kind": _KINDS[tensor["trainable"]],
        "same as": tensor["same_as"] or "",
    }
