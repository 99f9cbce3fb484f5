"""From a float U-Net to one that quantizes, and back to its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from diffusers.models.attention_processor import Attention
from torch import nn

from edadm.config.schema import Bits, LayerBits
from edadm.errors import EdadmError
from edadm.nn.attention import QuantizedAttention, QuantizedAttnProcessor, unknown_in
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from edadm.nn.quantizer import Quantizer


def layer_bits(name: str, bits: Bits) -> LayerBits:
    """Widths of a layer; the last matching name pattern decides."""
    matching = [exception for pattern, exception in bits.layers.items() if fnmatchcase(name, pattern)]
    return matching[-1] if matching else LayerBits(weights=bits.weights, activations=bits.activations)


def quantize_unet(unet: nn.Module, bits: Bits, splits: Mapping[str, int]) -> None:
    """Replaces, in place, every convolution and linear layer, and gives every attention quantized operands.

    Args:
        unet: a diffusers U-Net.
        bits: widths, and exceptions by name pattern.
        splits: for a shortcut over concatenated channels, where the skip begins (see `edadm.networks.unet.concat`).

    Raises:
        EdadmError: a pattern of `bits.layers` matches no layer; an attention computes something that is not
            known here.
    """
    attentions = {name: module for name, module in unet.named_modules() if isinstance(module, Attention)}
    for name, attention in attentions.items():
        if unknown := unknown_in(attention):
            raise EdadmError(
                f"the attention '{name}' has {', '.join(unknown)}, which edadm cannot quantize; take another network"
            )
    layers = {
        name: module for name, module in unet.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    }
    for pattern in bits.layers:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise EdadmError(
                f"bits: the pattern '{pattern}' matches no layer of the U-Net; remove it or mend its name"
            )
    for name, layer in layers.items():
        widths = layer_bits(name, bits)
        if widths.weights is None:
            continue
        channels = layer.weight.shape[1]
        split = splits.get(name) if bits.split_shortcuts else None
        segments = (channels,) if split is None else (split, channels - split)
        kind: Any = QuantizedConv2d if isinstance(layer, nn.Conv2d) else QuantizedLinear
        parent, _, attribute = name.rpartition(".")
        setattr(
            unet.get_submodule(parent), attribute, kind(layer, widths.weights, widths.activations, segments)
        )
    for attention in attentions.values():
        QuantizedAttention.of(attention, QuantizedAttnProcessor(bits.activations, bits.softmax))
    for module in unet.modules():
        if isinstance(module, Quantizer):
            module.to(next(unet.parameters()).device)


def quantized_layers(module: nn.Module) -> dict[str, QuantizedLayer]:
    """The quantized layers of a module by name, in registration order."""
    return {name: child for name, child in module.named_modules() if isinstance(child, QuantizedLayer)}


def activation_quantizers(module: nn.Module) -> dict[str, Quantizer]:
    """The quantizers of activations and attention operands by name."""
    return {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, Quantizer) and child.rows is None
    }


@contextmanager
def disabled(module: nn.Module) -> Iterator[None]:
    """Leaves activations unquantized inside the context."""
    quantizers = [child for child in module.modules() if isinstance(child, Quantizer)]
    before = [quantizer.enabled for quantizer in quantizers]
    for quantizer in quantizers:
        quantizer.enabled = False
    try:
        yield
    finally:
        for quantizer, enabled in zip(quantizers, before, strict=True):
            quantizer.enabled = enabled
