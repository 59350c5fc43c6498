"""Smaller updates on the wire: fewer bits for each number, fewer numbers, differences, compression."""

from folkmoot.tensors.encodings.base import Base
from folkmoot.tensors.encodings.encoding import Encoding
from folkmoot.tensors.encodings.reading import decode, is_encoded, open_encoded
from folkmoot.tensors.encodings.writing import encode

__all__ = ["Base", "Encoding", "decode", "encode", "is_encoded", "open_encoded"]
