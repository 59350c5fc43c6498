"""Making the next model of a round by many workers: a shard each, and in the end the whole, read once.

A pass is a row. Whoever begins another for the same round takes its place, and what still comes of the first has no
effect. Each shard is an event of a subject of its own, so that no shard waits for another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from uuid import UUID, uuid4

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from folkmoot.aggregation import Scores
from folkmoot.aggregation.shards import Shard, aggregate_shard, can_be_sharded, shards_of
from folkmoot.errors import DamagedUpdate, Internal
from folkmoot.protocol.states import RoundState
from folkmoot.server.faults import fault_point
from folkmoot.server.outbox.events import record
from folkmoot.server.registry import checkpoints
from folkmoot.server.registry.intake import StoredFile
from folkmoot.server.storage import get_storage
from folkmoot.server.storage.assembly import Assembled, Assembly
from folkmoot.server.trainings import exchange, lifecycle, rounds
from folkmoot.server.trainings.models import Round, ShardedPass, Update
from folkmoot.server.trainings.provenance import provenance_of
from folkmoot.server.trainings.recipes import Recipe, as_updates, checksums_of, opened_bases, recipe_of
from folkmoot.server.trainings.strategies import strategy_of
from folkmoot.tensors.checksums import BlockChecksums
from folkmoot.tensors.replacing import naming_full_disk
from folkmoot.tensors.schema import Schema

MOST_SHARDS = 10_000
"""No store joins more parts."""


class _PartsLost(Exception):
    """The store knows no more of the pass: another took its place, or its parts are lost."""


def begin(training_id: UUID, number: int) -> bool:
    """Have the round aggregated in shards, from the start; False where it is not wanted, or goes better as a whole."""
    assembly = get_storage().assembly
    current = rounds.full_round(training_id, number) if assembly else None
    if current is None or assembly is None or not can_be_sharded(strategy_of(current.training, scored=False)):
        return False
    travelling = _travelling(current)
    shard_bytes = max(settings.SHARD_BYTES, -(-2 * travelling.num_bytes // MOST_SHARDS))
    shards = shards_of(travelling, shard_bytes)
    if len(shards) < 2:
        return False
    inputs = [str(update.pk) for update in rounds.inputs_of(current)]
    file = assembly.begin()
    with transaction.atomic():
        ShardedPass.objects.filter(round=current).delete()
        begun = ShardedPass.objects.create(
            round=current,
            key=file.key,
            upload=file.upload,
            shard_bytes=shard_bytes,
            num_shards=len(shards),
            inputs=inputs,
        )
        for shard in range(len(shards)):
            facts = {"training": str(training_id), "round": number, "pass": str(begun.pk), "shard": shard}
            record(uuid4(), "shard_wanted", facts)
    return True


def aggregate(pass_id: UUID, number: int) -> None:
    """Aggregate one shard, if that is still wanted; the last one has the whole finished.

    Raises what `rounds.aggregate` raises. An update that is damaged is left out, and the round aggregated anew.
    """
    begun = _pass(pass_id)
    if begun is None or number in begun.done:
        return
    inputs = _inputs(begun)
    try:
        scores = _written(begun, inputs, number)
    except DamagedUpdate as damage:
        rounds.reject(begun.round, inputs, damage)
        _begin_anew(begun)
    except _PartsLost:
        _begin_anew(begun)
    else:
        fault_point("shard_wanted.before_commit")
        _note_done(begun, number, scores)


def finish(training_id: UUID, number: int) -> bool:
    """Join the shards and make them the round's model; False where the round has to be aggregated anew."""
    begun = ShardedPass.objects.filter(round__training=training_id, round__number=number).first()
    begun = _pass(begun.pk) if begun else None
    if begun is None or len(begun.done) < begun.num_shards:
        return True
    inputs = _inputs(begun)
    try:
        tensors = _joined(begun)
    except FileNotFoundError:
        return False
    fault_point("round_full.blob_written")
    current = begun.round
    beneath, facts = exchange.beneath_next(current.training), provenance_of(_recipe(current, inputs), tensors)
    scores = {update.pk: Scores(**begun.scores[str(update.pk)]) for update in inputs}
    is_used = lifecycle.finish_aggregation(current, tensors, beneath=beneath, scores=scores, facts=facts)
    if is_used:
        begun.delete()
    return is_used


def needed_keys() -> set[str]:
    """Of files in the making."""
    return set(_awaited().values_list("key", flat=True))


def is_awaited(pass_id: UUID) -> bool:
    """Whether what becomes of the pass's shards still matters."""
    return _awaited().filter(pk=pass_id).exists()


def _pass(pass_id: UUID) -> ShardedPass | None:
    """The pass, if its round still waits for it."""
    return _awaited().select_related("round__training__model").filter(pk=pass_id).first()


def _awaited() -> QuerySet[ShardedPass]:
    return ShardedPass.objects.filter(round__state=RoundState.AGGREGATING, round__aggregated_at=None)


def _inputs(begun: ShardedPass) -> Sequence[Update]:
    return list(Update.objects.filter(pk__in=begun.inputs).select_related("round", "counted_in"))


def _model(current: Round) -> Schema:
    return checkpoints.schema_of(current.training.model.latest_checkpoint)


def _recipe(current: Round, inputs: Sequence[Update]) -> Recipe:
    """Without scores, which are sums over whole updates, unless they were asked for."""
    return recipe_of(current, inputs, scored=False)


def _travelling(current: Round) -> Schema:
    return exchange.travelling(current.training, _model(current))


def _written(begun: ShardedPass, inputs: Sequence[Update], number: int) -> dict[str, Scores]:
    """Aggregate the shard and send it to where the others are; return the updates' scores."""
    current, storage = begun.round, get_storage()
    recipe, checksums = _recipe(current, inputs), checksums_of(current, inputs)
    shard: Shard = shards_of(_travelling(current), begun.shard_bytes)[number]
    with opened_bases(recipe, checksums) as begun_with, storage.draft() as draft:
        with naming_full_disk(f"a part of checkpoint {current.number + 1}"), draft.open("wb") as output:
            updates, base = as_updates(recipe, begun_with, checksums), begun_with[recipe.bases[-1].round]
            scores = aggregate_shard(recipe.made_strategy(), base, updates, shard, output)
        fault_point("shard_wanted.summed")
        try:
            _assembly().put(_file(begun), number, draft)
        except FileNotFoundError as error:
            raise _PartsLost from error
    return {str(update): found for update, found in recipe.by_update(scores).items()}


@transaction.atomic
def _note_done(begun: ShardedPass, number: int, scores: dict[str, Scores]) -> None:
    same = ShardedPass.objects.select_for_update().filter(pk=begun.pk).first()
    if same is None or number in same.done:
        return
    same.done = sorted([*same.done, number])
    same.scores = {update: asdict(each) for update, each in scores.items()}
    same.save(update_fields=["done", "scores"])
    if len(same.done) == same.num_shards:
        record(begun.round.training_id, "shards_done", {"round": begun.round.number})


@transaction.atomic
def _begin_anew(begun: ShardedPass) -> None:
    if ShardedPass.objects.filter(pk=begun.pk).delete()[0]:
        record(begun.round.training_id, "shards_void", {"round": begun.round.number})


def _joined(begun: ShardedPass) -> StoredFile:
    """Read the whole once for its digest and its blocks' checksums, and have the store put it where blobs are."""
    schema = _travelling(begun.round)
    header = len(schema.header())
    digest, checksums, num_bytes = hashlib.sha256(), BlockChecksums(), 0
    for block in _assembly().joined(_file(begun)):
        digest.update(block)
        checksums.update(memoryview(block)[max(0, header - num_bytes) :])
        num_bytes += len(block)
    if num_bytes != header + schema.num_bytes:
        raise Internal(f"the shards of {begun.round} have {num_bytes} bytes in all")
    _assembly().adopt(_file(begun), digest.hexdigest())
    return StoredFile(digest.hexdigest(), num_bytes, checksums.digest())


def _file(begun: ShardedPass) -> Assembled:
    return Assembled(begun.key, begun.upload)


def _assembly() -> Assembly:
    assembly = get_storage().assembly
    if assembly is None:
        raise Internal("files are kept in a folder now, and a round's shards in an S3-compatible store")
    return assembly
