"""Every family through all stages, from a checkpoint in its original layout to images of its quantized network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edadm.config.schema import Model
from edadm.deploy.checkpoint import read_metadata
from edadm.quant import ranges

from .networks.families import FAMILIES, original_checkpoint, tiny
from .test_cli import edadm

BITS = {"weights": 4, "activations": 8, "range_bins": 64, "range_batch_size": 4}
FBR = json.dumps({"iterations": 2, "batch_size": 4})
EVALUATION = json.dumps({"images": 3, "batch_size": 2})
Run = tuple[Model, Path]


def converted_parts(folder: Path, model: Model) -> list[object]:
    """Options for stages that need more than the U-Net."""
    return [option for part in model.parts[1:] for option in (f"--{part}", folder / f"{part}.safetensors")]


def assert_images_are_near(model: Model, folder: Path, backend: str = "integer") -> None:
    """Images of the simulated network lie near those of the float one, and those of integers near these."""
    images = {}
    for name, weights, options in (
        ("float", "unet", ()),
        ("simulated", "quantized", ()),
        ("integers", "quantized", ("--backend", backend)),
    ):
        output = folder / f"{name}.npy"
        files = ("--weights", folder / f"{weights}.safetensors", "--output", output)
        preset = (
            "--model",
            model.model_dump_json(),
            "--evaluation",
            json.dumps({"images": 2, "batch_size": 2}),
        )
        assert edadm("generate", *preset, *files, *options, *converted_parts(folder, model)) == 0
        images[name] = np.load(output).astype(float)
    assert images["float"].shape == (2, 3, 16, 16)
    difference = np.abs(images["float"] - images["simulated"]).mean()
    assert 0.05 < difference < images["float"].std()
    assert np.abs(images["integers"] - images["simulated"]).mean() < difference / 5


def up_to_reconstruction(model: Model, folder: Path, **layers: object) -> None:
    """All stages of a model that is told something, in a folder, from its files to a quantized checkpoint."""
    preset, unet = ("--model", model.model_dump_json()), ("--unet", folder / "unet.safetensors")
    bits = (*preset, "--bits", json.dumps(BITS | layers))
    chosen = ("--calibration-set", folder / "calibration.safetensors")
    ranges_file, quantized = folder / "ranges.safetensors", folder / "quantized.safetensors"
    commands: list[tuple[object, ...]] = [
        ("convert-checkpoint", *preset, "--part", part, "--output", folder / f"{part}.safetensors")
        for part in model.parts
    ]
    store = ("--output", folder / "0.zarr", "--progress", folder / "runs")
    condition = ("--condition", folder / "condition.safetensors") if "condition" in model.parts else ()
    commands.append(("collect-trajectories", *preset, *unet, *condition, *store))
    sizes = ("--calibration", json.dumps({"size": 2, "held_out": 1, "radius": 0.1}))
    outputs = ("--output", chosen[1], "--summary", folder / "selection.json")
    commands.append(("select-calibration", folder / "0.zarr", *sizes, *outputs))
    commands.append(("set-ranges", *bits, *unet, *chosen, "--output", ranges_file))
    learning = ("--reconstruction", FBR, "--ranges", ranges_file, "--progress", folder / "units")
    outputs = ("--output", quantized, "--losses", folder / "losses.csv")
    commands.append(("reconstruct", *bits, *unet, *chosen, *learning, *outputs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "THRESHOLDS", 10)
        for command in commands:
            assert edadm(*command) == 0, command


@pytest.fixture(scope="module", params=FAMILIES)
def stages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A folder in which all stages up to reconstruction have run."""
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "prompts.txt").write_text("\n".join(f"a picture of {number} boats" for number in range(6)))
    model = tiny(request.param, folder / "model.ckpt", prompts=str(folder / "prompts.txt"))
    torch.save({"state_dict": original_checkpoint(model)}, folder / "model.ckpt")
    preset, unet = ("--model", model.model_dump_json()), ("--unet", folder / "unet.safetensors")
    bits = ("--bits", json.dumps(BITS | {"split_shortcuts": request.param != "sd14_coco"}))
    chosen = ("--calibration-set", folder / "calibration.safetensors")
    condition = ("--condition", folder / "condition.safetensors") if model.conditioning else ()
    commands: list[tuple[object, ...]] = [
        ("convert-checkpoint", *preset, "--part", part, "--output", folder / f"{part}.safetensors")
        for part in model.parts
    ]
    commands.append(
        (
            "collect-trajectories",
            *preset,
            *unet,
            *condition,
            "--output",
            folder / "0.zarr",
            "--progress",
            folder / "runs",
        )
    )
    sizes = ("--calibration", json.dumps({"size": 6, "radius": 0.1}))
    commands.append(
        (
            "select-calibration",
            folder / "0.zarr",
            *sizes,
            "--output",
            chosen[1],
            "--summary",
            folder / "selection.json",
        )
    )
    commands.append(("set-ranges", *preset, *bits, *unet, *chosen, "--output", folder / "ranges.safetensors"))
    paths = (
        "--ranges",
        folder / "ranges.safetensors",
        "--output",
        folder / "quantized.safetensors",
        "--losses",
        folder / "losses.csv",
    )
    commands.append(
        (
            "reconstruct",
            *preset,
            *bits,
            "--reconstruction",
            FBR,
            *unet,
            *chosen,
            *paths,
            "--progress",
            folder / "units",
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "THRESHOLDS", 10)
        for command in commands:
            assert edadm(*command) == 0, command
    return model, folder


def test_calibration_rows_carry_their_condition(stages: Run) -> None:
    model, folder = stages
    chosen = load_file(folder / "calibration.safetensors")
    if model.conditioning is None:
        assert set(chosen) == {"latents", "timesteps", "steps"}
        assert len(chosen["latents"]) == 6
        return
    assert {name: len(rows) for name, rows in chosen.items()} == dict.fromkeys(
        ("latents", "timesteps", "steps", "context"), 12
    )
    assert torch.equal(chosen["latents"][0::2], chosen["latents"][1::2])
    without, given = chosen["context"][0::2], chosen["context"][1::2]
    assert torch.equal(without, without[:1].expand_as(without))
    assert len({tuple(row.flatten().tolist()) for row in given}) > 2


def test_the_checkpoint_is_rebuilt_from_its_own_description_and_makes_images_near_the_float_ones(
    stages: Run,
) -> None:
    model, folder = stages
    facts = read_metadata(folder / "quantized.safetensors")
    assert facts["architecture"] == model.architecture.model_dump(mode="json")
    images = []
    for weights in ("unet", "quantized"):
        output = folder / f"{weights}.npy"
        options = (
            "--weights",
            folder / f"{weights}.safetensors",
            "--output",
            output,
            *converted_parts(folder, model),
        )
        assert (
            edadm("generate", "--model", model.model_dump_json(), "--evaluation", EVALUATION, *options) == 0
        )
        images.append(np.load(output).astype(float))
    assert model.autoencoder is not None
    size = model.architecture.image_size * model.autoencoder.factor
    assert images[0].shape == (3, 3, size, size)
    difference = np.abs(images[0] - images[1]).mean()
    assert 0.05 < difference < images[0].std()


def test_every_unit_learned_and_none_failed(stages: Run) -> None:
    _, folder = stages
    rows = [line.split(",") for line in (folder / "losses.csv").read_text().splitlines()]
    assert all(np.isfinite(float(value)) for row in rows[1:] for value in row[3:] if value)
    kinds = {row[1] for row in rows[1:]}
    assert {"res_block", "layer"} < kinds


def test_a_stage_without_the_part_it_needs_says_which(
    stages: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    model, folder = stages
    options = ("--weights", folder / "unet.safetensors", "--output", folder / "none.npy")
    assert edadm("generate", "--model", model.model_dump_json(), "--evaluation", EVALUATION, *options) == 2
    said = capsys.readouterr()
    part = "condition" if model.conditioning else "autoencoder"
    assert f"--part {part}" in " ".join((said.out + said.err).split())


def test_prompts_are_written_in_the_order_of_the_images(
    stages: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    model, folder = stages
    arguments = (
        "--model",
        model.model_dump_json(),
        "--evaluation",
        EVALUATION,
        "--output",
        folder / "images.json",
    )
    status = edadm("write-prompts", *arguments)
    if model.conditioning is None or model.conditioning.kind == "classes":
        assert status == 2
        return
    assert status == 0
    assert json.loads((folder / "images.json").read_text()) == [
        f"a picture of {number} boats" for number in range(3)
    ]
