"""Set ranges: the grid of every weight and activation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edadm.config.schema import Bits, Model
from edadm.config.stated import settings_of
from edadm.console import progress_bar
from edadm.stages.inputs.provenance import code_of, digests, facts_of, refuse_other_calibration

if TYPE_CHECKING:
    import torch

MODEL = ("architecture",)  # settings of it


def run(
    model: Model,
    bits: Bits,
    unet: Path,
    calibration_set: Path,
    output: Path,
    device: torch.device,
    label: str,
) -> None:
    """Searches the grid of every weight and activation.

    Args:
        model, bits: the presets.
        unet, calibration_set: artifacts of `convert-checkpoint` and `select-calibration`.
        output: the scales and zero points.
        device: where.
        label: what progress lines call this run.
    """
    from edadm.artifacts import making, read_tensors, save_tensors
    from edadm.deploy.checkpoint import grids, quantized_copy
    from edadm.networks.inputs import Rows
    from edadm.networks.load import load_unet
    from edadm.passes.ranges import set_ranges

    inputs = digests(unet=unet, calibration_set=calibration_set)
    refuse_other_calibration(calibration_set, model, inputs["unet"])
    settings = {"model": settings_of(model, *MODEL), "bits": settings_of(bits)}
    known = facts_of("ranges", settings | {"inputs": inputs}, device)
    with making([output], known, code_of("set_ranges", device)) as work:
        if work is None:
            return
        network = quantized_copy(load_unet(model.architecture, unet, device), bits)
        needed = ("latents", "timesteps")
        chosen = read_tensors(calibration_set, "select-calibration", needed, device, "calibration")
        with progress_bar(label, len(chosen["latents"]), "samples") as advance:
            set_ranges(network, Rows.of(chosen), bits, advance)
        with work.publishing() as partial:
            save_tensors(partial, grids(network), known)
