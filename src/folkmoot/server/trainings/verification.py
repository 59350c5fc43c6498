"""Making a round's model, and its moments, once more of the files that are kept, to see that the same comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from folkmoot.errors import FolkmootError, InvalidValue, Unavailable
from folkmoot.protocol.rounds import ordinal
from folkmoot.server.registry import checkpoints
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings import merging
from folkmoot.server.trainings.merging import Merging
from folkmoot.server.trainings.recipes import Recipe, carry_out


class Outcome(StrEnum):
    OK = "ok"
    DIFFERS = "differs"
    NOT_KEPT = "not kept"


@dataclass(frozen=True)
class Verdict:
    """Of one round; `detail` is a sentence's part, empty if all is well."""

    round: int
    outcome: Outcome
    detail: str = ""


def verify(manifest: Mapping[str, Any], *, round: int | None = None) -> Iterator[Verdict]:
    """Of each round that made a model, or of the one that is asked for.

    Raises InvalidValue for what is no manifest or has no such round, and Unavailable where files cannot be read.
    """
    made = [each for each in _rounds(manifest) if "recipe" in each and round in (None, each.get("number"))]
    if round is not None and not made:
        raise InvalidValue(f"the manifest tells of no model that was made in round {ordinal(round)}")
    for each in made:
        yield _verdict(_Made.of(each))


def _rounds(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rounds = manifest.get("rounds") if isinstance(manifest, Mapping) else None
    if not isinstance(rounds, list) or not all(isinstance(each, Mapping) for each in rounds):
        raise InvalidValue("this is no manifest of a training")
    return rounds


@dataclass(frozen=True)
class _Made:
    """What a manifest says that a round's model and its moments were made of, and the digests of what came of it."""

    number: int
    recipe: Recipe
    merging: Merging | None
    digests: Mapping[str, str | None]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        try:
            state, moments = facts["new_state"], facts.get("moments")
            digests = {"checkpoint": facts["output"]["sha256"], "state": state["sha256"] if state else None}
            if moments:
                digests["file of moments"] = moments["output"]["sha256"]
            merged = Merging.of(moments) if moments else None
            return cls(int(facts["number"]), Recipe.of(facts["recipe"]), merged, digests)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidValue("this is no manifest of a training") from error

    def files(self) -> Iterator[tuple[str, str]]:
        yield from self.recipe.files()
        if self.merging:
            yield from self.merging.files()


def _verdict(made: _Made) -> Verdict:
    for sha256, what in made.files():
        if not _is_there(sha256):
            return Verdict(made.number, Outcome.NOT_KEPT, what)
        if not get_storage().is_intact(sha256):
            return Verdict(made.number, Outcome.DIFFERS, f"{what} is damaged")
    try:
        found = _made_again(made)
    except Unavailable:
        raise
    except FolkmootError as error:
        return Verdict(made.number, Outcome.DIFFERS, error.message)
    for what, recorded in made.digests.items():
        if found[what] != recorded:
            return Verdict(made.number, Outcome.DIFFERS, f"the {what} comes out as {found[what]}, and was {recorded}")
    return Verdict(made.number, Outcome.OK)


def _made_again(made: _Made) -> dict[str, str | None]:
    """The digests that come out now."""
    with get_storage().draft() as draft, get_storage().draft() as state_draft:
        report = carry_out(made.recipe, draft, state_draft, checksums={})
        found = {"checkpoint": report.sha256, "state": report.state.sha256 if report.state else None}
    if made.merging:
        schema = checkpoints.open_blob(made.merging.inputs[0].sha256).schema
        with get_storage().draft() as draft:
            report = merging.carry_out(made.merging, draft, schema=schema, checksums={})
        found["file of moments"] = report.sha256
    return found


def _is_there(sha256: str) -> bool:
    try:
        with get_storage().file(sha256):
            return True
    except FileNotFoundError:
        return False
