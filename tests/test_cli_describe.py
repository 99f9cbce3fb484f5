"""`edadm describe`: an entry that can be pasted, and what is left open above it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from diffusers import DDPMScheduler, UNet2DModel
from typer.testing import CliRunner

from edadm.cli import app_with
from edadm.config.load import load_config
from edadm.config.schema import NoiseSchedule
from edadm.errors import EdadmError

from .networks.described.test_tensors import project, saved
from .networks.families import random_network, tiny
from .networks.single_file import second, written

PLAIN: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "layers_per_block": 1,
}


def described(*arguments: object) -> str:
    result = CliRunner().invoke(app_with(), ["describe", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_a_diffusers_folder_is_described(tmp_path: Path) -> None:
    folder = tmp_path / "ddpm butterflies"
    random_network(UNet2DModel(**PLAIN, act_fn="mish"), 1).save_pretrained(folder / "unet")
    DDPMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=400).save_pretrained(
        folder / "scheduler"
    )
    printed = described(folder)
    assert "  # the folder's scheduler says clip_sample: true" in printed
    assert "  # the sampler is a choice (the folder names DDPMScheduler)" in printed
    entry = yaml.safe_load(printed)
    assert list(entry["models"]) == ["ddpm_butterflies"]
    model = load_config(entry).models["ddpm_butterflies"]
    assert (
        model
        == load_config({"models": {"mine": {"checkpoint": str(folder)} | _chosen(model)}}).models["mine"]
    )
    assert model.schedule == NoiseSchedule(kind="cosine", timesteps=400)
    assert model.architecture.diffusers is not None
    assert model.architecture.diffusers.act_fn == "mish"


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("1e5", "model_1e5"),
        ("fp32", "model_fp32"),
        ("ddim_cifar10", "model_ddim_cifar10"),
        ("-a" * 70, "a" + "-a" * 29),
        ("a..b", "a_b"),
    ],
)
def test_the_name_of_an_entry_is_one_that_is_read(name: str, entry: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    random_network(UNet2DModel(**PLAIN), 1).save_pretrained(folder)
    for path in (folder, folder / "config.json"):
        (tmp_path / "mine.yaml").write_text(described("--", path))
        model = load_config(tmp_path / "mine.yaml").models[entry]
        assert model.checkpoint == str(folder)


@pytest.mark.parametrize("predicted", ["v", "eps"])
def test_a_project_says_what_stable_diffusion_2_predicts(predicted: str, tmp_path: Path) -> None:
    _, _, state = second()
    path = written(state, tmp_path / "v2.safetensors")
    unet = {"use_linear_in_transformer": True, "use_spatial_transformer": True}
    params = {"parameterization": predicted, "linear_start": 0.0009, "linear_end": 0.013}
    content = {"model": {"params": params | {"unet_config": {"params": unet}}}}
    (tmp_path / "v2-inference.yaml").write_text(yaml.safe_dump(content))
    printed = described(path, "--config", tmp_path / "v2-inference.yaml")
    model = load_config(yaml.safe_load(printed)).models["v2"]
    assert model.prediction == predicted
    assert model.architecture.image_size == {"v": 96, "eps": 64}[predicted]
    assert (model.schedule.start, model.schedule.end) == (0.0009, 0.013)
    assert "prediction stands in no tensor" not in printed


def test_an_entry_does_not_go_on_top_of_a_preset(tmp_path: Path) -> None:
    random_network(UNet2DModel(**PLAIN), 1).save_pretrained(tmp_path)
    with pytest.raises(EdadmError, match="--name ddim_cifar10: there is a preset of that name"):
        described(tmp_path, "--name", "ddim_cifar10")


def _chosen(model: Any) -> dict[str, Any]:
    """What `describe` adds to what a folder says."""
    return {"trajectories": model.trajectories.model_dump(mode="json")}


def test_a_file_is_described_with_and_without_its_configuration(tmp_path: Path) -> None:
    model = tiny("ldm8_church")
    file = saved(model, tmp_path)
    (tmp_path / "project.yaml").write_text(yaml.safe_dump(project(model)))
    alone = described(file, "--name", "church")
    assert "  # architecture.image_size stands in no tensor: 64 is a guess" in alone
    printed = described(file, "--config", tmp_path / "project.yaml", "--name", "church")
    assert "image_size stands in no tensor" not in printed
    architecture = load_config(yaml.safe_load(printed)).models["church"].architecture
    assert architecture.model_copy(update={"norm_groups": 4}) == model.architecture


def test_a_file_that_lacks_a_tensor_of_its_network_is_refused(tmp_path: Path) -> None:
    state = second()[2]
    for name in ("first_stage_model.post_quant_conv.weight", "model.diffusion_model.out.2.weight"):
        del state[name]
        with pytest.raises(EdadmError, match=r"lacks the tensor '(post_quant|out\.2).*; give the whole file"):
            described(written(state, tmp_path / "x.safetensors"))


@pytest.mark.parametrize(("text", "said"), [(None, "there is no file"), ("hello", r"model\.ckpt")])
def test_what_is_no_checkpoint_is_refused(text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "model.ckpt").write_text(text)
    with pytest.raises(EdadmError, match=said):
        described(tmp_path / "model.ckpt")
