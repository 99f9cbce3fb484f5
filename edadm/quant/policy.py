"""The policy: from a `bits` preset and a site to the site's scheme. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Protocol, runtime_checkable

from edadm.config.schema import Bits, LayerBits, Linear
from edadm.errors import EdadmError
from edadm.quant.format import INTEGERS
from edadm.quant.scheme import LOW_RANK, SMOOTH, Granularity, Scheme, SiteScheme


@runtime_checkable
class SiteLike(Protocol):
    """What the policy must know of a site; `edadm.networks.units.site.Site` is one."""

    @property
    def module(self) -> str:
        """Name of the layer or attention."""

    @property
    def role(self) -> str:
        """What the tensor is there."""

    @property
    def segments(self) -> tuple[int, ...]:
        """Sizes of the channel parts that can have grids of their own."""

    @property
    def is_linear(self) -> bool:
        """Whether it belongs to a linear layer."""


def layer_bits(name: str, bits: Bits, is_linear: bool = False) -> LayerBits:
    """Widths of a layer; the last matching name pattern decides."""
    matching = [exception for pattern, exception in bits.layers.items() if fnmatchcase(name, pattern)]
    if matching:
        return matching[-1]
    told = linear_settings(name, bits) if is_linear else None
    weights, activations = (None, None) if told is None else (told.weights, told.activations)
    return LayerBits(weights=weights or bits.weights, activations=activations or bits.activations)


def linear_settings(name: str, bits: Bits) -> Linear | None:
    """What is told of a linear layer by name, if anything is; exceptions of `bits.layers` stand above it."""
    told = bits.linear
    if told is None or any(fnmatchcase(name, pattern) for pattern in bits.layers):
        return None
    return told if any(fnmatchcase(name, pattern) for pattern in told.layers) else None


def smoothing_strength(name: str, bits: Bits) -> float | None:
    """How strongly a layer is smoothed, None if not at all; the last matching name pattern decides."""
    exceptions = bits.smoothing_layers.items()
    matching = [strength for pattern, strength in exceptions if fnmatchcase(name, pattern)]
    return matching[-1] if matching else bits.smoothing


def learns_scales(name: str, bits: Bits) -> bool:
    """Whether the factors of a layer's input channels are learned."""
    told = bits.learned_scales
    return told is not None and any(fnmatchcase(name, pattern) for pattern in told.layers)


def _transforms(site: SiteLike, bits: Bits) -> tuple[str, ...]:
    """Transforms of a site: layers whose input has a grid may be smoothed, that is their input and weight."""
    if site.role not in ("weight", "input"):
        return ()
    if layer_bits(site.module, bits, site.is_linear).activations is None:
        return ()
    is_smoothed = smoothing_strength(site.module, bits) is not None or learns_scales(site.module, bits)
    told = linear_settings(site.module, bits) if site.is_linear else None
    if told is None:
        return (SMOOTH,) if is_smoothed else ()
    has_branch = told.rank is not None and site.role == "weight"
    given = (SMOOTH, is_smoothed), (told.rotation, told.rotation), (LOW_RANK, has_branch)
    return tuple(name for name, is_given in given if name and is_given)


def site_scheme(site: SiteLike, bits: Bits) -> SiteScheme | None:
    """The scheme and the segments of a site; None where it stays in floating point."""
    width = _width(site, bits)
    if width is None:
        return None
    granularity: Granularity = "channel" if site.role == "weight" else "tensor"
    scheme = Scheme(INTEGERS[width], granularity, transforms=_transforms(site, bits))
    told = linear_settings(site.module, bits) if site.is_linear else None
    if told is not None and told.inputs == "dynamic" and site.role == "input":
        scheme = replace(scheme, granularity="token", is_dynamic=True, is_symmetric=True)
    is_split = bits.split_shortcuts and len(site.segments) > 1
    return SiteScheme(scheme, site.segments if is_split else ())


def _width(site: SiteLike, bits: Bits) -> int | None:
    """Bits of a site's codes: attentions have the general widths, layers may have exceptions."""
    if site.role == "weight":
        return layer_bits(site.module, bits, site.is_linear).weights
    if site.role == "input":
        return layer_bits(site.module, bits, site.is_linear).activations
    return bits.softmax if site.role == "probabilities" else bits.activations


def refuse_idle_patterns(bits: Bits, layers: Collection[str], linear: Collection[str] = ()) -> None:
    """Refuses a preset with an exception that changes no layer.

    Args:
        bits: the preset.
        layers: names of all layers with a weight.
        linear: names of the linear ones among them.

    Raises:
        EdadmError: a pattern of `bits.layers`, `bits.smoothing_layers` or `bits.learned_scales` matches none
            of them, one of the second would smooth none but layers without an input grid, or one of
            `bits.linear` matches no linear layer that has no exception.
    """
    told = bits.learned_scales
    of_scales = () if told is None else (*told.layers, *told.voted)
    for pattern in (*bits.layers, *bits.smoothing_layers, *of_scales):
        if not any(fnmatchcase(name, pattern) for name in layers):
            raise EdadmError(
                f"bits: the pattern '{pattern}' matches no layer of the network; remove it or mend its name"
            )
    for pattern in () if bits.linear is None else bits.linear.layers:
        if not any(fnmatchcase(name, pattern) and linear_settings(name, bits) for name in linear):
            raise EdadmError(
                f"bits: the pattern '{pattern}' of `linear.layers` matches no linear layer without an "
                "exception in `layers`; remove it or mend its name"
            )
    for pattern, strength in bits.smoothing_layers.items():
        matching = (name for name in layers if fnmatchcase(name, pattern))
        if strength is not None and all(layer_bits(name, bits).activations is None for name in matching):
            raise EdadmError(
                f"bits: the pattern '{pattern}' of `smoothing_layers` matches only layers whose input stays "
                "in floating point, which are not smoothed; remove it, or give them activation bits"
            )


def policy(sites: Iterable[SiteLike], bits: Bits) -> dict[str, SiteScheme]:
    """The schemes of all sites that are quantized, by name of the site.

    Raises:
        EdadmError: as `refuse_idle_patterns`.
    """
    known = list(sites)
    weights = [site for site in known if site.role == "weight"]
    linear = [site.module for site in weights if site.is_linear]
    refuse_idle_patterns(bits, [site.module for site in weights], linear)
    found = {f"{site.module}.{site.role}": site_scheme(site, bits) for site in known}
    return {name: scheme for name, scheme in found.items() if scheme is not None}
