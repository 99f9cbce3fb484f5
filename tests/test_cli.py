"""The command line: bad input ends with one sentence and exit code 2, and the stages fit together."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DModel
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from typer.main import get_command

from edadm.artifacts import describe, facts
from edadm.artifacts.metadata import remember
from edadm.cli import app_with, main
from edadm.commands.app import ORDER
from edadm.config.files.downloads import DOWNLOADS, Download
from edadm.config.fingerprint import PACKAGE
from edadm.config.methods import METHODS
from edadm.config.schema import Model, Sampler, Trajectories
from edadm.deploy.checkpoint import load_quantized, read_metadata
from edadm.networks.settings.architecture import Architecture
from edadm.nn.insert import quantized_layers
from edadm.quant import ranges
from edadm.version import __version__

from .config.files.server import serving
from .conftest import reinitialise
from .networks.original import OriginalUNet

ARCHITECTURE = Architecture(
    image_size=8,
    channels=8,
    multipliers=(1, 2),
    blocks_per_level=1,
    attention_resolutions=(4,),
    norm_groups=4,
)
BITS = json.dumps({"weights": 4, "activations": 8, "range_bins": 64, "range_batch_size": 8})
FBR = json.dumps({"iterations": 2, "batch_size": 4})
EVALUATION = json.dumps({"images": 5, "batch_size": 2, "shards": 2})
FOUR = json.dumps({"images": 4, "batch_size": 4})


def edadm(*arguments: object) -> int:
    """Runs a command as the shell would, without a new process; returns its exit code."""
    before = sys.argv
    sys.argv = ["edadm", *map(str, arguments)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def preset(folder: Path) -> str:
    """A tiny model with a checkpoint in the original layout, as JSON."""
    network = OriginalUNet(ARCHITECTURE)
    reinitialise(network, 0)
    save_file(network.state_dict(), folder / "original.safetensors")
    trajectories = Trajectories(count=6, batch_size=2, feature_rows=3, shards=2)
    checkpoint = str(folder / "original.safetensors")
    return Model(
        checkpoint=checkpoint, architecture=ARCHITECTURE, sampler=Sampler(steps=3), trajectories=trajectories
    ).model_dump_json()


@pytest.fixture(scope="module")
def stages(folder: Path, preset: str) -> Path:
    """A folder in which all stages up to reconstruction have run."""
    unet = ("--unet", folder / "unet.safetensors")
    chosen = ("--calibration-set", folder / "calibration.safetensors")
    calibration = json.dumps({"size": 6, "radius": 0.1})
    stores = [folder / f"{shard}.zarr" for shard in range(2)]
    commands: list[tuple[object, ...]] = [
        ("convert-checkpoint", "--model", preset, "--output", folder / "unet.safetensors")
    ]
    for shard, store in enumerate(stores):
        progress = ("--progress", folder / f"progress{shard}", "--shard", shard)
        commands.append(("collect-trajectories", "--model", preset, *unet, "--output", store, *progress))
    summary = ("--output", folder / "calibration.safetensors", "--summary", folder / "calibration.json")
    commands.append(("select-calibration", *stores, "--calibration", calibration, *summary))
    commands.append(
        (
            "set-ranges",
            "--model",
            preset,
            "--bits",
            BITS,
            *unet,
            *chosen,
            "--output",
            folder / "ranges.safetensors",
        )
    )
    paths = (
        "--ranges",
        folder / "ranges.safetensors",
        "--output",
        folder / "quantized.safetensors",
        "--losses",
        folder / "losses.csv",
    )
    settings = ("--model", preset, "--bits", BITS, "--reconstruction", FBR, *unet, *chosen)
    commands.append(("reconstruct", *settings, *paths, "--progress", folder / "units"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "THRESHOLDS", 20)  # a coarser search, for speed
        for command in commands:
            assert edadm(*command) == 0, command
    return folder


def test_every_stage_leaves_its_artifact_and_no_progress(stages: Path) -> None:
    left = [path.name for path in stages.iterdir() if path.name.startswith(("progress", "units", "."))]
    assert not [name for name in left if not name.endswith(".lock")]
    calibration = load_file(stages / "calibration.safetensors")
    assert calibration["latents"].shape == (6, 3, 8, 8)
    summary = json.loads((stages / "calibration.json").read_text())
    assert sum(summary["counts"]) == 6
    assert len(summary["timesteps"]) == len(summary["curves"]["density"]) == 3
    facts = read_metadata(stages / "quantized.safetensors")
    assert facts["architecture"]["channels"] == 8
    assert facts["provenance"]["reconstruction"]["iterations"] == 2
    assert (stages / "losses.csv").read_text().count("\n") == 1 + 18


@pytest.mark.parametrize("weights", ["unet.safetensors", "quantized.safetensors"])
def test_images_are_generated_from_float_and_quantized_weights(
    weights: str, stages: Path, preset: str
) -> None:
    parts = []
    for shard in range(2):
        output = stages / f"{weights}.{shard}.npy"
        options = ("--weights", stages / weights, "--output", output, "--shard", shard)
        assert edadm("generate", "--model", preset, "--evaluation", EVALUATION, *options) == 0
        parts.append(np.load(output))
    images = np.concatenate(parts)
    assert images.shape == (5, 3, 8, 8)
    assert images.dtype == np.uint8
    assert len(np.unique(images)) > 5


def test_images_made_with_integers_are_nearly_the_simulated_ones(stages: Path, preset: str) -> None:
    images = {}
    made_from = {}
    for backend in ("simulated", "integer", "onednn"):
        output = stages / f"{backend}.npy"
        options = ("--weights", stages / "quantized.safetensors", "--output", output)
        assert edadm("generate", "--model", preset, "--evaluation", FOUR, "--backend", backend, *options) == 0
        images[backend] = np.load(output).astype(float)
        made_from[backend] = (describe(output) or {})["made_from"]
    assert np.abs(images["integer"] - images["simulated"]).mean() < 0.1 * images["simulated"].std()
    assert np.array_equal(images["integer"], images["onednn"])
    assert {name: found["backend"] for name, found in made_from.items()} == {name: name for name in images}
    resolved = [found.get("resolved_backend") for found in made_from.values()]
    assert resolved == [None, "onednn", "onednn"]


def test_a_correction_is_fitted_kept_and_applied_to_its_own_sampler_only(
    stages: Path, preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = {}
    for name in ("none", "ptqd"):
        settings = json.dumps({"method": "none"} | ({"correction": name} if name != "none" else {}))
        weights, output = tmp_path / f"{name}.safetensors", tmp_path / f"{name}.npy"
        options = ("--losses", tmp_path / f"{name}.csv", "--progress", tmp_path / name)
        assert edadm("reconstruct", *quantizing(stages, preset, settings, weights, *options)) == 0
        made = ("--evaluation", FOUR, "--weights", weights, "--output", output)
        assert edadm("generate", "--model", preset, *made) == 0
        images[name] = np.load(output)
    assert "correction" not in read_metadata(tmp_path / "none.safetensors")["provenance"]["reconstruction"]
    assert 0 < np.abs(images["none"].astype(float) - images["ptqd"]).mean() < 20
    model = Model.model_validate_json(preset)
    for name, change in (
        ("sampler.steps", {"sampler": model.sampler.model_copy(update={"steps": 2})}),
        ("sampler.method", {"sampler": model.sampler.model_copy(update={"method": "plms"})}),
        ("schedule.end", {"schedule": model.schedule.model_copy(update={"end": 0.015})}),
    ):
        assert edadm("generate", "--model", model.model_copy(update=change).model_dump_json(), *made) == 2
        assert f"was fitted for {name} = " in capsys.readouterr().err


def test_scores_say_which_backend_made_the_images(stages: Path, preset: str) -> None:
    images, output = stages / "of_onednn.npy", stages / "of_onednn.json"
    options = ("--weights", stages / "quantized.safetensors", "--output", images, "--backend", "integer")
    assert edadm("generate", "--model", preset, "--evaluation", FOUR, *options) == 0
    psnr_alone = json.dumps({"images": 4, "batch_size": 4, "scores": []})
    assert edadm("evaluate", images, "--evaluation", psnr_alone, "--output", output) == 0
    assert json.loads(output.read_text())["edadm"]["made_from"]["resolved_backend"] == "onednn"


def test_images_by_the_fastest_backend_are_those_of_the_one_that_was_measured(
    stages: Path, preset: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDADM_CACHE", str(stages / "cache"))
    images = {}
    for backend in ("auto", "auto", "integer"):
        output = stages / f"fastest_{len(images)}_{backend}.npy"
        options = ("--weights", stages / "quantized.safetensors", "--output", output)
        assert edadm("generate", "--model", preset, "--evaluation", FOUR, "--backend", backend, *options) == 0
        images[output] = (describe(output) or {})["made_from"]
        (record,) = (stages / "cache" / "fastest").iterdir()
        record.write_text(json.dumps({"backend": "onednn"}))  # whatever was faster on this machine
    (_, first), (second, again), (other, _) = images.items()
    assert first["backend"] == again["backend"] == "auto"
    assert first["resolved_backend"] in ("simulated", "onednn", "openvino")
    assert again["resolved_backend"] == "onednn"
    assert np.array_equal(np.load(second), np.load(other))
    assert "by onednn, the fastest exact backend for this machine" in capsys.readouterr().err
    common = ("generate", "--model", preset, "--evaluation", FOUR, "--output", stages / "none.npy")
    assert edadm(*common, "--weights", stages / "unet.safetensors", "--backend", "auto") == 2
    assert "backend 'auto' needs a quantized checkpoint" in capsys.readouterr().err


def test_a_registered_backend_makes_images_by_its_name(
    toy_backend: str, stages: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = stages / "toy.npy"
    common = ("generate", "--model", preset, "--evaluation", FOUR, "--output", output)
    options = (*common, "--weights", stages / "quantized.safetensors")
    assert edadm(*options) == 0
    simulated = np.load(output)
    assert edadm(*options, "--backend", toy_backend) == 0
    assert (describe(output) or {})["made_from"]["resolved_backend"] == toy_backend
    assert not np.array_equal(np.load(output), simulated)
    assert edadm(*options, "--backend", toy_backend, "--device", "cuda:0") == 2
    assert f"backend '{toy_backend}' generates on a CPU only" in capsys.readouterr().err


def saved_images(folder: Path, **images: np.ndarray) -> list[Path]:
    files = [folder / f"{name}.npy" for name in images]
    for file, array in zip(files, images.values(), strict=True):
        np.save(file, array)
    return files


def test_images_far_from_the_simulated_ones_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full = np.random.default_rng(0).integers(40, 200, (4, 3, 32, 32), dtype=np.uint8)
    far, near, simulated, reference = saved_images(
        tmp_path, far=full + 11, near=full + 6, simulated=full + 5, reference=full
    )
    output = tmp_path / "metrics.json"
    compared = ("--evaluation", FOUR, "--reference", reference, "--simulated", simulated, "--output", output)
    assert edadm("evaluate", near, *compared) == 0
    parity = json.loads(output.read_text())["parity"]
    assert (parity["difference"], parity["bound"]) == (1, 5)
    output.unlink()
    assert edadm("evaluate", far, *compared) == 2
    assert (
        "differ by 6.00 grey levels from the simulated ones, which differ by 5.00 from full precision"
        in capsys.readouterr().err
    )
    assert not output.exists()
    remember(
        far, facts("samples", {"shard": 0, "resolved_backend": "cuda_int8"}, "cuda (toy)")
    )  # of another network
    assert edadm("evaluate", far, *compared) == 0
    found = json.loads(output.read_text())
    assert (found["parity"]["difference"], found["parity"]["bound"]) == (6, 5)
    assert found["edadm"]["made_from"]["resolved_backend"] == "cuda_int8"


def test_integers_need_a_quantized_checkpoint_and_a_known_name(
    stages: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ("generate", "--model", preset, "--evaluation", FOUR, "--output", stages / "none.npy")
    assert edadm(*common, "--weights", stages / "unet.safetensors", "--backend", "integer") == 2
    assert "holds floating-point weights; integers need a quantized checkpoint" in capsys.readouterr().err
    assert edadm(*common, "--weights", stages / "quantized.safetensors", "--backend", "int8") == 2
    said = capsys.readouterr().err
    assert "'int8' is not one of 'simulated', 'integer', 'onednn', 'cuda_int8'" in said


def test_a_comparison_of_networks_refuses_what_it_does_not_know_before_it_looks_for_a_gpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = (
        "benchmark",
        "integer",
        "--model",
        "cifar10_small",
        "--bits",
        "w8a8",
        "--output",
        tmp_path / "unet.json",
    )
    assert edadm(*common, "--mode", "reduce-overhead") == 2
    assert "known are default, max-autotune-no-cudagraphs" in capsys.readouterr().err
    assert edadm(*common, "--tiles", tmp_path / "none.json") == 2
    assert "none.json cannot be read as a table of tiles" in capsys.readouterr().err


def test_quantized_images_differ_from_float_ones_but_not_by_much(stages: Path, preset: str) -> None:
    images = []
    for weights in ("unet", "quantized"):
        output = stages / f"{weights}.npy"
        options = ("--weights", stages / f"{weights}.safetensors", "--output", output)
        evaluation = json.dumps({"images": 4, "batch_size": 4})
        assert edadm("generate", "--model", preset, "--evaluation", evaluation, *options) == 0
        images.append(np.load(output).astype(float))
    difference = np.abs(images[0] - images[1]).mean()
    assert 0.1 < difference < 0.5 * images[0].std()


def test_predictions_are_compared_step_by_step(
    stages: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output, recorded = stages / "errors.json", stages / "1.zarr"
    files = ("--unet", stages / "unet.safetensors", "--weights", stages / "quantized.safetensors")
    common = ("benchmark", "errors", recorded, "--model", preset, *files, "--output", output)
    assert edadm(*common, "--rows", 1000) == 2
    assert "trajectories, not 1000; lower --rows" in capsys.readouterr().err
    assert edadm(*common, "--rows", 2, "--backend", "simulated", "--backend", "integer") == 0
    found = json.loads(output.read_text())
    assert found["rows"] == 2
    assert [step["timestep"] for step in found["steps"]] == sorted(
        (step["timestep"] for step in found["steps"]), reverse=True
    )
    for step in found["steps"]:
        simulated, integer = (step["errors"][name]["error"] for name in ("simulated", "integer"))
        assert 0 < simulated < 0.5
        assert integer == pytest.approx(simulated, rel=0.2)


def test_variants_are_timed_side_by_side(stages: Path, preset: str) -> None:
    output = stages / "speed.json"
    files = [f"fp32={stages / 'unet.safetensors'}", f"c/b/r={stages / 'quantized.safetensors'}"]
    assert edadm("benchmark", "unet", "--model", preset, *files, "--output", output, "--batch-size", 1) == 0
    speed = json.loads(output.read_text())
    assert list(speed["variants"]) == ["fp32", "c/b/r"]
    for variant, file in zip(speed["variants"].values(), ("unet", "quantized"), strict=True):
        assert variant["bytes"] == (stages / f"{file}.safetensors").stat().st_size
        assert variant["seconds"] > 0
    with_integers = speed["variants"]["c/b/r"]["integer"]
    assert with_integers["seconds"] > 0
    assert 0 <= with_integers["parity"]["mean"] < 0.2 * with_integers["parity"]["spread"]
    assert sum(with_integers["shares"].values()) == pytest.approx(1)
    assert with_integers["resolved_backend"] == "onednn"
    assert speed["variants"]["fp32"]["bf16"]["seconds"] > 0


def quantizing(
    stages: Path, preset: str, reconstruction: str, output: Path, *others: object
) -> tuple[object, ...]:
    """Options of the commands that learn, or time learning."""
    names = (("unet", "unet"), ("calibration-set", "calibration"), ("ranges", "ranges"))
    files = [part for option, name in names for part in (f"--{option}", stages / f"{name}.safetensors")]
    return (
        "--model",
        preset,
        "--bits",
        BITS,
        "--reconstruction",
        reconstruction,
        *files,
        "--output",
        output,
        *others,
    )


def test_learning_is_timed_beside_plain_pytorch(
    stages: Path, preset: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = {path.name for path in stages.iterdir()}
    options = quantizing(stages, preset, FBR, tmp_path / "cost.json", "--plain-iterations", 1)
    assert edadm("benchmark", "calibration", *options) == 0
    cost = json.loads((tmp_path / "cost.json").read_text())
    assert (cost["plain"]["steps"], cost["engine"]["steps"]) == (18, 36)
    assert cost["settings"]["iterations"] == 2
    assert f"plain eager PyTorch takes {cost['ratio']:.1f} times as long" in capfd.readouterr().err
    assert {path.name for path in stages.iterdir()} == before


def test_limits_of_memory_change_no_byte_of_the_checkpoint(stages: Path, preset: str, tmp_path: Path) -> None:
    limits = ("--device-memory", 1e-5, "--host-memory", 1e-4)
    options = ("--losses", tmp_path / "losses.csv", "--progress", tmp_path / "progress", *limits)
    (tmp_path / "progress" / "scratch").mkdir(parents=True)
    (tmp_path / "progress" / "scratch" / "left").write_text("by a killed process")
    assert (
        edadm("reconstruct", *quantizing(stages, preset, FBR, tmp_path / "quantized.safetensors", *options))
        == 0
    )
    for name in ("quantized.safetensors", "losses.csv"):
        assert (tmp_path / name).read_bytes() == (stages / name).read_bytes()
    assert not (tmp_path / "progress").exists()


def test_too_little_memory_and_disk_is_a_sentence_before_anything_is_learned(
    stages: Path,
    preset: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1000, 0, 1000))
    options = (
        "--losses",
        tmp_path / "losses.csv",
        "--progress",
        tmp_path / "progress",
        "--device-memory",
        0,
        "--host-memory",
        0,
    )
    assert (
        edadm("reconstruct", *quantizing(stages, preset, FBR, tmp_path / "quantized.safetensors", *options))
        == 2
    )
    assert "the disk would have to take" in capfd.readouterr().err
    assert not list((tmp_path / "progress").glob("*.safetensors"))


def independent(jobs: int) -> str:
    """A reconstruction preset whose units are shared among jobs."""
    return json.dumps({"method": "fbr_float_inputs", "iterations": 2, "batch_size": 4, "jobs": jobs})


def test_shares_of_the_units_are_put_together_to_what_one_job_learns(
    stages: Path, preset: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = [tmp_path / "units" / str(part) for part in range(2)]
    progress = ("--progress", tmp_path / "progress")
    for part, folder in enumerate(parts):
        assert (
            edadm(
                "reconstruct-part",
                *quantizing(stages, preset, independent(2), folder, *progress, "--part", part),
            )
            == 0
        )
        assert len(list(folder.glob("*.safetensors"))) == 9
    finished = [option for folder in parts for option in ("--part", folder)]
    for jobs, others in ((2, finished), (1, [])):
        options = ("--losses", tmp_path / f"{jobs}.csv", *progress, *others)
        assert (
            edadm(
                "reconstruct",
                *quantizing(stages, preset, independent(jobs), tmp_path / f"{jobs}.safetensors", *options),
            )
            == 0
        )
    assert not (tmp_path / "progress").exists()
    assert (tmp_path / "2.csv").read_text() == (tmp_path / "1.csv").read_text()
    two, one = (load_file(tmp_path / f"{jobs}.safetensors") for jobs in (2, 1))
    assert two.keys() == one.keys()
    assert all(torch.equal(two[name], one[name]) for name in two)
    assert (
        edadm(
            "reconstruct-part",
            *quantizing(stages, preset, independent(2), tmp_path / "3", *progress, "--part", 2),
        )
        == 2
    )
    assert "there is no part 2; the preset has jobs: 2" in capfd.readouterr().err


def test_a_share_may_be_empty_and_is_not_learned_over(
    stages: Path, preset: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = quantizing(
        stages, preset, independent(40), tmp_path / "units", "--progress", tmp_path / "progress", "--part", 30
    )
    assert edadm("reconstruct-part", *options) == 0
    assert [path.name for path in (tmp_path / "units").iterdir()] == ["units.json"]
    assert edadm("reconstruct-part", *options) == 0
    assert "units is there already, made from the same settings and inputs" in capfd.readouterr().err
    other = quantizing(
        stages, preset, independent(41), tmp_path / "units", "--progress", tmp_path / "progress", "--part", 30
    )
    assert edadm("reconstruct-part", *other) == 2
    assert (
        "units is there already, made from something else; remove it, or name another --output"
        in capfd.readouterr().err
    )
    shutil.rmtree(tmp_path / "progress")
    assert not (tmp_path / "progress").exists()


def test_units_that_wait_for_each_other_have_no_parts(
    stages: Path, preset: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--progress", tmp_path / "progress", "--part", 0)
    assert edadm("reconstruct-part", *quantizing(stages, preset, FBR, tmp_path / "units", *options)) == 2
    assert "units of method 'fbr' wait for each other and have no parts; " in capfd.readouterr().err


PASS = """
from edadm.learning.task import Task
from edadm.nn.insert import quantized_layers
from edadm.passes.base import Pass

def round_up(task: Task) -> None:
    for layer in quantized_layers(task.quantized_unet).values():
        layer.set_codes((layer.nearest_codes().int() + 1).clamp(max=15).byte())

ROUND_UP = Pass(frozenset({"weights", "ranges"}), frozenset({"codes"}), run=round_up)
"""


def test_a_new_method_is_a_file_and_its_rows(stages: Path, preset: str, tmp_path: Path) -> None:
    package = tmp_path / "edadm"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "bundled", "project"))
    (package / "passes/up.py").write_text(PASS)
    for table, row in (
        ("config/methods.py", 'METHODS["up"] = Method(("round_up",), description="to the point above")\n'),
        ("passes/methods.py", 'from edadm.passes.up import ROUND_UP\nPASSES["round_up"] = ROUND_UP\n'),
    ):
        with open(package / table, "a") as file:
            file.write(row)
    names = ("none", "up")
    for name in names:
        files = ("--losses", tmp_path / f"{name}.csv", "--progress", tmp_path / "progress")
        preset_of = json.dumps({"method": name})
        options = quantizing(stages, preset, preset_of, tmp_path / f"{name}.safetensors", *files)
        if name in METHODS:
            assert edadm("reconstruct", *options) == 0
            continue
        command = [sys.executable, "-m", "edadm", "reconstruct", *map(str, options)]
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert read_metadata(tmp_path / "up.safetensors")["provenance"]["reconstruction"]["method"] == "up"
    nearest, up = (quantized_layers(load_quantized(tmp_path / f"{name}.safetensors")) for name in names)
    for name, layer in nearest.items():
        assert torch.equal(up[name].codes.int(), (layer.codes.int() + 1).clamp(max=15)), name


@pytest.mark.parametrize("compiled", [False, True])
def test_the_network_is_compiled_for_generation_only_if_the_preset_says_so(
    compiled: bool, stages: Path, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda network, *_, **__: told.append(type(network).__name__))
    evaluation = json.dumps({"images": 1, "compiled": compiled})
    options = ("--weights", stages / "quantized.safetensors", "--output", tmp_path / "images.npy")
    assert edadm("generate", "--model", preset, "--evaluation", evaluation, *options) == 0
    assert told == (["UNet2DModel"] if compiled else [])
    assert np.load(tmp_path / "images.npy").shape == (1, 3, 8, 8)


def test_a_quantized_checkpoint_is_exported_for_plain_diffusers(
    stages: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert edadm("export", stages / "quantized.safetensors", "--output", tmp_path / "plain") == 0
    unet = UNet2DModel.from_pretrained(tmp_path / "plain", torch_dtype=torch.float16)
    assert unet.config.block_out_channels == [8, 16]
    assert unet.dtype == torch.float16
    assert edadm("export", stages / "unet.safetensors", "--output", tmp_path / "other") == 2
    assert "unet.safetensors is no quantized checkpoint of edadm" in capfd.readouterr().err


@pytest.mark.parametrize("damaged", ["ranges", "calibration"])
def test_damaged_artifacts_are_named_with_the_stage_that_makes_them(
    damaged: str, stages: Path, preset: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("unet", "ranges", "calibration"):
        content = (stages / f"{name}.safetensors").read_bytes()
        (tmp_path / f"{name}.safetensors").write_bytes(
            content[: len(content) // 2] if name == damaged else content
        )
    options = ("--losses", tmp_path / "losses.csv", "--progress", tmp_path / "progress")
    assert (
        edadm("reconstruct", *quantizing(tmp_path, preset, FBR, tmp_path / "quantized.safetensors", *options))
        == 2
    )
    said, stage = (
        capfd.readouterr().err,
        {"ranges": "set-ranges", "calibration": "select-calibration"}[damaged],
    )
    assert f"{damaged}.safetensors cannot be read" in said
    assert f"remove it, and make it again with `edadm {stage}`" in said


def test_inputs_that_were_not_made_for_each_other_are_refused_with_both_settings(
    stages: Path, preset: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = ("--losses", tmp_path / "losses.csv", "--progress", tmp_path / "progress")
    options = list(quantizing(stages, preset, FBR, tmp_path / "quantized.safetensors", *output))
    wide = json.dumps(json.loads(BITS) | {"weights": 8})
    assert edadm("reconstruct", *(wide if option == BITS else option for option in options)) == 2
    assert (
        "ranges.safetensors was made with bits.weights: 4, here it is 8; name the file"
        in capfd.readouterr().err
    )
    other = tmp_path / "unet.safetensors"
    save_file({name: tensor + 1 for name, tensor in load_file(stages / "unet.safetensors").items()}, other)
    unet = stages / "unet.safetensors"
    assert edadm("reconstruct", *(other if option == unet else option for option in options)) == 2
    assert "calibration.safetensors was made from another unet (digest" in capfd.readouterr().err
    chosen = tmp_path / "calibration.safetensors"
    save_file(
        {name: tensor + 1 for name, tensor in load_file(stages / "calibration.safetensors").items()}, chosen
    )
    given = stages / "calibration.safetensors"
    assert edadm("reconstruct", *(chosen if option == given else option for option in options)) == 2
    assert "ranges.safetensors was made from another calibration set (digest" in capfd.readouterr().err
    assert not (tmp_path / "progress").exists()


def test_images_of_other_shards_or_seeds_do_not_count(
    stages: Path, preset: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, seed, shard in (("0", 0, 0), ("1", 0, 1), ("other", 1, 1)):
        evaluation = json.dumps(json.loads(EVALUATION) | {"seed": seed})
        options = (
            "--weights",
            stages / "unet.safetensors",
            "--output",
            tmp_path / f"{name}.npy",
            "--shard",
            shard,
        )
        assert edadm("generate", "--model", preset, "--evaluation", evaluation, *options) == 0
    first, second, other = (tmp_path / f"{name}.npy" for name in ("0", "1", "other"))
    common = ("--evaluation", "{}", "--output", tmp_path / "metrics.json")
    for files, sentence in (
        ((second, first), "1.npy holds shard 1, where shard 0 belongs; name all in order"),
        ((first, other), "other.npy was made with another evaluation.seed than"),
        ((first,), "0.npy is one of 2 shards, here are 1; name the files of all"),
    ):
        assert edadm("evaluate", *files, *common) == 2
        assert sentence in capfd.readouterr().err


def test_scores_are_written_with_their_conditions(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("a", "b", "r"):
        np.save(
            tmp_path / f"{name}.npy",
            generator.integers(0, 256, (4 if name != "r" else 8, 3, 32, 32), dtype="uint8"),
        )
    options = ("--evaluation", "{}", "--output", tmp_path / "metrics.json", "--reference", tmp_path / "r.npy")
    assert edadm("evaluate", tmp_path / "a.npy", tmp_path / "b.npy", *options) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["conditions"]["images"] == 8
    assert metrics["fid"] > 0
    assert metrics["psnr"] < 15


def test_a_folder_of_real_images_becomes_statistics_and_scores(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    (tmp_path / "real").mkdir()
    for index in range(3):
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), dtype="uint8")).save(
            tmp_path / "real" / f"{index}.png"
        )
    made = tmp_path / "real.h5"
    options = (
        "--images",
        tmp_path / "real",
        "--name",
        "noise",
        "--resolution",
        32,
        "--keep-features",
        3,
        "--output",
        made,
    )
    assert edadm("reference-statistics", *options) == 0
    np.save(tmp_path / "a.npy", generator.integers(0, 256, (4, 3, 64, 64), dtype="uint8"))
    evaluation = json.dumps({"scores": ["fid", "kid"], "reference": str(tmp_path / "real"), "resolution": 32})
    options = ("--evaluation", evaluation, "--statistics", made, "--output", tmp_path / "metrics.json")
    assert edadm("evaluate", tmp_path / "a.npy", *options) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert {"fid", "kid"} < set(metrics)
    assert metrics["conditions"]["reference_set"] == "noise"
    assert metrics["conditions"]["reference_images"] == metrics["conditions"]["reference_features"] == 3
    assert metrics["conditions"]["preparation"] == "centre crop to a square, bicubic to 32 px"


def test_a_stand_in_is_announced_with_what_to_put_where(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 256, (4, 3, 64, 64), dtype="uint8"))
    evaluation = json.dumps(
        {"extractor": "inception", "fallback_reference": "bundled:cifar10_train_statistics"}
    )
    assert (
        edadm(
            "evaluate", tmp_path / "a.npy", "--evaluation", evaluation, "--output", tmp_path / "metrics.json"
        )
        == 0
    )
    said = capfd.readouterr().err
    assert "the bundled classifier scores instead of 'inception': extractor 'inception' needs weights" in said
    assert "edadm download torch_fidelity_inception" in said
    conditions = json.loads((tmp_path / "metrics.json").read_text())["conditions"]
    assert (conditions["extractor"], conditions["instead_of"]) == ("cifar10_classifier", "inception")


def test_downloads_are_listed_with_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    assert edadm("download") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ddim_cifar10: " in lines[0]
    assert lines[0].endswith("md5:1fa350b952534ae442b1d5235cce5cd3")
    assert any(line.startswith("ldm4_bedroom: ") and line.endswith("checksum unknown") for line in lines)


def test_a_download_goes_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(b"weights") as site:
        monkeypatch.setitem(DOWNLOADS, "toy", Download("a toy", site.url, "toy.ckpt", "nobody"))
        assert edadm("download", "toy", "--output", tmp_path / "other.ckpt") == 0
    assert (tmp_path / "other.ckpt").read_bytes() == b"weights"


def test_a_full_disk_ends_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr("os.replace", full)
    assert edadm("schema", "--output", tmp_path / "s.json") == 2
    said = capfd.readouterr().err
    assert said.startswith(f"edadm: {tmp_path}/s.json cannot be written, since its disk is full (")
    assert said.endswith("; make room there and start again: finished pieces are kept\n")
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_schema_is_written(tmp_path: Path) -> None:
    assert edadm("schema", "--output", tmp_path / "schema.json") == 0
    assert "runs" in json.loads((tmp_path / "schema.json").read_text())["properties"]


CLIP = '{"scores": ["clip_score"]}'
SELECT = ("select-calibration", "--output", "o", "--summary", "s")
GENERATE = ("generate", "--evaluation", "{}", "--output", "out.npy")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((*GENERATE, "--model", "PRESET", "--weights", "damaged"), "damaged cannot be read"),
        ((*GENERATE, "--model", "cifar10_smal", "--weights", "unet.safetensors"), "did you mean 'cifar10_small'?"),
        ((*GENERATE, "--model", "{bad", "--weights", "unet.safetensors"), "models: this is not valid JSON"),
        ((*GENERATE, "--model", "PRESET", "--weights", "original.safetensors"), "lacks the tensor"),
        ((*GENERATE, "--model", "cifar10_small", "--weights", "unet.safetensors"), "`architecture.channels` decides that"),
        ((*GENERATE, "--model", "PRESET", "--weights", "unet.safetensors", "--device", "tpu9"), "this machine has no device 'tpu9'"),
        ((*GENERATE, "--model", "PRESET", "--weights", "unet.safetensors", "--device", "cuda:99"), "this machine has no device 'cuda:99'"),
        ((*GENERATE, "--model", "PRESET", "--weights", "unet.safetensors", "--shard", 7), "there is no shard 7; shards are counted from 0"),
        ((*GENERATE, "--model", "cifar10_small", "--weights", "unet.safetensors", "--config", "absent"), "there is no configuration file"),
        (("convert-checkpoint", "--output", "o", "--model", '{"checkpoint": "absent.ckpt"}'), "there is no file absent.ckpt"),
        (("convert-checkpoint", "--output", "o", "--model", '{"checkpoint": "a", "samplr": {}}'), "did you mean 'sampler'?"),
        (("convert-checkpoint", "--output", "o", "--model", "PRESET", "--part", "vae"), "the model has no 'vae'; it has unet"),
        (("benchmark", "unet", "--model", "PRESET", "--output", "o", "fp32"), "'fp32' names no file; write VARIANT=FILE"),
        ((*SELECT, "0.zarr", "1.zarr", "--calibration", '{"size": 99}'), "exceeds the 6 recorded"),
        ((*SELECT, "0.zarr", "--calibration", "{}"), "0.zarr ends with run 1 of 6; name the stores of all shards"),
        ((*SELECT, "1.zarr", "0.zarr", "--calibration", "{}"), "1.zarr begins with run 2, where run 0 is next; name"),
        (("evaluate", "unet.npy", "--output", "o", "--evaluation", '{"reference": "absent.h5"}'), "there is no file absent.h5"),
        (("evaluate", "unet.npy", "--output", "o", "--evaluation", '{"extractor": "inception"}'), "`edadm download torch_fidelity"),
        (("evaluate", "unet.npy", "--output", "o", "--evaluation", '{"reference": "r", "resolution": 32}'), "edadm reference-statistics"),
        (("evaluate", "unet.npy", "--output", "o", "--evaluation", CLIP), "set `prompts`"),
        (("evaluate", "none.npy", "--output", "o", "--evaluation", "{}"), "none.npy holds no images"),
        (("evaluate", "unet.npy", "--output", "o", "--evaluation", CLIP, "--prompts", "unet.npy"), "`clip_weights` is not set"),
        (("reference-statistics", "--images", ".", "--name", "x", "--output", "o", "--extractor", "vgg"), "there is no extractor 'vgg'"),
        (("download", "sd14_cocoo"), "there is no download 'sd14_cocoo'; did you mean 'sd14_coco'?"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...],
    sentence: str,
    stages: Path,
    preset: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(stages)
    (stages / "damaged").write_bytes(b"damaged")
    np.save(stages / "unet.npy", np.zeros((2, 3, 32, 32), dtype="uint8"))
    np.save(stages / "none.npy", np.zeros((0, 3, 32, 32), dtype="uint8"))
    (stages / "r").mkdir(exist_ok=True)
    Image.new("RGB", (32, 32)).save(stages / "r/a.png")
    assert edadm(*(preset if argument == "PRESET" else argument for argument in arguments)) == 2
    error = capfd.readouterr().err
    problems = [line for line in error.splitlines() if line.startswith("edadm: ")]
    assert len(problems) == 1
    assert error.splitlines()[-1] == problems[0]
    assert sentence in problems[0]
    assert not (stages / "out.npy").exists()


def test_an_absent_input_is_refused_before_any_work(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--unet", tmp_path / "absent", "--calibration-set", tmp_path, "--output", tmp_path / "o")
    assert edadm("set-ranges", "--model", "cifar10_small", "--bits", "w4a8", *options) == 2
    assert "Invalid value for '--unet'" in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["generate", "--help"], ["schema", "--output", "schema.json"], ["download"]]
)
def test_light_commands_import_no_torch(arguments: list[str], tmp_path: Path) -> None:
    program = (
        f"import sys\nsys.argv = ['edadm', *{arguments!r}]\nfrom edadm.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'diffusers', 'zarr', 'matplotlib'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_version_is_told_and_a_thread_is_the_least(capfd: pytest.CaptureFixture[str]) -> None:
    assert edadm("--version") == 0
    assert capfd.readouterr().out == f"edadm {__version__}\n"
    assert edadm("evaluate", "x", "--threads", 0) == 2
    assert "Invalid value for '--threads'" in capfd.readouterr().err


def test_help_lists_all_commands_in_the_order_of_work() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "edadm", "--help"], capture_output=True, text=True, check=True
    )
    listed = [line.split()[0] for line in done.stdout.split("Commands:")[1].splitlines() if line.strip()]
    assert listed == list(ORDER) == sorted(get_command(app_with()).commands, key=ORDER.index)


@pytest.mark.parametrize("command", ["reconstruct", "reconstruct-part"])
def test_limits_of_memory_come_from_the_environment_where_no_option_gives_them(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDADM_DEVICE_MEMORY", "2.5")
    monkeypatch.setenv("EDADM_HOST_MEMORY", "")  # the workflow's way to say that none is wanted
    parsed = get_command(app_with()).commands[command].make_context(command, [], resilient_parsing=True)
    assert (parsed.params["device_memory"], parsed.params["host_memory"]) == (2.5, None)


@pytest.mark.parametrize(
    ("backend", "sentence"),
    [
        (
            "integer",
            "backend 'integer' generates on a CPU only; use --device cpu, or backend 'simulated' or 'cuda_int8'",
        ),
        ("onednn", "backend 'onednn' generates on a CPU only; use --device cpu, or backend 'simulated'"),
    ],
)
def test_images_with_integers_are_refused_off_the_cpu(
    backend: str, sentence: str, stages: Path, preset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ("--weights", stages / "quantized.safetensors", "--output", stages / "none.npy")
    options = ("--backend", backend, "--device", "cuda:0")
    assert edadm("generate", "--model", preset, "--evaluation", FOUR, *files, *options) == 2
    assert sentence in capsys.readouterr().err
