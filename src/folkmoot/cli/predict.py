"""`folkmoot predict`: ask a model, of a file here or of a hub, and see how sure it is."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from folkmoot.cli.predicted import Predicted
from folkmoot.cli.rows import read_csv, read_rows
from folkmoot.client import Hub
from folkmoot.errors import InvalidInput, Misconfigured, ModelFailed
from folkmoot.sandbox import ModelPart, Sampling, Sandbox, SandboxModel
from folkmoot.uncertainty import Ending, measure

MOST_SAMPLES = 1_000
"""As on a hub."""
MEASURES = ("variance", "std", "predictive_entropy", "expected_entropy", "mutual_info")
_DROPOUT = re.compile(r"mc-dropout:([0-9]{1,4})", re.ASCII)


def predict(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A model file, or the id of a model on the hub at FOLKMOOT_URL."),
    ],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Rows of numbers: .csv, .npy, a .safetensors or .pt file of one tensor; or a .png or .jpg.",
        ),
    ],
    architecture: Annotated[
        str | None, typer.Option(metavar="NAME", help="What a file of weights alone is put into.")
    ] = None,
    uncertainty: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help="none, or mc-dropout:N with N samples. On a hub the training decides."),
    ] = None,
    regression: Annotated[
        bool, typer.Option("--regression", help="A model file's outputs are values, and not classes.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Ask a model, and see how sure it is.

    Of each row the class and its probability, or the value; and its uncertainty where that is sampled. A model file is
    run by the sandbox, in a process that can do nothing but compute.

    Example: folkmoot predict model.pt rows.csv --uncertainty mc-dropout:50
    """
    if Path(model).is_file():
        predicted = _ask_file(Path(model), file, architecture, _sampling(uncertainty), is_regression=regression)
    elif _is_id(model):
        if architecture or uncertainty or regression:
            raise Misconfigured("--architecture, --uncertainty and --regression are for model files: a hub knows them")
        predicted = _ask_hub(model, file)
    else:
        raise Misconfigured(f"there is no file {model}, and it is not the id of a model on a hub")
    if as_json:
        typer.echo(json.dumps(predicted.as_json()))
    else:
        predicted.print()


def _sampling(given: str | None) -> Sampling:
    if given in (None, "none"):
        return Sampling()
    if given == "ensemble":
        raise Misconfigured("--uncertainty ensemble takes several models: ask a MEAN model on a hub")
    found = _DROPOUT.fullmatch(given or "")
    if found is None or not 2 <= int(found[1]) <= MOST_SAMPLES:
        raise Misconfigured(f"--uncertainty {given} is not known; there are none and mc-dropout:N, N from 2 to 1,000")
    return Sampling("MC_DROPOUT", int(found[1]))


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _ask_file(
    model: Path, file: Path, architecture: str | None, sampling: Sampling, *, is_regression: bool
) -> Predicted:
    rows = read_rows(file)
    with Sandbox() as sandbox:
        samples = sandbox.predict(SandboxModel("you", _part(model), architecture=architecture), rows, sampling)
    try:
        measures = measure(samples, Ending.VALUES if is_regression else None)
    except InvalidInput as error:
        raise ModelFailed(f"the model's outputs cannot be measured: {error.message}") from error
    found = {} if sampling.method == "NONE" else {name: getattr(measures, name) for name in MEASURES}
    known = {name: measured for name, measured in found.items() if measured is not None}
    return Predicted.of_mean(measures.mean, known, are_probabilities=measures.predictive_entropy is not None)


def _part(model: Path) -> ModelPart:
    try:
        with model.open("rb") as opened:
            return ModelPart(hashlib.file_digest(opened, "sha256").hexdigest(), model)
    except OSError as error:
        raise Misconfigured(f"{model} cannot be read: {error.strerror}") from error


def _ask_hub(model_id: str, file: Path) -> Predicted:
    # All else is for the hub to read, which knows what the model takes.
    inputs = read_csv(file) if file.suffix.lower() == ".csv" else file
    with Hub.from_env() as hub:
        answer = hub.predict(model_id, inputs)
    if not answer.uncertainty and answer.inference.dtype.kind == "i":
        return Predicted({}, classes=answer.inference)
    are_probabilities = "predictive_entropy" in answer.uncertainty
    return Predicted.of_mean(answer.inference, answer.uncertainty, are_probabilities=are_probabilities)
