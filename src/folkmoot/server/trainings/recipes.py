"""All that a round's model is made of, by digests, and the one way to make it: in the round, and to verify it later."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from django.conf import settings

from folkmoot.aggregation import Report, Scores, Source, Strategy, aggregate_files, find_strategy, parameters_of
from folkmoot.aggregation import Update as AggregationUpdate
from folkmoot.aggregation.sources import FileSource
from folkmoot.errors import AggregationFailed, InvalidValue
from folkmoot.server.faults import fault_point
from folkmoot.server.registry import checkpoints
from folkmoot.server.registry.models import Checkpoint, Phase
from folkmoot.server.storage import get_storage
from folkmoot.server.trainings.models import Round, Training, Update
from folkmoot.server.trainings.strategies import options_of_strategy
from folkmoot.tensors.checksums import block_checksums
from folkmoot.tensors.layers import Selected
from folkmoot.tensors.selection import select
from folkmoot.tensors.tensor_file import write_tensors

Checksums = Mapping[str, bytes]
"""Of blocks (see tensors/checksums.py), by the SHA-256 of their file."""


@dataclass(frozen=True)
class Base:
    """The checkpoint after `round` rounds, with the files of what did not travel beneath it."""

    round: int
    sha256: str
    beneath: Sequence[str] = ()


@dataclass(frozen=True)
class Input:
    """An update; `round` is the one that it was begun in, `staleness` rounds before the one that it counts in."""

    update: str
    participant: str
    round: int
    staleness: int
    sha256: str
    num_examples: int
    metrics: Mapping[str, float]

    @property
    def id(self) -> str:
        """By the participant's id: the order in which updates are summed does not depend on when they came."""
        return f"{self.participant}@{self.round}" if self.staleness else self.participant


@dataclass(frozen=True)
class Recipe:
    """`bases` are the checkpoints that updates were begun with, the round's own last; `inputs` are in their order.

    `state` is the digest of what the strategy goes on with, empty where there is nothing.
    """

    strategy: str
    parameters: Mapping[str, Any]
    exchange: Sequence[str]
    bases: Sequence[Base]
    state: str
    inputs: Sequence[Input]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Self:
        """Read what `as_json` wrote; raises InvalidValue for anything else."""
        try:
            bases = [Base(**each) for each in facts["bases"]]
            inputs = [Input(**each) for each in facts["inputs"]]
            recipe = cls(**{**facts, "bases": bases, "inputs": inputs})
            is_sound = bool(recipe.bases) and names_files(recipe.files())
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidValue("this is no recipe of a round as a manifest has it") from error
        if not is_sound:
            raise InvalidValue("the recipe of a round names a file by something other than a SHA-256")
        return recipe

    def made_strategy(self) -> Strategy:
        return find_strategy(self.strategy, self.parameters)

    def by_update(self, scores: Mapping[str, Scores]) -> dict[UUID, Scores]:
        """Scores by the ids of the rows, where they were by those of the aggregation."""
        return {UUID(each.update): scores[each.id] for each in self.inputs}

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    def files(self) -> Iterator[tuple[str, str]]:
        """The digest of each file that is needed, and what it is."""
        for base in self.bases:
            for digest in (base.sha256, *base.beneath):
                yield digest, f"checkpoint {base.round}"
        if self.state:
            yield self.state, "the strategy's state"
        for each in self.inputs:
            yield each.sha256, f"update {each.update}"


def names_files(files: Iterable[tuple[str, str]]) -> bool:
    """Whether each of these digests, of which a manifest may have any, is one: files go by nothing else."""
    return all(re.fullmatch("[0-9a-f]{64}", str(digest)) for digest, _ in files)


def recipe_of(current: Round, updates: Sequence[Update], *, scored: bool = True) -> Recipe:
    """What the round's model is to be made of, if these are its updates; `scored` as for the strategy."""
    training = current.training
    base = training.model.latest_checkpoint
    stale = {update.round.number for update in updates if update.staleness}
    begun_with = [*training.model.checkpoints.filter(round__in=stale).order_by("round"), base]
    metrics = _metrics_of(training, {update.round.number for update in updates})
    return Recipe(
        strategy=training.aggregation_method,
        parameters=parameters_of(training.aggregation_method, options_of_strategy(training, scored=scored)),
        exchange=list(training.settings.exchange),
        bases=[Base(each.round, each.sha256, list(each.beneath)) for each in begun_with],
        state=base.state_sha256,
        inputs=sorted((_input_of(each, metrics) for each in updates), key=lambda each: each.id),
    )


def checksums_of(current: Round, updates: Sequence[Update]) -> Checksums:
    """Of the files that the round's recipe names, as they were when these came in."""
    rounds = {current.training.model.round, *(update.round.number for update in updates if update.staleness)}
    begun_with = current.training.model.checkpoints.filter(round__in=rounds)
    known = dict(begun_with.values_list("sha256", "checksums"))
    return {sha256: bytes(each) for sha256, each in known.items()} | {
        update.sha256: bytes(update.checksums) for update in updates
    }


def carry_out(recipe: Recipe, output: Path, state_output: Path, *, checksums: Checksums) -> Report:
    """Write the next model to `output` and, where the strategy keeps any, its state to `state_output`.

    Raises what `aggregate_files` raises, and AggregationFailed where a checkpoint or the state is damaged.
    """
    strategy, storage = recipe.made_strategy(), get_storage()
    with ExitStack() as stack:
        begun_with = stack.enter_context(opened_bases(recipe, checksums))
        if recipe.state and not storage.is_intact(recipe.state):
            raise AggregationFailed(f"the state of checkpoint {recipe.bases[-1].round} is damaged, or gone")
        report = aggregate_files(
            strategy,
            begun_with[recipe.bases[-1].round],
            as_updates(recipe, begun_with, checksums),
            output,
            state=stack.enter_context(storage.file(recipe.state)) if recipe.state else None,
            state_output=state_output if strategy.keeps_state else None,
        )
        fault_point("round_full.summed")
    return report


@contextmanager
def opened_bases(recipe: Recipe, checksums: Checksums) -> Iterator[Mapping[int, Path]]:
    """The files that the round and its stale updates began with, by the numbers of their rounds.

    Raises AggregationFailed where one has other checksums.
    """
    with ExitStack() as stack:
        yield {each.round: stack.enter_context(_begun_with(each, recipe, checksums)) for each in recipe.bases}


def as_updates(recipe: Recipe, begun_with: Mapping[int, Path], checksums: Checksums) -> Sequence[AggregationUpdate]:
    """The updates as the aggregation takes them."""
    sources = get_storage().sources([each.sha256 for each in recipe.inputs])
    each_with_source = zip(recipe.inputs, sources, strict=True)
    return [_as_update(each, source, begun_with, checksums) for each, source in each_with_source]


def _input_of(update: Update, metrics: Metrics) -> Input:
    return Input(
        update=str(update.pk),
        participant=str(update.participant_id),
        round=update.round.number,
        staleness=update.staleness,
        sha256=update.sha256,
        num_examples=update.num_examples,
        metrics=dict(metrics.get((update.participant_id, update.round.number), {})),
    )


@contextmanager
def _begun_with(base: Base, recipe: Recipe, checksums: Checksums) -> Iterator[Path]:
    """The file of the tensors that travel, as they were then: the checkpoint's own, or one made of it."""
    own = checkpoints.open_blob(base.sha256)
    if checksums.get(base.sha256) and block_checksums(own.data) != checksums[base.sha256]:
        raise AggregationFailed(f"checkpoint {base.round} is damaged: its bytes are not those that were written")
    tensors = checkpoints.tensors_of(Checkpoint(sha256=base.sha256, beneath=list(base.beneath)))
    travelling = select(tensors.schema, recipe.exchange) if recipe.exchange else tensors.schema
    if own.schema == travelling:
        with get_storage().file(base.sha256) as path:
            yield path
        return
    with get_storage().draft() as draft:
        write_tensors(draft, Selected(tensors, travelling))
        yield draft


Metrics = Mapping[tuple[UUID, int], Mapping[str, float]]


def _metrics_of(training: Training, numbers: Collection[int]) -> Metrics:
    """The numbers that came with updates, by participant and round; the last where a name came several times."""
    sent = training.model.metrics.filter(phase=Phase.TRAIN, step__in=numbers)
    found: dict[tuple[UUID, int], dict[str, float]] = defaultdict(dict)
    for reporter, step, name, value in sent.order_by("id").values_list("reporter", "step", "key", "value_float"):
        if value is not None:
            found[reporter, step][name] = value
    return found


def _as_update(
    each: Input, source: Path | Source, begun_with: Mapping[int, Path], checksums: Checksums
) -> AggregationUpdate:
    return AggregationUpdate(
        id=each.id,
        path=_FaultySource(source) if settings.TEST_FAULT else source,
        num_examples=each.num_examples,
        metrics=each.metrics,
        base=begun_with[each.round] if each.staleness else None,
        staleness=each.staleness,
        checksums=checksums.get(each.sha256, b""),
    )


class _FaultySource:
    """A file in the middle of which a test may have the process killed."""

    def __init__(self, where: Path | Source) -> None:
        self._source = FileSource(where) if isinstance(where, Path) else where
        self.size = self._source.size

    def read_into(self, offset: int, buffer: memoryview) -> None:
        self._source.read_into(offset, buffer)
        fault_point("round_full.loaded")
