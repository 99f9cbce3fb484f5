"""From a float U-Net to one that quantizes, and back to its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

from edadm.config.schema import Bits
from edadm.errors import EdadmError
from edadm.networks.units.site import Role, Site
from edadm.nn.attention import ATTENTIONS, QuantizedAttention, QuantizedAttnProcessor, is_joint, unknown_in
from edadm.nn.joint import QuantizedJointAttnProcessor
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from edadm.nn.quantizer import Quantizer
from edadm.nn.token_quantizer import TokenQuantizer
from edadm.nn.transformed import TransformedLinear
from edadm.quant.policy import policy
from edadm.quant.scheme import LOW_RANK, SMOOTH, SchemeError, SiteScheme, refuse_unknown

QUANTIZERS: dict[Role, str] = {  # where the quantizer of a site lies within its layer or attention
    "weight": "weight_quantizer",
    "input": "input_quantizer",
    "q": "processor.query_quantizer",
    "k": "processor.key_quantizer",
    "v": "processor.value_quantizer",
    "probabilities": "processor.softmax_quantizer",
}


def quantize_network(network: nn.Module, bits: Bits, sites: Sequence[Site]) -> None:
    """Puts quantizers, in place, on every site to which the policy gives a scheme; see `insert_quantizers`.

    Args:
        network: a float network, or a block of one.
        bits: widths, and exceptions by name pattern.
        sites: of the network (see `edadm.networks.units.trace`).

    Raises:
        EdadmError: a pattern of `bits.layers` matches no layer; as `insert_quantizers`.
    """
    insert_quantizers(network, sites, policy(sites, bits))


def insert_quantizers(network: nn.Module, sites: Sequence[Site], schemes: Mapping[str, SiteScheme]) -> None:
    """Replaces, in place, layers with a scheme for their weights, and gives attentions quantized operands.

    Args:
        network: a float network, or a block of one.
        sites: of the network.
        schemes: by name of the site; a layer without one for its weight stays in floating point.

    Raises:
        EdadmError: an attention computes something that is not known here; so does a scheme.
    """
    _refuse_unknown_attention(network)
    for site in sites:
        if (given := schemes.get(site.name)) is not None:
            _refuse_unfitting(site, given)
    for site in sites:
        if site.role == "weight" and (of_weight := schemes.get(site.name)) is not None:
            _insert_layer(network, site.module, of_weight, schemes.get(f"{site.module}.input"))
        elif site.role == "q":
            operands = schemes[site.name].scheme.format.bits
            of_softmax = schemes.get(f"{site.module}.probabilities")
            softmax_bits = None if of_softmax is None else of_softmax.scheme.format.bits
            attention: Any = network.get_submodule(site.module)
            kind = QuantizedJointAttnProcessor if is_joint(attention) else QuantizedAttnProcessor
            QuantizedAttention.of(attention, kind(operands, softmax_bits))
    for module in network.modules():
        if isinstance(module, Quantizer):
            module.to(next(network.parameters()).device)


def _refuse_unfitting(site: Site, given: SiteScheme) -> None:
    """Refuses what no quantizer of a site computes."""
    refuse_unknown(given.scheme, site.role, site.name)
    if given.segments not in ((), site.segments):
        raise SchemeError(
            f"{site.name}: its channels have parts of {site.segments}, not of {given.segments}; "
            "take those, or none"
        )


def _insert_layer(network: nn.Module, name: str, of_weight: SiteScheme, of_input: SiteScheme | None) -> None:
    layer: Any = network.get_submodule(name)
    input_bits = None if of_input is None else of_input.scheme.format.bits
    segments = of_weight.segments or (layer.weight.shape[1],)
    parent, _, attribute = name.rpartition(".")
    transforms = of_weight.scheme.transforms
    if _without_branch(transforms) != (() if of_input is None else of_input.scheme.transforms):
        raise SchemeError(f"{name}: its weight and its input are smoothed together; take both, or neither")
    if transforms and getattr(layer, "groups", 1) != 1:
        raise SchemeError(
            f"{name}: a convolution in groups is not smoothed; set `{name}: null` in `smoothing_layers`"
        )
    weight_bits = of_weight.scheme.format.bits
    is_dynamic = of_input is not None and of_input.scheme.is_dynamic
    quantized: QuantizedLayer
    if is_dynamic or set(transforms) - {SMOOTH}:
        if not isinstance(layer, nn.Linear) or len(segments) > 1 or input_bits is None:
            raise SchemeError(
                f"{name}: only linear layers of one part, with a grid for the input, are rotated, have a "
                "branch or dynamic grids; leave it out of `linear.layers`"
            )
        quantized = TransformedLinear(layer, weight_bits, input_bits, transforms, is_dynamic)
    else:
        kind: Any = QuantizedConv2d if isinstance(layer, nn.Conv2d) else QuantizedLinear
        quantized = kind(layer, weight_bits, input_bits, segments, transforms)
    setattr(network.get_submodule(parent), attribute, quantized)


def _without_branch(transforms: tuple[str, ...]) -> tuple[str, ...]:
    """Those that are done to the input as well as to the weight."""
    return tuple(name for name in transforms if name != LOW_RANK)


def site_schemes(network: nn.Module) -> dict[str, SiteScheme]:
    """The schemes of a quantized network by name of the site."""
    found = {}
    for name, module in network.named_modules():
        if not isinstance(module, Quantizer | TokenQuantizer):
            continue
        for role, place in QUANTIZERS.items():
            if name.endswith(f".{place}"):
                segments = module.segments if len(module.segments) > 1 else ()
                found[f"{name.removesuffix(place)}{role}"] = SiteScheme(module.scheme, segments)
    return found


def _refuse_unknown_attention(network: nn.Module) -> None:
    for name, module in network.named_modules():
        if isinstance(module, ATTENTIONS) and (unknown := unknown_in(module)):
            raise EdadmError(
                f"the attention '{name}' has {', '.join(unknown)}, which edadm cannot quantize; take another "
                "network"
            )


def quantized_layers(module: nn.Module) -> dict[str, QuantizedLayer]:
    """The quantized layers of a module by name, in registration order."""
    return {name: child for name, child in module.named_modules() if isinstance(child, QuantizedLayer)}


def transformed_layers(module: nn.Module) -> dict[str, TransformedLinear]:
    """The linear layers of a module with a rotation, a branch or a grid of each token, by name."""
    return {name: child for name, child in module.named_modules() if isinstance(child, TransformedLinear)}


def activation_quantizers(module: nn.Module) -> dict[str, Quantizer]:
    """The quantizers of activations and attention operands by name."""
    return {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, Quantizer) and child.rows is None
    }


def undecided(module: nn.Module) -> tuple[dict[str, QuantizedLayer], dict[str, Quantizer]]:
    """The quantized layers and activation quantizers of a module, by name, that are still to be learned."""
    layers = quantized_layers(module)
    decided = {id(layer.input_quantizer) for layer in layers.values() if layer.is_decided}
    return (
        {name: layer for name, layer in layers.items() if not layer.is_decided},
        {name: grid for name, grid in activation_quantizers(module).items() if id(grid) not in decided},
    )


@contextmanager
def disabled(module: nn.Module) -> Iterator[None]:
    """Leaves activations unquantized inside the context."""
    quantizers = [child for child in module.modules() if isinstance(child, Quantizer | TokenQuantizer)]
    before = [quantizer.enabled for quantizer in quantizers]
    for quantizer in quantizers:
        quantizer.enabled = False
    try:
        yield
    finally:
        for quantizer, enabled in zip(quantizers, before, strict=True):
            quantizer.enabled = enabled
