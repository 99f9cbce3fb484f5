"""Soundness of a quantized network: which numbers a file may hold, and inputs that are not finite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from edadm.errors import EdadmError
from edadm.nn.insert import quantized_layers
from edadm.nn.layers import QuantizedLayer
from edadm.nn.quantizer import Quantizer

_MASKS = ("attention_mask", "encoder_attention_mask", "cross_attention_kwargs")


def grid_flaws(network: nn.Module) -> Iterator[str]:
    """Names each quantizer whose scale is not positive, or whose zero point lies off the grid.

    With the value.
    """
    for name, quantizer in network.named_modules():
        if isinstance(quantizer, Quantizer):
            yield from _of_grid(name, quantizer.scale, quantizer.zero_point, quantizer.bits)


def code_flaws(network: nn.Module) -> Iterator[str]:
    """Names each layer without codes, or with a code that its grid does not have."""
    for name, layer in quantized_layers(network).items():
        if layer.codes is None:
            yield f"{name} has no codes"
        else:
            yield from _of_codes(name, layer.codes, layer.weight_quantizer.bits)


def state_flaws(network: nn.Module, state: Mapping[str, Tensor]) -> Iterator[str]:
    """Names what no network may be filled with, among the tensors of a state that fits it."""
    for name, module in network.named_modules():
        if isinstance(module, Quantizer) and f"{name}.scale" in state:
            yield from _of_grid(name, state[f"{name}.scale"], state[f"{name}.zero_point"], module.bits)
        if isinstance(module, QuantizedLayer) and f"{name}.codes" in state:
            yield from _of_codes(name, state[f"{name}.codes"], module.weight_quantizer.bits)
        if isinstance(module, QuantizedLayer) and f"{name}.smooth" in state:
            smooth = state[f"{name}.smooth"]
            if (value := _first(smooth, torch.frexp(smooth).mantissa != 0.5)) is not None:
                yield f"{name}.smooth holds {value}, no power of two"
    yield from float_flaws((name, tensor) for name, tensor in state.items() if tensor.is_floating_point())


def _of_grid(name: str, scale: Tensor, zero_point: Tensor, bits: int) -> Iterator[str]:
    top = 2**bits - 1
    if (value := _first(scale, ~(scale.isfinite() & (scale > 0)))) is not None:
        yield f"the scale of {name} is {value}, no positive number"
    if (value := _first(zero_point, ~((zero_point >= 0) & (zero_point <= top)))) is not None:
        yield f"the zero point of {name} is {value}, not from 0 to {top}"


def _of_codes(name: str, codes: Tensor, bits: int) -> Iterator[str]:
    top = 2**bits - 1
    if (largest := int(codes.max())) > top:
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


def refuse_inputs_of_other_types(network: nn.Module) -> None:
    """Makes a network refuse latents of another type than its own, instead of failing at its last layer."""
    network.register_forward_pre_hook(_refuse_other_types, with_kwargs=True)


def _refuse_other_types(network: Any, args: tuple[Any, ...], named: dict[str, Any]) -> None:
    sample = args[0] if args else named.get("sample")
    if not isinstance(sample, Tensor) or sample.dtype == network.dtype:
        return
    if not torch.is_autocast_enabled(sample.device.type):
        raise EdadmError(
            f"a quantized network in {network.dtype} was given {sample.dtype}; cast the network or its "
            "inputs with .to(dtype)"
        )


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
