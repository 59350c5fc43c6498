"""The members of a torch archive, under their paths below the one folder that all of them lie in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from folkmoot.errors import InvalidFile, TooLarge, UnsupportedContainer
from folkmoot.tensors.formats.zip_archive import STORED, Member, ZipArchive
from folkmoot.tensors.limits import Limits

_PART = r"(?!\.\.?(?:/|$))[^/\\\x00-\x1f]+"
_PATH = re.compile(rf"({_PART})/({_PART}(?:/{_PART})*)")
_STORAGE = "data/"
_CODE = re.compile(r"code/(.+)\.py")


class TorchArchive:
    """A zip archive laid out as torch does it: `<root>/data.pkl`, `<root>/data/0`, `<root>/code/...`."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.zip = ZipArchive(path, limits)
        self._limits = limits
        self._header_bytes_left = limits.max_header_bytes
        self._members = _by_path(self.zip.members)
        self._verified: set[Member] = set()
        if "data.pkl" not in self._members:
            raise UnsupportedContainer(
                "this zip archive is not taken: it holds no data.pkl, as those of torch.save and torch.jit.save do, "
                "and no .npy files"
            )
        self._check_stored()
        if "byteorder" in self._members and self.content("byteorder") != b"little":
            raise InvalidFile("the file was saved on a big-endian machine; such files are not taken")

    @property
    def is_script(self) -> bool:
        """By the same sign as torch tells TorchScript from the rest."""
        return "constants.pkl" in self._members

    def storages(self) -> dict[str, Member]:
        """The storages, by their keys."""
        start = len(_STORAGE)
        return {path[start:]: member for path, member in self._members.items() if path.startswith(_STORAGE)}

    def verify(self, member: Member) -> None:
        """Compare the checksum, the first time; raises InvalidFile."""
        if member not in self._verified:
            for _ in self.zip.chunks(member):
                pass
            self._verified.add(member)

    def content(self, path: str) -> bytearray:
        """A whole member; raises TooLarge once all that was asked for is more than a header may have."""
        member = self._members[path]
        self._header_bytes_left -= member.num_bytes
        if self._header_bytes_left < 0:
            raise TooLarge(f"pickle and code have more than {self._limits.max_header_bytes} bytes")
        content = bytearray()
        for chunk in self.zip.chunks(member):
            content += chunk
        return content

    def _check_stored(self) -> None:
        for path, member in self._members.items():
            if path.startswith("data") and member.method != STORED:
                raise InvalidFile(f"{path} is compressed; torch stores it as it is")

    def sources(self) -> Iterator[tuple[str, bytearray]]:
        """Yield the dotted name and the content of each file of TorchScript code."""
        for path in self._members:
            if match := _CODE.fullmatch(path):
                yield match[1].replace("/", "."), self.content(path)


def _by_path(members: list[Member]) -> dict[str, Member]:
    """Find the paths below the root; raises InvalidFile for names that another reader might take for other ones."""
    found = {}
    roots = set()
    for member in members:
        match = _PATH.fullmatch(member.name)
        if not match:
            raise InvalidFile(f"{member.name[:100]!a} is no name for a member of a torch file")
        roots.add(match[1])
        found[match[2]] = member
    # torch finds members whatever their case is: of data.pkl and DATA.PKL it might run the other.
    if len(roots) > 1 or len({path.lower() for path in found}) < len(found):
        raise InvalidFile("the members of the archive are not in one folder under names that differ")
    return found
