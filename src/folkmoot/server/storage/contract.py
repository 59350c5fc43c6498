"""What every storage does: blobs under their SHA-256, and local files on their way in."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from folkmoot.aggregation.strategy import Source
from folkmoot.server.storage.age import old_ones
from folkmoot.server.storage.assembly import Assembly


class Storage(ABC):
    """Blobs, each written once and never changed; `root` is a folder of this machine.

    Wherever blobs are, files that come in or are being made are below `root`: `<root>/incoming` has those of one
    process, `<root>/partial` those of uploads that come in chunks, which outlive it. What speaks to another machine
    raises Unavailable where that does not answer.
    """

    assembly: Assembly | None = None
    """For files that many machines write a part of; None where all are on one disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._partial = root / "partial"

    def prepare(self) -> None:
        """Make the folders."""
        self._incoming.mkdir(parents=True, exist_ok=True)
        self._partial.mkdir(exist_ok=True)

    def remove_leftovers(self, *, older_than: float = 0) -> None:
        """Remove what was left half-way and has not changed for so many seconds; with 0, nothing may be coming in."""
        for leftover in old_ones(self._incoming.iterdir(), older_than):
            leftover.unlink(missing_ok=True)

    def new_incoming(self) -> Path:
        """A path for a file on its way in."""
        return self._incoming / uuid.uuid4().hex

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Such a path, whose file is removed at the end unless it was adopted."""
        draft = self.new_incoming()
        try:
            yield draft
        finally:
            draft.unlink(missing_ok=True)

    def partial(self, name: str) -> Path:
        """Where the file of an upload in chunks is, or would be."""
        return self._partial / name

    def partials(self) -> Iterator[Path]:
        return self._partial.iterdir()

    @abstractmethod
    def adopt(self, incoming: Path, sha256: str) -> None:
        """Take a complete, fsynced file in under its digest; it survives a power cut once this returns.

        Bytes that are here already count as new for the sweep. The incoming file is gone then.
        """

    @abstractmethod
    def file(self, sha256: str) -> AbstractContextManager[Path]:
        """A path at which the blob's bytes are while the block lasts; what is opened or mapped there stays readable.

        Raises FileNotFoundError if there is no such blob.
        """

    @abstractmethod
    def sources(self, digests: Sequence[str]) -> list[Path | Source]:
        """What an aggregation reads these blobs from, all at once; for one that is gone a path where nothing is."""

    @abstractmethod
    def is_intact(self, sha256: str) -> bool:
        """Whether the blob is there and has the bytes of its name."""

    @abstractmethod
    def distrust(self, sha256: str) -> None:
        """Look whether the blob is damaged; if so, the same bytes are written anew when they are adopted again."""

    @abstractmethod
    def remove_orphans(self, *, older_than: float, needed: Callable[[], set[str]]) -> None:
        """Remove what has been here for so many seconds and is not among the digests that are `needed`.

        These are asked for after the old ones are known. A blob that is adopted at any moment stays, if a row refers
        to it before it is as old as that.
        """

    @abstractmethod
    def check(self) -> str:
        """See that blobs can be written, leaving nothing behind; say in a few words where they are.

        Raises Misconfigured, Unavailable.
        """

    @abstractmethod
    def answers(self) -> bool:
        """Whether blobs can be written, as far as can be told within seconds and without writing one."""
