"""What a checkpoint's numbers must be before a network takes them."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import Tensor

from edadm.console import say
from edadm.networks.weights import CheckpointError

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)
_QUANTIZED = re.compile(
    r"(?:.*\.)?(?:scale_weight|weight_scale|scale_input|input_scale|comfy_quant|scaled_fp8|qweight|qzeros"
    r"|wscales|absmax|nested_absmax|quant_map|smooth_factor|_data|_scale|quant_state\..*)"
)


def as_fp32(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors in fp32, all of them finite.

    Raises:
        CheckpointError: numbers of another kind, another tool's quantized ones, or some that are not finite;
            names the tensor.
    """
    if foreign := [name for name in state if _QUANTIZED.fullmatch(name)]:
        raise CheckpointError(
            f"{path} is a file that another tool has quantized (it holds '{foreign[0]}'); "
            "give the full-precision weights that it was made from"
        )
    return {name: _finite(name, tensor, path) for name, tensor in _widened(state, path).items()}


def _widened(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors that have a kind of number that fp32 can hold."""
    small = [name for name, tensor in state.items() if tensor.dtype in _EIGHT_BITS]
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.dtype not in (*_FLOATS, *_EIGHT_BITS):
            kind = f"{tensor.dtype}".removeprefix("torch.") if tensor.layout == torch.strided else "sparse"
            raise CheckpointError(
                f"{path}: '{name}' holds {kind} numbers; weights must be dense and fp32, fp16, bf16 or fp64, "
                "so give the file that this one was made from"
            )
    if small:
        told = f"{len(small)} tensors are of 8 bits ({state[small[0]].dtype})"
        say(f"{path}: {told}; taken as they are, with what rounding cost them")
    return state


def _finite(name: str, tensor: Tensor, path: Path) -> Tensor:
    values = tensor.float().contiguous()
    if count := values.numel() - int(values.isfinite().sum()):
        overflowed = tensor.dtype == torch.float64 and bool(tensor.isfinite().all())
        what = "too large for fp32" if overflowed else "not finite (NaN or infinite)"
        raise CheckpointError(
            f"{path}: {count} of {values.numel()} numbers in '{name}' are {what}; "
            "the file is damaged or a merge went wrong, so take another one"
        )
    return values
