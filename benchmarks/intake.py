"""How fast updates are taken in, against how fast this machine copies the same file and computes its SHA-256.

An update comes as a stream of bytes and is written down, hashed, recognised, compared with the model, searched for NaN,
given a checksum for each block, and adopted by the storage as a canonical file. Prints, for each format, seconds, the
share of the reference's speed, the time against that of safetensors, and by how much the process grew. The reference
reads and writes in pieces of 1 MiB; once it leaves the bytes to the system, once it waits for the disk as the hub does.
"""

# ruff: noqa: T201 (printing is what it is for)

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from folkmoot.tensors import FORMATS, Tensors, write_tensors

PIECE_BYTES = 1 << 20
FULL, QUICK = 100, 20


def main() -> None:
    options = parse_arguments()
    print(f"{options.megabytes} MB, best of {options.repeats}", file=sys.stderr)
    print(f"{'':>24} {'seconds':>8} {'of copying':>11} {'and fsync':>10} {'of safetensors':>15} {'memory MB':>10}")
    results = measure(options)
    copied, synced = results["copy"]["seconds"], results["copy and fsync"]["seconds"]
    own = results["safetensors"]["seconds"]
    for name, result in results.items():
        seconds = result["seconds"]
        ratios = f"{copied / seconds:>11.2f} {synced / seconds:>10.2f} {seconds / own:>15.2f}"
        print(f"{name:>24} {seconds:>8.3f} {ratios} {result['memory'] / 1e6:>10.0f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} MB instead of {FULL}")
    parser.add_argument("--megabytes", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to put the files (default: the system's temporary folder)")
    options = parser.parse_args()
    options.megabytes = options.megabytes or (QUICK if options.quick else FULL)
    return options


def measure(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        files = make_updates(folder, options.megabytes * 250_000)
        work: dict[str, tuple[Callable[..., dict[str, float]], Path]] = {
            "copy": (copy, files["safetensors"]),
            "copy and fsync": (copy_and_sync, files["safetensors"]),
            **{name: (take_in, path) for name, path in files.items()},
        }
        best: dict[str, dict[str, float]] = {}
        for _ in range(options.repeats):  # taking turns, so that all see the same moods of the machine
            for name, (function, path) in work.items():
                result = in_a_process(function, path, folder, files["safetensors"])
                best[name] = min(best.get(name, result), result, key=lambda each: each["seconds"])
        return best
    finally:
        shutil.rmtree(folder)


def make_updates(folder: Path, num_parameters: int) -> dict[str, Path]:
    """Write the same update in every format that is compared."""
    values = np.random.default_rng(0).standard_normal(num_parameters, dtype=np.float32)
    tensors = {"a": values[: num_parameters // 2], "b": values[num_parameters // 2 :]}
    names = ("safetensors", "safetensors, not ours", "torch", "npz", "npz, deflated")
    files = {name: folder / name for name in names}
    write_tensors(files["safetensors"], tensors)
    with_metadata(files["safetensors"], files["safetensors, not ours"])
    FORMATS["torch"].export(tensors, files["torch"])
    FORMATS["npz"].export(tensors, files["npz"])
    deflated(tensors, files["npz, deflated"])
    return files


def with_metadata(source: Path, target: Path) -> None:
    """The same tensors behind another header, as other programs write it."""
    content = source.read_bytes()
    size = 8 + int.from_bytes(content[:8], "little")
    header = b'{"__metadata__":{"format":"pt"},' + content[9:size]
    target.write_bytes(len(header).to_bytes(8, "little") + header + content[size:])


def deflated(tensors: Tensors, target: Path) -> None:
    # By numpy.savez_compressed, but quicker.
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in tensors.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array)


def copy(path: Path, folder: Path, model: Path) -> dict[str, float]:
    return _copy(path, folder, sync=False)


def copy_and_sync(path: Path, folder: Path, model: Path) -> dict[str, float]:
    return _copy(path, folder, sync=True)


def _copy(path: Path, folder: Path, *, sync: bool) -> dict[str, float]:
    target, digest, started = folder / "copy", hashlib.sha256(), time.perf_counter()
    with path.open("rb", buffering=0) as source, target.open("wb", buffering=0) as output:
        while piece := source.read(PIECE_BYTES):
            digest.update(piece)
            output.write(piece)
        if sync:
            os.fsync(output.fileno())
    return {"seconds": time.perf_counter() - started, "memory": 0.0}


def take_in(path: Path, folder: Path, model: Path) -> dict[str, float]:
    """Receive the file's bytes as from a request, and store the update."""
    with tempfile.TemporaryDirectory(dir=folder) as data:
        set_up_django(data)
        from folkmoot.server.registry.intake import Expected, store_update
        from folkmoot.server.storage import get_storage
        from folkmoot.server.storage.upload import IncomingFile
        from folkmoot.tensors import TensorFile

        get_storage().prepare()
        schema = TensorFile.open(model).schema
        before, started = memory("VmRSS"), time.perf_counter()
        with path.open("rb", buffering=0) as source, IncomingFile("update") as incoming:
            while piece := source.read(PIECE_BYTES):
                incoming.append(piece)
            store_update(incoming, expected=Expected(schema, schema))
        return {"seconds": time.perf_counter() - started, "memory": memory("VmHWM") - before}


def set_up_django(data: str) -> None:
    import django

    os.environ |= {"DJANGO_SETTINGS_MODULE": "folkmoot.server.settings", "FOLKMOOT_DATA_DIR": data}
    django.setup()


def memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def in_a_process(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


if __name__ == "__main__":
    main()
