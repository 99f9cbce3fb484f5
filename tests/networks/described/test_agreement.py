"""What stands beside weights is built as diffusers builds it, or refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, UNet2DModel
from safetensors.torch import load_file, save_file

from edadm.config.described.folder import describe_folder
from edadm.config.load import load_config
from edadm.config.schema import Bits, Model, NoiseSchedule
from edadm.deploy.backends.base import lower
from edadm.deploy.checkpoint import load_quantized, save_quantized
from edadm.deploy.grids import quantized_copy
from edadm.errors import EdadmError
from edadm.networks.convert import convert_checkpoint
from edadm.networks.inputs import NAMES, Rows
from edadm.networks.load import load_network
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.parts import Autoencoder
from edadm.networks.units.trace import trace_units
from edadm.nn.insert import quantized_layers
from edadm.passes.ranges import set_ranges

from ..families import random_network, tiny

PLAIN: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (16, 32),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 8,
    "layers_per_block": 1,
}
ACROSS: dict[str, Any] = PLAIN | {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
}
OF_DDIM: dict[str, Any] = {
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "downsample_padding": 0,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}
SAME_AS_DDIM = Architecture(
    image_size=8,
    channels=16,
    multipliers=(1, 2),
    blocks_per_level=1,
    attention_resolutions=(4,),
    norm_groups=8,
)


def written(folder: Path, kind: type, settings: dict[str, Any]) -> torch.nn.Module:
    """A random network, saved by diffusers as the U-Net of a pipeline."""
    network = random_network(kind(**settings), 3)
    network.save_pretrained(folder / "unet")
    return network


def read(folder: Path, **settings: Any) -> Model:
    """An entry with nothing but the checkpoint, as `load_config` completes it (there it takes a second)."""
    return Model.model_validate(describe_folder(folder).settings | settings)


def rows(model: Model) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(2, *model.latent_shape, generator=generator)
    inputs = (latents, torch.tensor([10, 700]))
    width = model.architecture.context_channels
    return inputs if width is None else (*inputs, torch.randn(2, 5, width, generator=generator))


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return ((ours - theirs).norm() / theirs.norm()).item()


def converted(model: Model, folder: Path) -> torch.nn.Module:
    save_file(convert_checkpoint(model), folder / "unet.safetensors")
    return load_network(model.architecture, folder / "unet.safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"downsample_padding": 0, "norm_eps": 1e-3},
        {"center_input_sample": True, "mid_block_scale_factor": 2.0},
        {"flip_sin_to_cos": False, "freq_shift": 1, "norm_num_groups": 4},
        {"act_fn": "gelu", "attention_head_dim": 4},
        {"act_fn": "mish", "resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4},
        {"act_fn": "relu", "add_attention": False},
        {"downsample_type": "resnet", "upsample_type": "resnet", "time_embedding_dim": 24},
        {"in_channels": 1, "out_channels": 1, "attention_head_dim": None},
    ],
)
def test_an_unconditional_network_is_built_as_its_config_says(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    theirs = written(tmp_path, UNet2DModel, PLAIN | changes)
    model = read(tmp_path)
    inputs = rows(model)
    assert relative(converted(model, tmp_path)(*inputs).sample, theirs(*inputs).sample) < 1e-5


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_head_dim": [2, 4], "use_linear_projection": True},
        {"transformer_layers_per_block": [2, 1], "only_cross_attention": True, "act_fn": "gelu"},
        {
            "layers_per_block": [2, 1],
            "time_embedding_act_fn": "silu",
            "conv_out_kernel": 5,
            "mid_block_scale_factor": 3,
        },
    ],
)
def test_a_network_with_a_context_is_built_as_its_config_says(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    theirs = written(tmp_path, UNet2DConditionModel, ACROSS | changes)
    model = read(tmp_path)
    inputs = rows(model)
    assert relative(converted(model, tmp_path)(*inputs).sample, theirs(*inputs).sample) < 1e-5


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (UNet2DModel, PLAIN | {"act_fn": "mish", "mid_block_scale_factor": 2.0, "add_attention": False}),
        (
            UNet2DConditionModel,
            ACROSS
            | {"attention_head_dim": [2, 4], "use_linear_projection": True, "only_cross_attention": True},
        ),
    ],
)
def test_such_a_network_is_quantized_saved_and_read(
    kind: type, settings: dict[str, Any], tmp_path: Path
) -> None:
    theirs = written(tmp_path, kind, settings)
    model, bits = read(tmp_path), Bits()
    inputs = rows(model)
    network = converted(model, tmp_path)
    quantized = quantized_copy(network, bits)
    assert sum(len(unit.layers) for unit in trace_units(network)) == len(quantized_layers(quantized))
    set_ranges(quantized, Rows(dict(zip(NAMES, inputs, strict=False))), bits)
    for layer in quantized_layers(quantized).values():
        layer.set_codes(layer.nearest_codes())
    save_quantized(quantized.eval(), tmp_path / "quantized.safetensors", model.architecture, bits, {})
    again = load_quantized(tmp_path / "quantized.safetensors")
    assert torch.equal(again(*inputs).sample, quantized(*inputs).sample)
    assert relative(again(*inputs).sample, theirs(*inputs).sample) < 0.1
    assert relative(lower(again)(*inputs).sample, again(*inputs).sample) < 0.06


@pytest.mark.parametrize(
    ("key", "value", "ours"),
    [
        ("downsample_padding", 1, 0),
        ("flip_sin_to_cos", True, False),
        ("freq_shift", 0, 1),
        ("norm_eps", 1e-5, 1e-6),
        ("attention_head_dim", 8, None),
        ("norm_num_groups", 4, 8),
        ("act_fn", "gelu", "silu"),
        ("center_input_sample", True, False),
        ("mid_block_scale_factor", 2.0, 1),
        ("resnet_time_scale_shift", "scale_shift", "default"),
    ],
)
def test_another_network_than_the_presets_is_refused_by_the_key_and_both_values(
    key: str, value: object, ours: object, tmp_path: Path
) -> None:
    written(tmp_path, UNet2DModel, PLAIN | OF_DDIM | {key: value})
    model = Model(checkpoint=str(tmp_path), architecture=SAME_AS_DDIM)
    with pytest.raises(EdadmError) as caught:
        convert_checkpoint(model)
    said = str(caught.value)
    assert "unet/config.json says " in said
    assert f"{key}: {value} (the preset's network has {ours})" in said
    assert f"`edadm describe {tmp_path}`" in said
    with pytest.raises(EdadmError, match=key):
        convert_checkpoint(model.model_copy(update={"checkpoint": str(tmp_path / "unet")}))
    with pytest.raises(EdadmError, match=key):  # the file itself, with its configuration beside it
        convert_checkpoint(
            model.model_copy(
                update={"checkpoint": str(tmp_path / "unet/diffusion_pytorch_model.safetensors")}
            )
        )


def test_a_key_that_neither_side_sets_is_not_named(tmp_path: Path) -> None:
    written(tmp_path, UNet2DModel, PLAIN | OF_DDIM | {"norm_num_groups": 4})
    with pytest.raises(EdadmError) as caught:
        convert_checkpoint(Model(checkpoint=str(tmp_path), architecture=SAME_AS_DDIM))
    assert "says norm_num_groups: 4 (the preset's network has 8); run" in str(caught.value)


@pytest.mark.parametrize(
    "changes", [{}, {"dropout": 0.1}, {"sample_size": 16}, {"act_fn": "swish"}, {"attn_norm_num_groups": 8}]
)
def test_what_changes_nothing_is_not_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = written(tmp_path, UNet2DModel, PLAIN | OF_DDIM | changes)
    model = Model(checkpoint=str(tmp_path), architecture=SAME_AS_DDIM)
    inputs = rows(model)
    assert relative(converted(model, tmp_path)(*inputs).sample, theirs(*inputs).sample) < 1e-5


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    written(folder, UNet2DModel, PLAIN | OF_DDIM | {"in_channels": 4, "out_channels": 4})
    sizes = {"block_out_channels": (8, 16), "norm_num_groups": 4, "latent_channels": 4, "scaling_factor": 0.5}
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    random_network(AutoencoderKL(**sizes, **blocks), 4).save_pretrained(folder / "vae")
    DDIMScheduler(
        beta_schedule="scaled_linear", num_train_timesteps=400, prediction_type="v_prediction"
    ).save_pretrained(folder / "scheduler")
    return folder


def test_a_pipelines_scheduler_and_autoencoder_are_read(pipeline: Path) -> None:
    model = load_config({"models": {"mine": {"checkpoint": str(pipeline)}}}).models["mine"]
    assert model == read(pipeline)
    assert model.prediction == "v"
    assert model.schedule == NoiseSchedule(kind="sqrt_linear", start=1e-4, end=0.02, timesteps=400)
    sizes: dict[str, Any] = {
        "latent_channels": 4,
        "channels": 8,
        "multipliers": (1, 2),
        "blocks_per_level": 1,
        "norm_groups": 4,
    }
    assert model.autoencoder == Autoencoder(kind="kl", scale=0.5, **sizes)
    assert convert_checkpoint(model, "autoencoder")["scale_factor"] == 0.5


def test_a_scale_that_is_null_is_to_be_set(pipeline: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(pipeline, tmp_path / "null"))
    file = folder / "vae" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"scaling_factor": None}))
    model = read(folder)
    with pytest.raises(EdadmError, match=r"holds no tensor 'scale_factor'; set autoencoder\.scale"):
        convert_checkpoint(model, "autoencoder")
    assert model.autoencoder is not None
    known = model.model_copy(update={"autoencoder": model.autoencoder.model_copy(update={"scale": 0.25})})
    assert convert_checkpoint(known, "autoencoder")["scale_factor"] == 0.25
    assert "scaling_factor is null in vae/config.json" in "".join(describe_folder(folder).left_open)


@pytest.mark.parametrize(
    ("changes", "part", "said"),
    [
        ({"prediction": "eps"}, "unet", "says that the network predicts v, the preset eps"),
        (
            {"schedule": NoiseSchedule(timesteps=400)},
            "unet",
            "betas are sqrt_linear 0.0001 to 0.02 in 400 timesteps, the preset's linear",
        ),
        (
            {"schedule": NoiseSchedule(kind="sqrt_linear")},
            "unet",
            "in 400 timesteps, the preset's sqrt_linear 0.0001 to 0.02 in 1000",
        ),
        ({"scale": 0.18215}, "autoencoder", "says autoencoder.scale: 0.5, the preset 0.18215"),
        ({"norm_groups": 8}, "autoencoder", "says autoencoder.norm_groups: 4, the preset 8"),
    ],
)
def test_another_training_than_the_presets_is_refused(
    changes: dict[str, Any], part: str, said: str, pipeline: Path
) -> None:
    model = read(pipeline)
    if part == "autoencoder":
        assert model.autoencoder is not None
        changes = {"autoencoder": model.autoencoder.model_copy(update=changes)}
    with pytest.raises(EdadmError) as caught:
        convert_checkpoint(model.model_copy(update=changes), part)
    assert said in str(caught.value)


def test_a_scale_left_to_the_checkpoint_is_the_folders(pipeline: Path) -> None:
    model = read(pipeline)
    assert model.autoencoder is not None
    left = model.autoencoder.model_copy(update={"scale": None})
    assert (
        convert_checkpoint(model.model_copy(update={"autoencoder": left}), "autoencoder")["scale_factor"]
        == 0.5
    )


def test_text_encoders_are_compared(tmp_path: Path) -> None:
    from edadm.conditions.condition import build_condition_network

    model = tiny("sd14_coco", tmp_path)
    assert model.conditioning is not None
    random_network(build_condition_network(model.conditioning, 24), 1).save_pretrained(
        tmp_path / "text_encoder"
    )
    assert convert_checkpoint(model, "condition")
    file = tmp_path / "text_encoder/config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"hidden_act": "gelu"}))
    with pytest.raises(
        EdadmError, match=r"says conditioning\.encoder\.activation: gelu, the preset quick_gelu"
    ):
        convert_checkpoint(model, "condition")


def test_files_of_the_published_families_are_as_they_were() -> None:
    assert "diffusers" not in SAME_AS_DDIM.model_dump()
    assert Architecture.model_validate(SAME_AS_DDIM.model_dump()) == SAME_AS_DDIM


def test_weights_of_the_file_arrive(tmp_path: Path) -> None:
    written(tmp_path, UNet2DModel, PLAIN)
    theirs = load_file(tmp_path / "unet/diffusion_pytorch_model.safetensors")
    ours = convert_checkpoint(read(tmp_path))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("changes", [{"act_fn": "gelu"}, {"act_fn": "mish"}, {"mid_block_scale_factor": 2.0}])
def test_blocks_that_integers_arrange_anew_are_only_those_they_know(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    """The integer networks' own residual blocks apply SiLU and scale nothing."""
    from edadm.deploy.fuse.resnet import ResnetParts

    plain, other = (random_network(UNet2DModel(**PLAIN | settings), 1) for settings in ({}, changes))
    assert all(ResnetParts.fits(network) for network in plain.mid_block.resnets)
    assert not any(ResnetParts.fits(network) for network in other.mid_block.resnets)


def test_only_what_differs_is_named(tmp_path: Path) -> None:
    written(tmp_path, UNet2DModel, PLAIN | {"attention_head_dim": 8})
    sizes = SAME_AS_DDIM.model_dump() | {"family": "ldm"}
    same, other = (Architecture.model_validate(sizes | {"head_channels": channels}) for channels in (8, 16))
    assert convert_checkpoint(Model(checkpoint=str(tmp_path), layout="compvis", architecture=same))
    with pytest.raises(
        EdadmError, match=r"says attention_head_dim: 8 \(the preset's network has 16\); run `edadm describe"
    ):
        convert_checkpoint(Model(checkpoint=str(tmp_path), layout="compvis", architecture=other))
