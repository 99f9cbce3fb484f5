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
        network: a quantized U-Net of diffusers' modules.
        height: of the latents that it was calibrated with.
        width: of them.
    """
    levels = len(network.down_blocks)  # type: ignore[arg-type]
    for name, module in network.named_modules():
        has_grid = isinstance(module, QuantizedAttention) and module.processor.softmax_quantizer is not None
        if has_grid and not module.is_cross_attention:
            halved = 2 ** _level(name, levels)
            module.processor.most_keys = math.ceil(height / halved) * math.ceil(width / halved)
    network.calibrated_at, network.was_told = (height, width), False  # type: ignore[assignment]
    network.register_forward_pre_hook(_warn_of_larger, with_kwargs=True)


def _level(name: str, levels: int) -> int:
    """How often images are halved before they come to a module."""
    if not (block := _BLOCK.match(name)):
        return levels - 1
    index = int(block[2])
    return index if block[1] == "down" else levels - 1 - index


def _warn_of_larger(network: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Says once that grids are left out, where there are any."""
    sample, (height, width) = args[0] if args else named.get("sample"), network.calibrated_at
    if sample is None or network.was_told or sample.shape[-2] * sample.shape[-1] <= height * width:
        return
    if any(getattr(kept, "most_keys", None) for kept in network.attn_processors.values()):
        network.was_told = _warn(height, width)


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
