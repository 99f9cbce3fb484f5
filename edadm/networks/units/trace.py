"""What a network is made of, found by one forward pass: its units in order of execution, and its sites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from edadm.networks.families import family_of
from edadm.networks.family import Family, UnitKind
from edadm.networks.units.site import Site, sites_of
from edadm.networks.units.unit import Exclude, Unit


@dataclass(frozen=True)
class Trace:
    """A network's parts.

    Args:
        units: what is learned at once, in order of execution.
        sites: where it can be quantized, layers first, each in registration order.
    """

    units: Sequence[Unit]
    sites: Sequence[Site]


@torch.no_grad()
def trace(network: nn.Module, by_layer: bool = False, exclude: Exclude = "last_registered") -> Trace:
    """The units and sites of a float network of any family, on any device; on `meta` nothing is computed.

    Registration order would not do for units: diffusers registers a U-Net's middle after its decoder.

    Args:
        network: left as it is.
        by_layer: every convolution and linear layer is a unit, wherever it lies.
        exclude: which layer stands last in a unit, and so has no error of its own: the last registered one,
            as in the official code (quirk Q7: a shortcut, or the second attention's output), or the last one
            executed.
    """
    family = family_of(network)
    parameter = next(network.parameters())
    with _entering(network, family, by_layer, exclude) as units:
        family.call(network, family.inputs(network).zeros(1, parameter.device, parameter.dtype))
    return Trace(units, network_sites(network))


def network_sites(network: nn.Module) -> list[Site]:
    """The sites of a network of any family; see `sites_of`."""
    family = family_of(network)
    return sites_of(network, family.concatenations(network), family.floats(network))


def trace_units(
    network: nn.Module, by_layer: bool = False, exclude: Exclude = "last_registered"
) -> list[Unit]:
    """The units alone; see `trace`."""
    return list(trace(network, by_layer, exclude).units)


def unit_of(
    name: str, module: nn.Module, kinds: Sequence[UnitKind], exclude: Exclude = "last_registered"
) -> Unit | None:
    """The unit that a module is, of the first kind that fits or a layer by itself; None if it is neither."""
    for kind in kinds:
        if isinstance(module, kind.module):
            there = {child for child, layer in module.named_modules() if _is_layer(layer)}
            order = kind.registered if exclude == "last_registered" else kind.executed
            layers = tuple(f"{name}.{child}" for child in order if child in there)
            return Unit(name, kind.name, layers, channel_axis=kind.channel_axis)
    return Unit(name, "layer", (name,)) if _is_layer(module) else None


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d | nn.Linear)


@contextmanager
def _entering(network: nn.Module, family: Family, by_layer: bool, exclude: Exclude) -> Iterator[list[Unit]]:
    """Collects the units that a forward pass inside the context enters, but for those inside others."""
    reached: list[Unit] = []
    handles = []
    depth = 0

    def enter(unit: Unit) -> None:
        nonlocal depth
        if depth == 0:
            reached.append(unit)
        depth += 1

    def leave() -> None:
        nonlocal depth
        depth -= 1

    kinds, floats = () if by_layer else family.kinds, family.floats(network)
    for name, module in network.named_modules():
        if name not in floats and (unit := unit_of(name, module, kinds, exclude)) is not None:
            handles.append(module.register_forward_pre_hook(lambda *_, u=unit: enter(u)))
            handles.append(module.register_forward_hook(lambda *_: leave()))
    try:
        yield reached
    finally:
        for handle in handles:
            handle.remove()
