"""Dropout at work while all else is in evaluation mode.

Source: Gal and Ghahramani 2016, https://arxiv.org/abs/1506.02142.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

_LAYERS = frozenset({"AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"})
# These have dropout of their own, or leave that of their parts out on a fast path, and training changes nothing else.
_WITH_DROPOUT_INSIDE = frozenset({"GRU", "LSTM", "RNN", "MultiheadAttention", "TransformerEncoderLayer"})


def dropout_layers(module: Module) -> list[Module]:
    return [layer for layer in module.modules() if _has_dropout(layer)]


@contextmanager
def sampling(layers: list[Module], *, seed: int) -> Iterator[None]:
    """Let these layers, and no others, drop out; equal seeds give equal masks."""
    import torch

    torch.manual_seed(seed)
    mask = _masking(np.random.Generator(np.random.SFC64(seed)))
    with ExitStack() as stack:
        for layer in layers:
            if type(layer) is torch.nn.Dropout:
                stack.callback(layer.register_forward_hook(mask).remove)
            else:
                stack.callback(setattr, layer, "training", layer.training)
                layer.training = True  # and not train(), which would reach what lies within
        yield


def _masking(rng: np.random.Generator) -> Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]:
    """What takes the place of the commonest layer's output; torch draws its masks some six times as slowly."""
    import torch

    def mask(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if layer.p >= 1:
            return torch.zeros_like(output)
        is_kept = rng.random(tuple(output.shape), dtype=np.float32) >= layer.p
        return output * torch.from_numpy(is_kept).to(output.dtype).mul_(1 / (1 - layer.p))

    return mask


def _has_dropout(module: Module) -> bool:
    name = getattr(module, "original_name", type(module).__name__)
    return name in _LAYERS or (name in _WITH_DROPOUT_INSIDE and bool(getattr(module, "dropout", 0)))
