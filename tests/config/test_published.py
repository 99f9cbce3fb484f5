"""The presets of the published runs carry the flags of the first release's README (method, 1.2 to 1.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from edadm.config.check import problems
from edadm.config.files.sources import locate_checkpoint, locate_prompts
from edadm.config.load import ConfigError, load_config
from edadm.config.schema import Config
from edadm.errors import EdadmError

RUNS = Path(__file__).parents[2] / "workflow" / "published"
# model: name, lambda (W8, W4), lr_w, lr_a, gamma, radius, samples, iterations, rows per step, rows per range
# update, images, batch
SEED = {
    "ddim_cifar10": (
        "cifar10",
        (1.3, 1.2),
        (5e-2, 5e-1),
        (1e-3, 5e-4),
        (3.0, 0.8),
        3.0,
        1024,
        5000,
        32,
        256,
        50_000,
        500,
    ),
    "ldm4_bedroom": (
        "bedroom",
        (100, 100),
        (5e-4, 1e-2),
        (1e-4, 5e-3),
        (0.1, 0.001),
        0.3,
        1024,
        5000,
        32,
        32,
        50_000,
        50,
    ),
    "ldm8_church": (
        "church",
        (1.0, 1.0),
        (5e-2, 5e-2),
        (1e-4, 1e-4),
        (1.0, 1.0),
        0.3,
        1024,
        5000,
        32,
        32,
        50_000,
        100,
    ),
    "ldm4_imagenet": (
        "imagenet",
        (0.5, 0.5),
        (1e-4, 5e-1),
        (1e-3, 1e-4),
        (1.3, 1.3),
        3.0,
        1024,
        1000,
        32,
        64,
        50_000,
        50,
    ),
    "sd14_coco": ("coco", (50, 50), (5e-4, 3e-2), (1e-4, 1e-4), (0.5, 0.5), 0.3, 256, 1000, 2, 4, 10_000, 4),
}
R2 = {
    "cifar10": (1.2, 0.8),
    "bedroom": (1.0, 1.0),
    "church": (1.0, 1.0),
    "imagenet": (1.2, 0.8),
    "coco": (5.0, 0.8),
}
SAMPLERS = {
    "ddim_cifar10": ("ddim", 100, "quadratic", 0.0, 1.0),
    "ldm4_bedroom": ("ddim", 200, "uniform_from_one", 1.0, 1.0),
    "ldm8_church": ("ddim", 500, "uniform_from_one", 0.0, 1.0),
    "ldm4_imagenet": ("ddim", 20, "uniform_from_one", 0.0, 3.0),
    "sd14_coco": ("plms", 50, "uniform_from_one", 0.0, 7.5),
}


def configured(model: str) -> Config:
    return load_config(RUNS / f"{model}.yaml")


@pytest.mark.parametrize("model", SEED)
def test_a_run_file_names_both_published_runs_with_the_seeds_flags(model: str) -> None:
    config = configured(model)
    _, lambdas, weight_lrs, scale_lrs, gammas, radius, size, iterations, rows, range_rows, images, batch = (
        SEED[model]
    )
    assert problems(config) == []
    (run,) = config.runs
    assert run.variants[0] == "fp32"
    for position, (weights, name) in enumerate(zip((8, 4), run.variants[1:], strict=True)):
        calibration, bits, reconstruction = name.split("/")
        chosen, grid, learned = (
            config.calibrations[calibration],
            config.bits[bits],
            config.reconstructions[reconstruction],
        )
        assert (chosen.selector, chosen.lambda_, chosen.radius, chosen.size) == (
            "tdac",
            lambdas[position],
            radius,
            size,
        )
        assert (grid.weights, grid.activations, grid.softmax, grid.range_batch_size) == (
            weights,
            8,
            8,
            range_rows,
        )
        assert grid.split_shortcuts == (model != "sd14_coco")
        assert (learned.weight_lr, learned.scale_lr) == (weight_lrs[position], scale_lrs[position])
        assert learned.layer_weight == gammas[position]
        assert (learned.iterations, learned.batch_size, learned.exclude) == (
            iterations,
            rows,
            "last_registered",
        )
    evaluation = config.evaluations[run.evaluation]
    assert (evaluation.images, evaluation.batch_size) == (images, batch)
    assert evaluation.precision == ("fp16" if model == "sd14_coco" else "fp32")


@pytest.mark.parametrize("model", SEED)
def test_samplers_and_guidance_are_the_published_ones(model: str) -> None:
    preset = configured(model).models[model]
    sampler = preset.sampler
    assert (sampler.method, sampler.steps, sampler.spacing, sampler.eta, preset.guidance) == SAMPLERS[model]
    assert preset.trajectories.count == SEED[model][6]
    assert preset.pixels == ("round" if model == "ddim_cifar10" else "truncate")


@pytest.mark.parametrize("name", R2)
def test_the_second_releases_values_are_presets_too(name: str) -> None:
    config = load_config()
    assert config.calibrations[f"r2_{name}"].lambda_ == R2[name][0]
    for width in ("w8", "w4"):
        seed, later = (
            config.reconstructions[f"seed_{name}_{width}"],
            config.reconstructions[f"r2_{name}_{width}"],
        )
        assert later == seed.model_copy(update={"layer_weight": R2[name][1]})


def test_the_two_lines_that_the_first_releases_readme_changed_later_are_presets_too() -> None:
    config = load_config()
    for name, gamma in (("cifar10_w8", 0.8), ("bedroom_w8", 0.001)):
        seed = config.reconstructions[f"seed_{name}"]
        assert config.reconstructions[f"readme_2024_03_{name}"] == seed.model_copy(
            update={"layer_weight": gamma}
        )
    assert config.calibrations["seed_cifar10_w4"] == config.calibrations["seed_cifar10_w8"].model_copy(
        update={"lambda_": 1.2}
    )


def test_a_missing_checkpoint_says_where_to_get_it_and_which_key_to_set() -> None:
    model = load_config().models["ldm8_church"]
    with pytest.raises(
        EdadmError,
        match=r"models\.ldm8_church\.checkpoint: there is no file .*; get it from .*CompVis.* and set this "
        r"key to it",
    ):
        locate_checkpoint("ldm8_church", model.model_copy(update={"checkpoint": "/absent/model.ckpt"}))


def test_missing_prompts_say_which_key_to_set(tmp_path: Path) -> None:
    model = load_config().models["sd14_coco"]
    assert model.conditioning is not None
    absent = model.conditioning.model_copy(update={"prompts": str(tmp_path / "captions.json")})
    with pytest.raises(
        EdadmError,
        match=r"models\.sd14_coco\.conditioning\.prompts: there is no file .*; get captions_val2014\.json",
    ):
        locate_prompts("sd14_coco", model.model_copy(update={"conditioning": absent}))
    assert locate_prompts("ldm8_church", load_config().models["ldm8_church"]) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"layout": "ddim"},
            "checkpoints of the family 'transformer' have the layout 'compvis', not 'ddim'; set layout: "
            "compvis",
        ),
        (
            {"conditioning": None},
            "the family 'transformer' takes a condition, the others take none; add conditioning",
        ),
        (
            {"architecture": {"in_channels": 4}},
            "the autoencoder's latents have 3 channels, the U-Net's 4; make them equal",
        ),
        (
            {"architecture": {"head_channels": 32}},
            "the family 'transformer' needs either heads or head_channels",
        ),
        ({"architecture": {"heads": None}}, "the family 'transformer' needs heads and context_channels"),
        ({"conditioning": {"kind": "text"}}, "text needs prompts; set prompts to a captions file"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(changes: dict, said: str) -> None:
    model = {"models": {"m": {"base": "ldm4_imagenet"} | changes}}
    run = {"runs": [{"model": "m", "variants": ["fp32"], "evaluation": "imagenet_published"}]}
    with pytest.raises(ConfigError) as caught:
        load_config(model | run)
    assert said in str(caught.value)
