"""Set ranges: the grid of every weight and activation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edadm.config.schema import Bits, Calibration, Model
from edadm.config.stated import settings_of
from edadm.console import progress_bar
from edadm.stages.cost.work import CODE, FP32, Cost, Memory, Passes, rows_per_image
from edadm.stages.inputs.provenance import code_of, digests, facts_of, refuse_other_calibration

if TYPE_CHECKING:
    import torch

    from edadm.stages.cost.networks import Networks, Quantized

MODEL = ("architecture",)  # settings of it
_SEARCH_BYTES = 8 * 2**22 * 4  # thresholds are tried in pieces of 2^22 elements, with a few temporaries each


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
    from edadm.deploy.grids import grids, quantized_copy
    from edadm.networks.inputs import Rows
    from edadm.networks.load import load_network
    from edadm.passes.prepare import prepare

    inputs = digests(unet=unet, calibration_set=calibration_set)
    refuse_other_calibration(calibration_set, model, inputs["unet"])
    settings = {"model": settings_of(model, *MODEL), "bits": settings_of(bits)}
    known = facts_of("ranges", settings | {"inputs": inputs}, device)
    with making([output], known, code_of("set_ranges", device)) as work:
        if work is None:
            return
        network = quantized_copy(load_network(model.architecture, unet, device), bits)
        needed = ("latents", "timesteps")
        chosen = read_tensors(calibration_set, "select-calibration", needed, device, "calibration")
        seen = len(chosen["latents"]) * bits.range_passes  # by each pass
        with progress_bar(label, seen, "samples") as advance:
            prepare(network, Rows.of(chosen), bits, advance)
        with work.publishing() as partial:
            save_tensors(partial, grids(network), known)


def cost(name: str, networks: Networks, calibration: Calibration, bits: Bits) -> Cost:
    """The cost of a bits preset; its bytes are those of scales and zero points."""
    rows, quantized = calibration.size * rows_per_image(networks.model), networks.quantized(bits)
    batch = min(bits.range_batch_size, rows)
    calls = -(-rows // bits.range_batch_size)
    smoothing = (Passes("float", "fp32", rows, batch, calls),) * bits.smooths
    passes = (*smoothing, *_learning(bits, batch), Passes("observed", "fp32", rows, batch, calls))
    held = memory(networks, quantized, batch)
    searched, disk = quantized.weights, quantized.grid_bytes
    return Cost("set-ranges", name, passes, searched_weights=searched, disk=disk, memory=held, bits=bits)


def _learning(bits: Bits, batch: int) -> tuple[Passes, ...]:
    """Learning of factors, as the evaluations that take about as long: a step is three of each layer."""
    told = bits.learned_scales
    if told is None:
        return ()
    rows = 3 * told.iterations * told.batch_size
    return (Passes("float", "fp32", rows, batch, -(-rows // batch)),)


def memory(networks: Networks, quantized: Quantized, batch: int) -> Memory:
    """The device memory while grids are searched."""
    weights = networks.parameters * FP32 + quantized.weights * CODE
    return Memory(weights, batch * networks.forward_bytes + _SEARCH_BYTES)
