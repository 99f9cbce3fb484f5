"""From counts and the rates of a machine to seconds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from edadm.planning.rates import Rates, UnitRate
from edadm.stages.cost.work import Cost, Learning


def seconds(stage: Cost, rates: Rates) -> float | None:
    """An estimate of a stage's time, its images and artifact written; imports and loading are not in it.

    None where the rates say nothing about the stage.
    """
    if stage.scored:
        return None if rates.scored is None else stage.scored * rates.scored
    total = sum(passes.rows * rates.rows[passes.key] for passes in (*stage.passes, *stage.unit_rows))
    total += stage.searched_weights * rates.weight + stage.decoded * rates.decoded
    if stage.learning:
        units = rates.units[stage.learning_key]
        total += sum(unit.steps * step_seconds(unit, units) for unit in stage.learning)
        total += len(stage.learning) * statistics.median(rate.overhead for rate in units)
    if rates.written is not None:
        total += (stage.disk + stage.read) / rates.written
    return total


def step_seconds(unit: Learning, rates: Sequence[UnitRate]) -> float:
    """Seconds of one learning step, linear in operations.

    Between the cheapest and the costliest measured unit of its kind.
    """
    of_kind = sorted(
        (rate for rate in rates if rate.unit.kind == unit.unit.kind), key=lambda rate: rate.flops
    )
    least, most = of_kind[0], of_kind[-1]
    if most.flops == least.flops:
        return most.seconds
    share = (unit.flops - least.flops) / (most.flops - least.flops)
    return least.seconds + share * (most.seconds - least.seconds)
