"""The units of a reconstruction method, of which one may be all that sees the timestep alone."""

from __future__ import annotations

import dataclasses

from torch import nn

from edadm.config.methods import METHODS, TEMPORAL
from edadm.config.schema import Reconstruction
from edadm.errors import EdadmError
from edadm.networks.families import family_of
from edadm.networks.family import TemporalPart
from edadm.networks.units.trace import trace_units
from edadm.networks.units.unit import Unit


def units_of(network: nn.Module, settings: Reconstruction) -> list[Unit]:
    """The units of a network for the settings' method.

    Args:
        network: in floating point, on any device.
        settings: name the method.

    Raises:
        EdadmError: the method learns apart what sees the timestep alone, and nothing in the network does.
    """
    method = METHODS[settings.method]
    apart = temporal_part(network).layers if method.temporal else ()
    units = trace_units(network, method.by_layer, settings.exclude)
    if not method.temporal:
        return units
    rest = [
        dataclasses.replace(unit, layers=tuple(name for name in unit.layers if name not in apart))
        for unit in units
    ]
    return [Unit(TEMPORAL, "temporal", apart), *(unit for unit in rest if unit.layers)]


def temporal_part(network: nn.Module) -> TemporalPart:
    """What a network computes from the timestep alone.

    Raises:
        EdadmError: nothing, or something else joins it.
    """
    part = family_of(network).temporal(network)
    if part is None:
        names = ", ".join(name for name, method in METHODS.items() if method.learns and not method.temporal)
        raise EdadmError(
            "no layers of this network see the timestep alone, which the reconstruction method learns apart; "
            f"take one of {names}"
        )
    return part
