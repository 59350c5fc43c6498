"""The fields of a layer summary, taken from what a process says: what is not of the right kind is not passed on."""

from __future__ import annotations

from typing import Any

from folkmoot.errors import ModelFailed

_NUMBERS = (
    "total_input",
    "total_mult_adds",
    "total_output_bytes",
    "total_param_bytes",
    "total_params",
    "trainable_params",
)
_LAYER: dict[str, type[Any]] = {
    "class_name": str,
    "var_name": str,
    "depth": int,
    "depth_index": int,
    "is_leaf_layer": bool,
    "is_recursive": bool,
    "executed": bool,
    "input_size": list,
    "output_size": list,
    "kernel_size": list,
    "num_params": int,
    "trainable_params": int,
    "param_bytes": int,
    "output_bytes": int,
    "macs": int,
}


def checked_summary(said: Any) -> dict[str, Any] | None:
    """Raises ModelFailed for anything that is neither None nor a summary."""
    if said is None:
        return None
    try:
        numbers = {name: _of_kind(said[name], int) for name in _NUMBERS}
        layers = [_layer(each) for each in said["summary_list"]]
        return {"input_size": _of_kind(said["input_size"], list), **numbers, "summary_list": layers}
    except (KeyError, TypeError):
        raise ModelFailed("the model's process answered with something else than a summary") from None


def _layer(said: Any) -> dict[str, Any]:
    return {name: _of_kind(said[name], kind) for name, kind in _LAYER.items()}


def _of_kind(value: Any, kind: type) -> Any:
    # bool is an int to Python
    if type(value) is not kind:
        raise TypeError
    if isinstance(value, list) and any(type(each) is not int for each in value):
        raise TypeError
    return _printable(value) if isinstance(value, str) else value


def _printable(text: str) -> str:
    """Question marks for the rest, of which PostgreSQL's jsonb refuses NUL and lone surrogates."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
