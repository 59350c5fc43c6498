"""Good files of every format, cut off and changed by a byte, at places that are spread over them."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np

from hostile_files import onnx_files, safetensors_files, torch_files
from hostile_files.row import Row, either

TENSORS = {"weight": np.arange(6, dtype="f4").reshape(2, 3), "steps": np.array(3)}


def saved(save) -> bytes:
    file = io.BytesIO()
    save(file, **TENSORS)
    return file.getvalue()


GOOD = {
    "safetensors": safetensors_files.values(TENSORS["weight"], "F32"),
    "npz": saved(np.savez),
    "compressed npz": saved(np.savez_compressed),
    "ONNX": onnx_files.in_graph(onnx_files.attribute(5, onnx_files.TENSOR)),
    "torch": torch_files.torch_file(),
    "TorchScript": torch_files.script(""),
}
PLACES = 12


def spread(content: bytes) -> Iterator[int]:
    return iter(np.linspace(0, len(content) - 1, PLACES).astype(int).tolist())


def damaged() -> Iterator[tuple[str, Row]]:
    for name, content in GOOD.items():
        for place in spread(content):
            yield f"U18 {name} cut off at {place}", either(content[:place])
            changed = content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]
            yield f"U18 {name} with another byte at {place}", either(changed)


FILES = dict(damaged())
