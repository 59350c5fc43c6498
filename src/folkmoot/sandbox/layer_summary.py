"""The table of a module's layers: what goes in and out, parameters, multiplications. The fields are torchinfo's.

Source: https://github.com/TylerYep/torchinfo, layer_info.py and model_statistics.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, dtype
    from torch.nn import Module

_RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
_MOST_LAYERS = 10_000


def summarise(module: Module, shape: tuple[int | None, ...], dtype: dtype | None) -> dict[str, Any] | None:
    """Run one pass on zeros, with 1 in the place of every free dimension; None where the module does not take that."""
    import torch

    size = [1 if each is None else each for each in shape]
    zeros = torch.zeros(size, dtype=dtype)
    table = _Table(module)
    try:
        table.watch(zeros)
    except Exception:  # a model may raise anything
        return None
    return _totals(table.layers, zeros)


class _Table:
    """One entry for each place that a module has, in the order of the tree; `layers` are complete after `watch`."""

    def __init__(self, module: Module) -> None:
        self._root = module
        self._counts: Counter[int] = Counter()
        self._entries: dict[int, dict[str, Any]] = {}
        self.layers = list(self._walk(module, "", 0))

    def watch(self, zeros: Tensor) -> None:
        import torch

        if isinstance(self._root, torch.jit.ScriptModule):
            self._run_script(self._root, zeros)
            return
        hooks = [module.register_forward_hook(self._note) for module in self._root.modules()]
        try:
            self._root(zeros)
        finally:
            for hook in hooks:
                hook.remove()

    def _walk(self, module: Module, name: str, depth: int) -> Iterator[dict[str, Any]]:
        if sum(self._counts.values()) > _MOST_LAYERS:
            return
        self._counts[depth] += 1
        entry = _entry(module, name, depth, self._counts[depth])
        entry["is_recursive"] = id(module) in self._entries
        self._entries.setdefault(id(module), entry)
        yield entry
        for child_name, child in module._modules.items():
            if child is not None:
                yield from self._walk(child, child_name, depth + 1)

    def _note(self, module: Module, inputs: Any, output: Any) -> None:
        entry = self._entries[id(module)]
        entry["executed"] = True
        entry["input_size"], entry["output_size"] = _size(inputs), _size(output)
        entry["output_bytes"] = _bytes(output)
        entry["macs"] = _multiplications(module, entry)

    def _run_script(self, module: Module, inputs: Any) -> Any:
        """TorchScript calls no hooks on what lies within, but a sequence can be run part by part."""
        if _class_name(module) != "Sequential":
            output = module(inputs)
        else:
            output = inputs
            for child in module.children():
                output = self._run_script(child, output)
        self._note(module, (inputs,), output)
        return output


def _entry(module: Module, name: str, depth: int, index: int) -> dict[str, Any]:
    parameters = list(module.parameters())
    return {
        "class_name": _class_name(module),
        "var_name": name,
        "depth": depth,
        "depth_index": index,
        "is_leaf_layer": not any(True for _ in module.children()),
        "is_recursive": False,
        "executed": False,
        "input_size": [],
        "output_size": [],
        "kernel_size": _kernel_size(module),
        "num_params": sum(each.numel() for each in parameters),
        "trainable_params": sum(each.numel() for each in parameters if each.requires_grad),
        "param_bytes": sum(each.nbytes for each in parameters),
        "output_bytes": 0,
        "macs": 0,
    }


def _totals(layers: list[dict[str, Any]], zeros: Tensor) -> dict[str, Any]:
    root, leaves = layers[0], [layer for layer in layers if layer["is_leaf_layer"]]
    return {
        "input_size": list(zeros.shape),
        "total_input": zeros.nbytes,
        "total_mult_adds": sum(layer["macs"] for layer in leaves),
        # As torchinfo has it: what has parameters keeps its output for the gradients too.
        "total_output_bytes": sum(2 * layer["output_bytes"] for layer in leaves if layer["num_params"]),
        "total_param_bytes": root["param_bytes"],
        "total_params": root["num_params"],
        "trainable_params": root["trainable_params"],
        "summary_list": layers,
    }


def _class_name(module: Module) -> str:
    return str(getattr(module, "original_name", type(module).__name__))


def _kernel_size(module: Module) -> list[int]:
    weight = getattr(module, "weight", None)
    return list(weight.shape[2:]) if "Conv" in _class_name(module) and weight is not None else []


def _multiplications(module: Module, entry: dict[str, Any]) -> int:
    """Every parameter once for each place at which it is used: of a convolution, at each pixel of the output."""
    size, name = entry["output_size"], entry["class_name"]
    if not entry["is_leaf_layer"] or not size:
        return 0
    places = size[:1] + size[2:] if "Conv" in name else size[:2] if name in _RECURRENT else size[:1]
    return math.prod([entry["num_params"], *places])


def _first_tensor(value: Any) -> Tensor | None:
    import torch

    while isinstance(value, (list, tuple)) and value:
        value = value[0]
    return value if isinstance(value, torch.Tensor) else None


def _size(value: Any) -> list[int]:
    tensor = _first_tensor(value)
    return [] if tensor is None else list(tensor.shape)


def _bytes(value: Any) -> int:
    tensor = _first_tensor(value)
    return 0 if tensor is None else tensor.nbytes
