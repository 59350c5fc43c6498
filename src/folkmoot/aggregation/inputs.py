"""Opening what is to be merged: every file is looked at before the first value is read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from folkmoot.aggregation.layout import Layout
from folkmoot.aggregation.pieces import Input
from folkmoot.aggregation.sources import Reader, opened
from folkmoot.aggregation.strategy import Source, Update
from folkmoot.errors import AggregationFailed, DamagedUpdate, InvalidFile, InvalidValue, SchemaMismatch, Unavailable
from folkmoot.tensors import Schema, TensorFile, check_fits
from folkmoot.tensors.checksums import BLOCK_BYTES, CHECKSUM_BYTES
from folkmoot.tensors.limits import TRUSTED

MODEL = "the model that the round began with"
STATE = "the strategy's state"


def in_order_of_ids(updates: Iterable[Update]) -> Sequence[Update]:
    """Raises AggregationFailed where there are none, InvalidValue for an id that comes twice, or no examples."""
    ordered = sorted(updates, key=lambda update: update.id)
    if not ordered:
        raise AggregationFailed("there are no updates to aggregate")
    for update, following in pairwise(ordered):
        if update.id == following.id:
            raise InvalidValue(f"two updates have the id {update.id}")
    for update in ordered:
        is_number = isinstance(update.num_examples, int | np.integer) and not isinstance(update.num_examples, bool)
        if not is_number or update.num_examples <= 0:
            raise InvalidValue(f"update {update.id} has num_examples {update.num_examples!r}, expected at least 1")
    return ordered


def open_model(base: Path) -> TensorFile:
    """Raises AggregationFailed for one that is not canonical, and Unavailable."""
    model = _open(base, MODEL)
    if not model.is_canonical:
        raise AggregationFailed(f"{MODEL} is not a canonical file")
    return model


def reader_of_model(base: Path | Source) -> Reader:
    return Reader(MODEL, opened(base, MODEL))


def open_state(state: Path, layout: Layout) -> Reader:
    """Raises SchemaMismatch for that of another strategy or model, and Unavailable."""
    check_fits(layout.state, _open(state, STATE).schema, what=STATE)
    return Reader(STATE, opened(state, STATE))


def open_updates(updates: Sequence[Update], model: TensorFile, layout: Layout) -> list[Input]:
    """Each with its number of examples as its weight; raises what `aggregate_files` does."""
    bases = {update.base: _open_base(update, update.base, model) for update in updates if update.base is not None}
    header = layout.update.header()
    inputs = []
    for number, update in enumerate(updates, start=len(bases)):
        reader = Reader.of(update, number)
        _check_layout(reader, header, layout.update, update)
        base = None if update.base is None else bases[update.base]
        inputs.append(Input(reader, float(update.num_examples), 0.0, base=base))
    return inputs


def _open(path: Path, what: str) -> TensorFile:
    try:
        return TensorFile.open(path, limits=TRUSTED)
    except OSError as error:
        raise Unavailable(f"{what} cannot be read: {error.strerror}") from error


def _open_base(update: Update, base: Path | Source, model: TensorFile) -> Reader:
    reader = reader_of_model(base)
    if reader.size != model.num_bytes or reader.copy(0, model.data_offset) != model.header:
        raise SchemaMismatch(f"the model that update {update.id} began with has another layout")
    return reader


def _check_layout(reader: Reader, header: bytes, schema: Schema, update: Update) -> None:
    what = f"update {update.id}"
    if update.checksums and len(update.checksums) != -(-schema.num_bytes // BLOCK_BYTES) * CHECKSUM_BYTES:
        raise DamagedUpdate(f"{what} is damaged: its checksums are not of so many bytes", update_id=update.id)
    if reader.size == len(header) + schema.num_bytes and reader.copy(0, len(header)) == header:
        return
    if update.checksums:  # it had the layout when these were made
        raise DamagedUpdate(f"{what} is damaged: it does not begin as it did when it came in", update_id=update.id)
    if isinstance(update.path, Path):
        try:
            check_fits(schema, TensorFile.open(update.path, limits=TRUSTED).schema, what=what)
        except InvalidFile as error:
            raise SchemaMismatch(f"{what} is damaged: {error.message}") from error
    raise SchemaMismatch(f"{what} does not have the byte layout of the model")
