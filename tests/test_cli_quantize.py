"""`edadm quantize`: what is printed, and refused, before any work."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import yaml
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

from edadm.errors import EdadmError
from edadm.turnkey.run import environment_for, run_in

from .networks.dit import write_pipeline as write_dit
from .networks.edited import write_images, write_pipeline
from .networks.families import random_network
from .networks.mmdit import write_pipeline as write_sd3
from .test_cli import edadm
from .test_cli_describe import PLAIN


def test_a_dry_run_prints_plan_and_configuration_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = tmp_path / "my é pipeline"
    DDPMPipeline(random_network(UNet2DModel(**PLAIN), 1), DDPMScheduler()).save_pretrained(pipeline)
    assert edadm("quantize", pipeline, "--dry-run", "--no-probe", "--device", "cpu", "--images", "4") == 0
    said = capsys.readouterr()
    assert said.err.startswith("my_pipeline: a network of ")
    assert "compares 4 images with full precision's\non the CPU: 0.1 GiB of memory, " in said.err
    settings = yaml.safe_load(said.out)
    assert settings["models"]["my_pipeline"]["checkpoint"] == str(pipeline)
    assert settings["evaluations"]["quantize"]["images"] == 4
    assert {entry.name for entry in tmp_path.iterdir()} == {pipeline.name}


def test_a_transformer_has_recipes_of_its_own_and_a_broken_index_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_dit(tmp_path / "dit")
    options = ("quantize", tmp_path / "dit", "--dry-run", "--no-probe", "--device", "cpu", "--recipe", "w4a8")
    capsys.readouterr()
    assert edadm(*options) == 0
    assert yaml.safe_load(capsys.readouterr().out)["bits"]["quantize_w4a8"]["base"] == "dit_w4a8"
    write_sd3(tmp_path / "sd3")
    capsys.readouterr()
    assert edadm(*options[:1], tmp_path / "sd3", *options[2:]) == 0
    settings = yaml.safe_load(capsys.readouterr().out)
    assert settings["bits"]["quantize_w4a8"]["base"] == "mmdit_w4a8"
    assert settings["models"]["sd3"]["sampler"]["shift"] == 3.0
    (tmp_path / "dit" / "model_index.json").write_text("[]")
    assert edadm(*options) == 2
    assert capsys.readouterr().err.endswith("model_index.json holds no JSON object; fetch it again\n")


def test_a_network_that_is_given_images_asks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pipeline("inpainting", tmp_path / "pipeline")
    options = ("quantize", tmp_path / "pipeline", "--dry-run", "--no-probe", "--device", "cpu")
    capsys.readouterr()
    assert edadm(*options) == 2
    sentence = "edadm: this network fills holes in images; name a folder with some by --images-from FOLDER\n"
    assert capsys.readouterr().err == sentence
    assert edadm(*options, "--images-from", write_images(tmp_path / "images", 5)) == 0
    told = yaml.safe_load(capsys.readouterr().out)["models"]["pipeline"]
    assert told["conditioning"]["image_folder"] == str(tmp_path / "images")
    assert told["trajectories"]["count"] == 5


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("cifar10_small", "--recipe", "w2a8"),
            "edadm: there is no recipe 'w2a8'; name one of these (w8a8: ",
        ),
        (("nothing",), "edadm: there is no file nothing; name a diffusers folder, a file of weights, or a "),
        (
            ("cifar10_small", "--device", "tpu"),
            "edadm: there is no device 'tpu'; name auto, cpu, cuda, or cuda:N",
        ),
        (("cifar10_small", "--steps", "2000"), "edadm: models.cifar10_small.sampler: "),
    ],
)
def test_mistakes_are_told_in_one_sentence(
    words: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert edadm("quantize", *words) == 2
    said = capsys.readouterr().err
    assert said.startswith(sentence)
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edadm.turnkey.run.visible_gpus", list)
    assert environment_for("auto") == ({}, False)
    assert environment_for("cpu") == ({"CUDA_VISIBLE_DEVICES": ""}, False)
    with pytest.raises(EdadmError, match="--device cuda: `nvidia-smi -L` lists no GPU here"):
        environment_for("cuda")


def test_a_command_gets_its_folder_and_variables_and_a_termination_is_passed_on(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; assert os.environ['A'] == 'b'; open('begun', 'w'); "
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); os.kill(os.getppid(), signal.SIGTERM); signal.pause()"
    )
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):  # no step has failed
        run_in(tmp_path, [sys.executable, "-c", code], {"A": "b"})
    assert (tmp_path / "begun").exists()
    assert signal.getsignal(signal.SIGTERM) == before
