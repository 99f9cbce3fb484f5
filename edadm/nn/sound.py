"""Soundness of a quantized network: which numbers a file may hold, and inputs that are not finite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from edadm.nn.insert import quantized_layers
from edadm.nn.quantizer import Quantizer

_MASKS = ("attention_mask", "encoder_attention_mask", "cross_attention_kwargs")


def grid_flaws(network: nn.Module) -> Iterator[str]:
    """Names each quantizer whose scale is not positive, or whose zero point lies off the grid.

    With the value.
    """
    for name, quantizer in network.named_modules():
        if not isinstance(quantizer, Quantizer):
            continue
        scale, zero_point, top = quantizer.scale, quantizer.zero_point, 2**quantizer.bits - 1
        if (value := _first(scale, ~(scale.isfinite() & (scale > 0)))) is not None:
            yield f"the scale of {name} is {value}, no positive number"
        if (value := _first(zero_point, ~((zero_point >= 0) & (zero_point <= top)))) is not None:
            yield f"the zero point of {name} is {value}, not from 0 to {top}"


def code_flaws(network: nn.Module) -> Iterator[str]:
    """Names each layer without codes, or with a code that its grid does not have."""
    for name, layer in quantized_layers(network).items():
        top = 2**layer.weight_quantizer.bits - 1
        if layer.codes is None:
            yield f"{name} has no codes"
        elif (largest := int(layer.codes.max())) > top:
            yield f"{name} has the code {largest}, not from 0 to {top}"


def float_flaws(parameters: Iterable[tuple[str, Tensor]]) -> Iterator[str]:
    """Names each tensor that holds infinities or no numbers, with the first of them."""
    for name, tensor in parameters:
        if (value := _first(tensor, ~tensor.isfinite())) is not None:
            yield f"{name} holds {value}"


def _first(values: Tensor, wrong: Tensor) -> float | None:
    """The first of the values that are wrong."""
    return values.detach()[wrong].flatten()[0].item() if bool(torch.any(wrong)) else None


def pass_on_what_is_not_finite(network: nn.Module) -> None:
    """Makes a network of grids answer an image that is not finite with no numbers, as float networks do.

    Grids clip infinities, and integers know no others than numbers, so that such an image would come out
    plausible. Looked at are the network's inputs, once per call; masks and arguments of attention apart,
    which may hold infinities.
    """
    network.register_forward_hook(_pass_on, with_kwargs=True)


def _pass_on(network: nn.Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
    found = output[0]
    given = [*args[:5], *(value for name, value in named.items() if name not in _MASKS)]
    for tensor in _tensors(given):
        zeros = tensor.detach() * 0  # none where a number is not finite
        by_image = (
            zeros.reshape(len(found), -1).sum(1)
            if tensor.dim() and len(tensor) == len(found)
            else zeros.sum()
        )
        found = found + by_image.to(found.dtype).reshape(-1, *[1] * (found.dim() - 1))
    if isinstance(output, tuple):
        return (found, *output[1:])
    output.sample = found
    return output


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """All floating-point tensors, also in lists, tuples and mappings."""
    for value in values:
        if isinstance(value, Tensor):
            if value.is_floating_point():
                yield value
        elif isinstance(value, dict):
            yield from _tensors(value.values())
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
