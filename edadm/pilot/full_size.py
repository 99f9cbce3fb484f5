"""All families' passes, each beside its plan, and the table of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from edadm.benchmark.clock import Clock
from edadm.config.schema import Model
from edadm.pilot.families import FamilyPass
from edadm.pilot.scaled import Scale, chosen_units, planned, scaled_run
from edadm.planning.estimate import seconds
from edadm.planning.probe import Probe
from edadm.planning.rates import Rates
from edadm.planning.show import as_values
from edadm.stages.cost.networks import Networks
from edadm.stages.cost.work import Cost


def family_pass(
    model: Model, presets: tuple[str, str, str, str], scale: Scale, folder: Path, device: torch.device
) -> dict[str, Any]:
    """Plans and runs the stages of one family.

    Args:
        model: the full-size model.
        presets: see `scaled.FAMILIES`.
        scale: how much of the work is done.
        folder: an empty one for artifacts.
        device: where.

    Returns:
        `stages`: a row each with `seconds`, `peak_bytes`, and the plan's `estimated_seconds` and
            `estimated_bytes`; `images`: see
        `FamilyPass.generate`; `units`; `checkpoint_bytes`; `probe`, and `probe_seconds` that it took.
    """
    run = scaled_run(model, presets, scale)
    networks = Networks(run.model)
    units = chosen_units(networks, run, scale.units)
    plan = planned(networks, run, units)
    rates, probe_seconds = _rates(networks, plan, folder, device)
    work = FamilyPass(run, units, folder, device)
    work.collect()
    work.select()
    work.set_ranges()
    work.reconstruct()
    images = work.generate()
    rows = [
        {"stage": name} | measured | _estimate(name, plan, rates)
        for name, measured in work.measured.stages.items()
    ]
    return {
        "stages": rows,
        "images": images,
        "units": [unit.name for unit in units],
        "checkpoint_bytes": work.file.stat().st_size,
        "probe_seconds": probe_seconds,
        "probe": as_values("", networks, [], rates)["probe"],
    }


def _rates(
    networks: Networks, plan: Mapping[str, Cost], folder: Path, device: torch.device
) -> tuple[Rates, float]:
    clock = Clock(device)
    with clock():
        probe = Probe(networks, device)
        rates = probe.measure(plan.values())
        probe.time_disk(folder)
    return rates, clock.seconds


def _estimate(name: str, plan: Mapping[str, Cost], rates: Rates) -> dict[str, Any]:
    if name not in plan:
        return {"estimated_seconds": None, "estimated_bytes": None}
    return {"estimated_seconds": seconds(plan[name], rates), "estimated_bytes": plan[name].memory.total}


def all_families(
    families: Mapping[str, tuple[Model, tuple[str, str, str, str]]],
    scale: Scale,
    device: torch.device,
    on_family: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Passes of several families, one after the other.

    One that needs more memory than the device has says so, and the next begins.

    Args:
        families: model and preset names by the family's name.
        scale: how much of the work is done.
        device: where.
        on_family: told the result so far after each family.

    Returns:
        `device`, `torch`, `scale`, and `families` as from `family_pass`, or `failed` with a sentence.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    result: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "scale": vars(scale),
        "families": {},
    }
    for family, (model, presets) in families.items():
        with tempfile.TemporaryDirectory() as folder:
            try:
                result["families"][family] = family_pass(model, presets, scale, Path(folder), device)
            except torch.OutOfMemoryError as error:
                result["families"][family] = {"failed": str(error).partition(". ")[0]}
        on_family(result)
    return result


def as_markdown(result: Mapping[str, Any]) -> str:
    """A table of stages and families: seconds and GiB, the plan's estimates in brackets."""
    lines = [
        "| family | stage | seconds (plan) | peak device memory, GiB (plan) | PSNR to fp32, dB |",
        "|---|---|---|---|---|",
    ]
    for family, found in result["families"].items():
        if "failed" in found:
            lines.append(f"| {family} | {found['failed']} | | | |")
        for row in found.get("stages", ()):
            image = found["images"].get(row["stage"], {})
            psnr = image.get("failed") or ("" if image.get("psnr") is None else f"{image['psnr']:.1f}")
            time, memory = (
                _beside(row["seconds"], row["estimated_seconds"]),
                _beside(_gib(row["peak_bytes"]), _gib(row["estimated_bytes"])),
            )
            lines.append(f"| {family} | {row['stage']} | {time} | {memory} | {psnr} |")
    return "\n".join(lines)


def _gib(count: int | None) -> float | None:
    return None if count is None else count / 2**30


def _beside(measured: float | None, estimated: float | None) -> str:
    known = "" if measured is None else f"{measured:.2f}"
    return known if estimated is None else f"{known} ({estimated:.2f})".lstrip()
