"""Recipes: a whole configuration for networks of every kind, with work that their size allows."""

from __future__ import annotations

import pytest

from edadm.config.inputs.settings import merged
from edadm.config.load import load_config, load_runs
from edadm.turnkey.known import RECIPES
from edadm.turnkey.recipes import settings_of, variant_of, work_of
from edadm.turnkey.rows import images_at_once

MODELS = (
    "cifar10_small",
    "cifar10_latent",
    "cifar10_latent_text",
    "ddim_cifar10",
    "ldm4_bedroom",
    "ldm4_imagenet",
    "sd14_coco",
    "sdxl_base",
    "dit_xl2",
)


@pytest.mark.parametrize("name", MODELS)
def test_every_recipe_is_a_configuration_for_every_kind_of_network(name: str) -> None:
    model = load_config().models[name]
    told = 80 if model.conditioning and model.conditioning.has_prompts else None
    for recipe, meant in RECIPES.items():
        settings = settings_of(recipe, name, model, work_of(model, None, told))
        own = {"models": {name: {"conditioning": {"prompts": "none.txt"}}}} if told else {}
        config = load_runs(merged(settings, own))
        calibration, bits, reconstruction = variant_of(recipe).split("/")
        rows = config.calibrations[calibration]
        assert rows.size + rows.held_out == config.models[name].trajectories.count
        assert (config.bits[bits].weights, config.bits[bits].activations) == (meant.weights, 8)
        assert (config.reconstructions[reconstruction].method != "none") == meant.learns
        assert config.evaluations["quantize"].scores == ()


def test_the_presets_are_those_of_the_kind() -> None:
    def learned(name: str, recipe: str) -> tuple[str, str, int]:
        model = load_config().models[name]
        found = settings_of(recipe, name, model, work_of(model, None, None))
        (own,), (bits,) = found["reconstructions"].values(), found["bits"].values()
        return own["base"], bits["base"], own["batch_size"]

    assert learned("cifar10_small", "w4a8") == ("edadm_w4_small", "edadm_w4a8_small", 8)
    assert learned("cifar10_latent", "w4a8") == ("edadm_w4_small", "edadm_w4a8", 8)
    assert learned("ddim_cifar10", "w8a8") == ("edadm_w8", "edadm_w8a8", 32)
    assert learned("ldm4_bedroom", "w4a8") == ("seed_bedroom_w4", "edadm_w4a8", 16)
    assert learned("dit_xl2", "w4a8") == ("seed_imagenet_w4", "dit_w4a8", 32)
    assert learned("sd14_coco", "w4a8") == ("seed_coco_w4", "edadm_w4a8", 2)


@pytest.mark.parametrize(
    ("name", "at_once"), [("cifar10_small", 32), ("ldm4_bedroom", 16), ("sd14_coco", 2), ("sdxl_base", 2)]
)
def test_large_images_and_wide_attention_are_computed_few_at_once(name: str, at_once: int) -> None:
    assert images_at_once(load_config().models[name]) == at_once


def test_no_more_is_asked_for_than_there_are_prompts() -> None:
    work = work_of(load_config().models["sd14_coco"], None, 5)
    assert (work.trajectories, work.images) == (5, 5)
    assert work_of(load_config().models["sd14_coco"], 9, 80).images == 9
