"""Select: one state of each trajectory, as the calibration set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from edadm.config.schema import Calibration
from edadm.config.stated import settings_of
from edadm.stages.cost.work import FP32, INT64, Cost, calibration_rows, condition_bytes, latent_elements
from edadm.stages.inputs.provenance import code_of, facts_of

if TYPE_CHECKING:
    from edadm.stages.cost.networks import Networks


def run(trajectories: list[Path], settings: Calibration, output: Path, summary: Path) -> None:
    """Picks one state of each trajectory; needs no network.

    Args:
        trajectories: stores of consecutive shards.
        settings: the calibration preset.
        output: the calibration set.
        summary: counts and curves per sampler step.
    """
    import torch

    from edadm.artifacts import as_json, making, save_tensors
    from edadm.calibration.conditions import with_conditions
    from edadm.calibration.select import select
    from edadm.sampling.shards import open_finished

    stores, content = open_finished(trajectories)
    before = (stores[0].stated() or {}).get("made_from", {})
    inputs = before.get("inputs", {}) | {"trajectories": content}
    made_from = {"model": _without_shards(before["model"])} if "model" in before else {}
    made_from |= {"calibration": settings_of(settings), "inputs": inputs}
    known = facts_of("calibration", made_from)
    with making([output, summary], known, code_of("select")) as work:
        if work is None:
            return
        groups = [store.group for store in stores]
        chosen, allocation = select(groups, settings)
        rows = {name: torch.from_numpy(array) for name, array in with_conditions(chosen, groups).items()}
        with work.publishing() as partial:
            save_tensors(partial, rows, known)
        curves = {name: curve.tolist() for name, curve in allocation.curves.items()}
        counts, timesteps = allocation.counts.tolist(), groups[0]["timesteps"][:].tolist()
        told = {"counts": counts, "timesteps": timesteps, "curves": curves}
        with work.publishing(summary) as partial:
            partial.write_text(as_json(told, facts_of("selection", made_from)))


def _without_shards(model: dict[str, Any]) -> dict[str, Any]:
    """The settings of a model but for a number on which no state of its trajectories depends."""
    recorded = {name: of for name, of in model.get("trajectories", {}).items() if name != "shards"}
    return model | {"trajectories": recorded} if "trajectories" in model else model


def cost(name: str, networks: Networks, settings: Calibration) -> Cost:
    """The cost of a calibration set; every state is read with the chunk it lies in."""
    model = networks.model
    rows, latent = calibration_rows(model, settings), latent_elements(model)
    read = (settings.size + settings.held_out) * model.trajectories.batch_size * latent * FP32
    disk = rows * (latent * FP32 + condition_bytes(model) + 2 * INT64)
    return Cost("select-calibration", name, read=read, disk=disk, files=3)
