"""Named tensors and the files they live in."""

from folkmoot.tensors.finite import check_finite
from folkmoot.tensors.formats import FORMATS, Format, open_tensors, recognise
from folkmoot.tensors.limits import Limits
from folkmoot.tensors.schema import Schema, Tensors, TensorSpec, check_fits
from folkmoot.tensors.tensor_file import TensorFile, TensorFileWriter, WrittenFile, write_tensors

__all__ = [
    "FORMATS",
    "Format",
    "Limits",
    "Schema",
    "TensorFile",
    "TensorFileWriter",
    "TensorSpec",
    "Tensors",
    "WrittenFile",
    "check_finite",
    "check_fits",
    "open_tensors",
    "recognise",
    "write_tensors",
]
