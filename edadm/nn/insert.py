"""From a float U-Net to one that quantizes, and back to its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from edadm.config.schema import Bits, LayerBits
from edadm.errors import EdadmError
from edadm.networks.site import ROLES, Site
from edadm.nn.attention import ATTENTIONS, QuantizedAttention, QuantizedAttnProcessor, unknown_in
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from edadm.nn.quantizer import Quantizer


def layer_bits(name: str, bits: Bits) -> LayerBits:
    """Widths of a layer; the last matching name pattern decides."""
    matching = [exception for pattern, exception in bits.layers.items() if fnmatchcase(name, pattern)]
    return matching[-1] if matching else LayerBits(weights=bits.weights, activations=bits.activations)


def quantize_network(network: nn.Module, bits: Bits, sites: Sequence[Site]) -> None:
    """Quantizes a network in place: layers with a site are replaced, attentions with sites get grids.

    Args:
        network: a float network, or a block of one.
        bits: widths, and exceptions by name pattern.
        sites: of the network (see `edadm.networks.trace`).

    Raises:
        EdadmError: a pattern of `bits.layers` matches no layer; an attention computes something that is not
            known here.
    """
    _refuse_unknown_attention(network)
    of_role = {role: {site.module: site for site in sites if site.role == role} for role in ROLES}
    _refuse_idle_patterns(bits, of_role["weight"])
    for name, site in of_role["weight"].items():
        widths = layer_bits(name, bits)
        if widths.weights is None:
            continue
        segments = site.segments if bits.split_shortcuts else (sum(site.segments),)
        of_input = widths.activations if name in of_role["input"] else None
        layer = network.get_submodule(name)
        kind: Any = QuantizedConv2d if isinstance(layer, nn.Conv2d) else QuantizedLinear
        parent, _, attribute = name.rpartition(".")
        quantized = kind(layer, widths.weights, of_input, segments)
        setattr(network.get_submodule(parent), attribute, quantized)
    for name in of_role["q"]:
        processor = QuantizedAttnProcessor(bits.activations, bits.softmax)
        QuantizedAttention.of(network.get_submodule(name), processor)
    for module in network.modules():
        if isinstance(module, Quantizer):
            module.to(next(network.parameters()).device)


def _refuse_unknown_attention(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, ATTENTIONS) and (unknown := unknown_in(module)):
            raise EdadmError(
                f"the attention '{name}' has {', '.join(unknown)}, which edadm cannot quantize; take another "
                "network"
            )


def _refuse_idle_patterns(bits: Bits, layers: Mapping[str, Site]) -> None:
    for pattern in bits.layers:
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise EdadmError(
                f"bits: the pattern '{pattern}' matches no layer of the U-Net; remove it or mend its name"
            )


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
