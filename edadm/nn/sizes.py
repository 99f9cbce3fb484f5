"""The size of the images that grids were searched at, and what attention does at larger ones."""

from __future__ import annotations

import math
import re
import warnings
from typing import Any

from torch import nn

from edadm.nn.attention import QuantizedAttention

_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.")


def keep_to_size(network: nn.Module, height: int, width: int) -> None:
    """Makes attention between pixels leave its weights off their grid where there are more pixels.

    That grid is searched at one number of tokens. Among more of them weights are smaller, and round to zero.
    Attention over a context has as many tokens as ever, and keeps its grid. The first call with a larger
    image is told of, once per network.

    Args:
        network: a quantized U-Net, or transformer of patches, of diffusers' modules.
        height: of the latents that it was calibrated with.
        width: of them.
    """
    for name, module in network.named_modules():
        has_grid = isinstance(module, QuantizedAttention) and module.processor.softmax_quantizer is not None
        if has_grid and not module.is_cross_attention:
            smaller = _factor(network, name)
            module.processor.most_keys = math.ceil(height / smaller) * math.ceil(width / smaller)
    network.calibrated_at, network.was_told = (height, width), False  # type: ignore[assignment]
    network.register_forward_pre_hook(_warn_of_larger, with_kwargs=True)


def _factor(network: Any, name: str) -> int:
    """By what images are smaller when they come to a module: patches, or halved once per level of a U-Net."""
    if not hasattr(network, "down_blocks"):
        patch: int = network.config["patch_size"]
        return patch
    last = len(network.down_blocks) - 1
    if not (block := _BLOCK.match(name)):
        return 2**last
    index = int(block[2])
    return 2**index if block[1] == "down" else 2 ** (last - index)


def _warn_of_larger(network: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Says once that grids are left out, where there are any."""
    sample = args[0] if args else named.get("sample", named.get("hidden_states"))
    height, width = network.calibrated_at
    if sample is None or network.was_told or sample.shape[-2] * sample.shape[-1] <= height * width:
        return
    if any(getattr(kept, "most_keys", None) for kept in _processors(network)):
        network.was_told = _warn(height, width)


def _processors(network: Any) -> list[Any]:
    """Those of all attentions; diffusers' transformers of patches do not list theirs."""
    if hasattr(network, "attn_processors"):
        return list(network.attn_processors.values())
    return [module.processor for module in network.modules() if isinstance(module, QuantizedAttention)]


def _warn(height: int, width: int) -> bool:
    """Warns, and says so."""
    warnings.warn(
        f"this network was calibrated with latents of {height} x {width}; at larger ones the weights of "
        "attention between pixels are left off their grids, which would round most of them to zero; "
        "calibrate at the largest size that you sample at to keep them",
        stacklevel=2,
    )
    return True


# Warns while a network is compiled, which would have to be in parts otherwise. This is all that
# `torch.compiler.assume_constant_result` does, but that imports the compiler.
_warn._dynamo_marked_constant = True  # type: ignore[attr-defined]
