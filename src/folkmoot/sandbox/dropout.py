"""Dropout at work while all else is in evaluation mode.

Source: Gal and Ghahramani 2016, https://arxiv.org/abs/1506.02142.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from folkmoot.errors import InvalidValue
from folkmoot.sandbox.numpy_model import no_dropout

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

_LAYERS = frozenset({"AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"})
# These have dropout of their own, or leave that of their parts out on a fast path, and training changes nothing else.
_WITH_DROPOUT_INSIDE = frozenset({"GRU", "LSTM", "RNN", "MultiheadAttention", "TransformerEncoderLayer"})
_PARTS = 1 << 16
"""What 16 random bits tell apart: so finely is the probability of dropping out taken."""


def dropout_layers(module: Module) -> list[Module]:
    """Those that can be switched; raises InvalidValue for a module without any."""
    layers = [layer for layer in module.modules() if _has_dropout(layer)]
    if not layers:
        raise no_dropout("the model")
    if not (found := [layer for layer in layers if not _is_fixed(layer)]):
        raise InvalidValue(
            "the model was made by torch.jit.trace, which fixes whether its dropout is at work; "
            "MC_DROPOUT needs a whole module, or TorchScript of torch.jit.script"
        )
    return found


@contextmanager
def sampling(layers: list[Module], *, seed: int) -> Iterator[None]:
    """Let these layers, and no others, drop out; equal seeds give equal masks."""
    import torch

    torch.manual_seed(seed)
    mask = _masking(np.random.SFC64(seed))
    with ExitStack() as stack:
        for layer in layers:
            if type(layer) is torch.nn.Dropout:
                stack.callback(layer.register_forward_hook(mask).remove)
            else:
                stack.callback(setattr, layer, "training", layer.training)
                layer.training = True  # and not train(), which would reach what lies within
        yield


def _masking(bits: np.random.SFC64) -> Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]:
    """What takes the place of the commonest layer's output; torch draws its masks some twenty times as slowly."""
    import torch

    def mask(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        kept = round((1 - layer.p) * _PARTS)
        if not kept:
            return torch.zeros_like(output)
        drawn = bits.random_raw(-(-output.numel() // 4)).view(np.uint16)[: output.numel()].reshape(output.shape)
        scales = np.multiply(drawn < kept, np.float32(_PARTS / kept), dtype=np.float32)
        return output * torch.from_numpy(scales).to(output.dtype)

    return mask


def _has_dropout(module: Module) -> bool:
    name = getattr(module, "original_name", type(module).__name__)
    return name in _LAYERS or (name in _WITH_DROPOUT_INSIDE and bool(getattr(module, "dropout", 0)))


def _is_fixed(layer: Module) -> bool:
    """Whether it is TorchScript in which nothing asks if it is in training."""
    import torch

    if not isinstance(layer, torch.jit.ScriptModule):
        return False
    graphs = (layer._c._get_method(name).graph for name in layer._c._method_names())
    return not any('GetAttr[name="training"]' in str(graph) for graph in graphs)
