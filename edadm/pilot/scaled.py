"""The published runs with their full-size networks and a small part of their work."""

from __future__ import annotations

from dataclasses import dataclass

from edadm.config.load import load_config
from edadm.config.schema import Bits, Calibration, Evaluation, Model, Reconstruction
from edadm.networks.units.unit import Unit
from edadm.stages import collect, generate, reconstruct, select, set_ranges
from edadm.stages.cost.networks import Networks
from edadm.stages.cost.work import Cost, calibration_rows

FAMILIES = {
    "ddim_cifar10": ("seed_cifar10_w4", "cifar10_w4a8", "seed_cifar10_w4", "cifar10_published"),
    "ldm4_bedroom": ("seed_bedroom", "lsun_w4a8", "seed_bedroom_w4", "bedroom_published"),
    "ldm8_church": ("seed_church", "lsun_w4a8", "seed_church_w4", "church_published"),
    "ldm4_imagenet": ("seed_imagenet", "imagenet_w4a8", "seed_imagenet_w4", "imagenet_published"),
    "sd14_coco": ("seed_coco", "coco_w4a8", "seed_coco_w4", "coco_published"),
}


@dataclass(frozen=True)
class Scale:
    """How much of a published run is done.

    Attributes:
        rows: trajectories, and calibration samples; a guided model has two rows per sample.
        steps: of the sampler.
        units: that are learned, the one at which most is kept among them.
        iterations: learning steps per unit.
        images: that are generated.
    """

    rows: int = 32
    steps: int = 5
    units: int = 5
    iterations: int = 50
    images: int = 4


@dataclass(frozen=True)
class ScaledRun:
    """The presets of a small part of a run."""

    model: Model
    calibration: Calibration
    bits: Bits
    reconstruction: Reconstruction
    evaluation: Evaluation


def scaled_run(model: Model, presets: tuple[str, str, str, str], scale: Scale) -> ScaledRun:
    """Presets of the package, reduced; batch sizes stay where there are enough rows.

    Args:
        model: the full-size model.
        presets: names of calibration, bits, reconstruction and evaluation.
        scale: how much is left.
    """
    config = load_config()
    calibration, bits, reconstruction, evaluation = presets
    recorded = model.trajectories
    first = {
        "count": scale.rows,
        "batch_size": min(recorded.batch_size, scale.rows),
        "feature_rows": min(recorded.feature_rows, scale.rows),
    }
    small = model.model_copy(
        update={
            "sampler": model.sampler.model_copy(update={"steps": scale.steps}),
            "trajectories": recorded.model_copy(update=first | {"shards": 1}),
        }
    )
    return ScaledRun(
        small,
        config.calibrations[calibration].model_copy(update={"size": scale.rows}),
        config.bits[bits],
        config.reconstructions[reconstruction].model_copy(update={"iterations": scale.iterations}),
        config.evaluations[evaluation].model_copy(
            update={
                "images": scale.images,
                "shards": 1,
                "precision": "fp32",
                "batch_size": min(config.evaluations[evaluation].batch_size, scale.images),
            }
        ),
    )


def chosen_units(networks: Networks, run: ScaledRun, count: int) -> list[Unit]:
    """Units spread over the network, in order of execution, among them the one at which most is kept."""
    units = networks.learned_units(run.reconstruction, run.bits)
    if count >= len(units):
        return units
    need = networks.demand(run.reconstruction, calibration_rows(run.model, run.calibration))
    known = {unit.name for unit in units}
    fullest = max((unit for unit in need.units if unit.name in known), key=need.of_unit).name
    others = [unit for unit in units if unit.name != fullest]
    spread = (
        {others[place * len(others) // (count - 1)].name for place in range(count - 1)}
        if count > 1
        else set()
    )
    return [unit for unit in units if unit.name in spread | {fullest}]


def planned(networks: Networks, run: ScaledRun, units: list[Unit]) -> dict[str, Cost]:
    """What each stage of the small run does, by the names of `edadm.pilot.families`."""
    half = {
        f"generate {kind} {precision}": generate.cost(
            kind, networks, run.evaluation.model_copy(update={"precision": precision}), bits
        )
        for kind, bits in (("float", None), ("simulated", run.bits))
        for precision in ("fp32", "bf16", "fp16")
    }
    return {
        "collect-trajectories": collect.cost("", networks),
        "select-calibration": select.cost("", networks, run.calibration),
        "set-ranges": set_ranges.cost("", networks, run.calibration, run.bits),
        "reconstruct": reconstruct.cost("", networks, run.calibration, run.bits, run.reconstruction, units),
        **half,
    }
