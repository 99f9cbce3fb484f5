"""What a recipe is for a network of some size: presets, and how much work it is given."""

from __future__ import annotations

from dataclasses import dataclass

from edadm.config.layout import FULL_PRECISION
from edadm.config.load import load_config
from edadm.config.schema import AUTO, Model
from edadm.networks.settings.reading import Settings
from edadm.turnkey.known import RECIPES, Recipe
from edadm.turnkey.rows import MOST, channels_of, images_at_once

OWN = "quantize"  # presets that the configuration has of its own are called so, and begin so
STEPS = 200  # of learning per unit, where the preset has more
_SMALL = 64  # channels of the first level, up to which a network is small
_BUNDLED = "cifar10_small"
_BASES = {  # presets of networks by kind: calibration, reconstruction at 8 and at 4 bits
    "small": ("tdac", "edadm_w8", "edadm_w4_small"),
    "pixels": ("seed_cifar10_w4", "edadm_w8", "edadm_w4"),
    "latents": ("seed_bedroom", "seed_bedroom_w8", "seed_bedroom_w4"),
    "classes": ("seed_imagenet", "seed_imagenet_w8", "seed_imagenet_w4"),
    "text": ("seed_coco", "seed_coco_w8", "seed_coco_w4"),
}


_OWN_BITS = {name: name for name in ("dit", "pixart", "mmdit")}  # begin otherwise than `edadm`, by family


@dataclass(frozen=True)
class Work:
    """How much is computed.

    Attributes:
        at_once: images that are computed together.
        trajectories: sampler runs that are recorded, of which every ninth is held out.
        images: that are compared with full precision.
    """

    at_once: int
    trajectories: int
    images: int


def work_of(model: Model, images: int | None, told: int | None) -> Work:
    """The work that a network of this size is given.

    Args:
        model: with the network.
        images: that the user wants to be compared; None leaves it to the size.
        told: prompts that there are; None if the network is told none.
    """
    at_once = images_at_once(model)
    runs, compared = (144, 64) if at_once == MOST else (72, 16)
    if told is not None:
        runs, compared = min(runs, told), min(compared, told)
    return Work(at_once, runs, images or compared)


def variant_of(recipe: str) -> str:
    """The variant of a recipe, by the names of its presets."""
    chosen = RECIPES[recipe]
    return f"{OWN}/{OWN}_w{chosen.weights}a8/{f'{OWN}_w{chosen.weights}' if chosen.learns else 'none'}"


def settings_of(recipe: str, name: str, model: Model, work: Work) -> Settings:
    """The configuration of a recipe, but for what the model's own files say."""
    chosen, at_once = RECIPES[recipe], work.at_once
    calibration, *reconstructions = _BASES[_kind(model)]
    held_out = work.trajectories // 9
    runs = {
        "count": work.trajectories,
        "batch_size": at_once,
        "feature_rows": min(work.trajectories, at_once),
    }
    rows = {"base": calibration, "size": work.trajectories - held_out, "held_out": held_out}
    settings: Settings = {
        "results": "results",
        "models": {name: {"trajectories": runs | {"shards": AUTO}}},
        "calibrations": {OWN: rows},
        "bits": {f"{OWN}_w{chosen.weights}a8": {"base": _bits(chosen, model), "range_batch_size": at_once}},
        "evaluations": {OWN: {"images": work.images, "batch_size": at_once, "scores": []}},
        "runs": [{"model": name, "variants": [FULL_PRECISION, variant_of(recipe)], "evaluation": OWN}],
    }
    if chosen.learns:
        base = reconstructions[chosen.weights == 4]
        settings["reconstructions"] = {f"{OWN}_w{chosen.weights}": _learning(base, model, at_once)}
    return settings


def _kind(model: Model) -> str:
    """The kind of network, by which presets are chosen."""
    if channels_of(model) <= _SMALL:
        return "small"
    if model.conditioning is not None:
        return "text" if model.conditioning.has_prompts else "classes"
    return "latents" if model.autoencoder else "pixels"


def _bits(recipe: Recipe, model: Model) -> str:
    """The preset of bits: the bundled model has one with the layers that were measured on it."""
    if own := _OWN_BITS.get(model.architecture.family):
        return f"{own}_w{recipe.weights}a8"
    small = recipe.weights == 4 and model.architecture == load_config().models[_BUNDLED].architecture
    return f"edadm_w{recipe.weights}a8{'_small' if small else ''}"


def _learning(base: str, model: Model, at_once: int) -> Settings:
    """The reconstruction made from a preset, with no more steps and rows than the size allows."""
    preset = load_config().reconstructions[base]
    steps, rows = (50, 8) if _kind(model) == "small" else (STEPS, at_once)
    return {
        "base": base,
        "iterations": min(preset.iterations, steps),
        "batch_size": min(preset.batch_size, rows),
        "chain_batch_size": min(preset.chain_batch_size, 2 * at_once),
    }
