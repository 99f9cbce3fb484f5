"""Stages and rates whose times can be worked out by hand; published networks, counted once for all tests."""

from __future__ import annotations

from functools import cache

from edadm.config.schema import Bits, Reconstruction
from edadm.networks.units.unit import Kind, Unit
from edadm.planning.rates import Rates, UnitRate
from edadm.stages.cost.networks import Networks
from edadm.stages.cost.work import Cost, Learning, Memory, Passes

from ..networks.families import published


@cache
def published_networks(name: str) -> Networks:
    return Networks(published(name))


def unit(name: str, kind: Kind = "layer") -> Unit:
    return Unit(name, kind, (name,))


def learning() -> tuple[Learning, ...]:
    """Layers of 10, 20 and 40 operations, and one block."""
    layers = [Learning(unit(name), flops, 3, 4) for name, flops in (("a", 10), ("b", 20), ("c", 40))]
    return (*layers, Learning(unit("block", "res_block"), 100, 5, 4))


def rates() -> Rates:
    """Layers of 10 and 40 operations take 1 and 4 s a step, the block 10 s; 2, 3 and 1 s beside."""
    measured = [
        UnitRate(unit("a"), 10, 1.0, 2.0),
        UnitRate(unit("c"), 40, 4.0, 3.0),
        UnitRate(unit("block", "res_block"), 100, 10.0, 1.0),
    ]
    return Rates(
        "a fake machine",
        rows={("float", "fp32", 8): 0.5, ("observed", "fp32", 2): 2.0, ("simulated", "chain-tf32", 4): 0.25},
        units={("fbr", "tf32", 4): measured},
        weight=0.001,
        decoded=3.0,
        written=10.0,
    )


def reconstruct() -> Cost:
    passes = Passes("simulated", "chain-tf32", 8, 4, 2)
    return Cost(
        "reconstruct",
        "m/v",
        (passes,),
        (passes,),
        learning(),
        disk=50,
        bits=Bits(),
        settings=Reconstruction(),
    )


def stages() -> list[Cost]:
    return [
        Cost(
            "collect-trajectories",
            "m",
            (Passes("float", "fp32", 24, 8, 3),),
            disk=100,
            memory=Memory(2**30, 2**29),
        ),
        Cost("select-calibration", "m/c", read=30, disk=10),
        Cost("set-ranges", "m/c/b", (Passes("observed", "fp32", 6, 2, 3),), searched_weights=2000),
        reconstruct(),
        Cost("generate", "m/fp32", (Passes("float", "fp32", 8, 8, 1),), images=2, decoded=2, disk=2_000_000),
        Cost("evaluate", "m/fp32", scored=2),
    ]
