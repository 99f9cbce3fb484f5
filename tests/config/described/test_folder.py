"""What public folders say, key by key, and which keys are refused; JSON alone, without networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edadm.config.described.folder import describe_folder
from edadm.config.load import load_config
from edadm.config.rules.timesteps import visited
from edadm.errors import EdadmError

# As public pipelines of the kind have them; Stable Diffusion 1's where nothing else is said.
UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.6.0",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "in_channels": 4,
    "layers_per_block": 2,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    "dual_cross_attention": False,
    "class_embed_type": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
}
VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.18215,
    "force_upcast": True,
    "shift_factor": None,
}
ENCODER: dict[str, Any] = {
    "architectures": ["CLIPTextModel"],
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "model_type": "clip_text_model",
    "vocab_size": 49408,
    "top_k": 50,
}
SCHEDULER: dict[str, Any] = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "prediction_type": "v_prediction",
    "steps_offset": 1,
    "timestep_values": None,
}
_FILES = {"scheduler": "scheduler_config.json", "tokenizer": "tokenizer_config.json"}


def written(folder: Path, **parts: dict[str, Any]) -> Path:
    for name, content in parts.items():
        (folder / name).mkdir()
        (folder / name / _FILES.get(name, "config.json")).write_text(json.dumps(content))
    return folder


def test_stable_diffusion_2_is_read_whole(tmp_path: Path) -> None:
    unet = UNET | {
        "attention_head_dim": [5, 10, 20, 20],
        "cross_attention_dim": 1024,
        "use_linear_projection": True,
        "sample_size": 96,
    }
    parts = {"text_encoder": ENCODER, "tokenizer": {"pad_token": "!"}, "scheduler": SCHEDULER, "vae": VAE}
    folder = written(tmp_path, unet=unet, **parts)
    model = load_config(
        {"models": {"two": {"checkpoint": str(folder), "conditioning": {"kind": "text", "prompts": "p.txt"}}}}
    ).models["two"]
    assert model.prediction == "v"
    assert (model.schedule.kind, model.schedule.start, model.schedule.end) == ("sqrt_linear", 0.00085, 0.012)
    assert model.sampler.spacing == "uniform_from_one"
    assert model.architecture.image_size == 96
    assert model.condition_shapes == {"context": (77, 1024)}
    assert model.architecture.level_channels == (320, 640, 1280, 1280)
    assert model.architecture.diffusers is not None
    assert model.architecture.diffusers.attention_head_dim == (5, 10, 20, 20)
    assert model.conditioning is not None
    encoder = model.conditioning.encoder
    assert (encoder.activation, encoder.padding, encoder.layers, encoder.heads) == ("gelu", "zero", 23, 16)
    assert model.autoencoder is not None
    assert (model.autoencoder.scale, model.autoencoder.factor) == (0.18215, 8)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_without_a_tokenizer_padding_is_what_is_usual_for_the_encoder(
    activation: str, tmp_path: Path
) -> None:
    unet, encoder = UNET | {"cross_attention_dim": 1024}, ENCODER | {"hidden_act": activation}
    folder = written(tmp_path, unet=unet, text_encoder=encoder, scheduler=SCHEDULER, vae=VAE)
    found = describe_folder(folder)
    said = [sentence for sentence in found.left_open if "padding" in sentence]
    assert found.settings["conditioning"]["encoder"].get("padding") == {"gelu": "zero"}.get(activation)
    if activation == "gelu":
        assert said == [
            "conditioning.encoder.padding: there is no tokenizer/tokenizer_config.json; zero is usual for "
            "OpenCLIP's text encoders (Stable Diffusion 2 and XL)"
        ]
    else:  # the default is OpenAI's
        assert said == []


@pytest.mark.parametrize("kind", ["EulerAncestralDiscreteScheduler", "PNDMScheduler", "DDIMScheduler"])
def test_trailing_timesteps_are_visited_by_a_solver_and_said_of_distilled_networks(
    kind: str, tmp_path: Path
) -> None:
    said = {"_class_name": kind, "timestep_spacing": "trailing", "skip_prk_steps": True}
    unet = UNET | {"cross_attention_dim": 1024}
    parts = {"unet": unet, "text_encoder": ENCODER, "vae": VAE, "scheduler": SCHEDULER | said}
    found = describe_folder(written(tmp_path, **parts))
    assert found.settings["sampler"] == {"method": "dpm_solver++", "steps": 50, "spacing": "trailing"}
    (sentence,) = [line for line in found.left_open if "trailing" in line]
    assert "set sampler.steps, and conditioning.guidance (1 is none), to what its makers say" in sentence
    model = load_config({"models": {"turbo": {"checkpoint": str(tmp_path), "sampler": {"steps": 4}}}}).models
    assert visited(model["turbo"].sampler, 1000) == [999, 749, 499, 249]
    plain = {name: value for name, value in SCHEDULER.items() if name != "timestep_spacing"}
    (tmp_path / "scheduler/scheduler_config.json").write_text(
        json.dumps(plain | {"timestep_spacing": "leading"})
    )
    assert describe_folder(tmp_path).settings["sampler"]["method"] == "ddim"


def test_an_entry_of_ones_own_goes_before_what_the_folder_says(tmp_path: Path) -> None:
    folder = written(
        tmp_path, unet=UNET | {"cross_attention_dim": 1024}, text_encoder=ENCODER, scheduler=SCHEDULER
    )
    own = {
        "sampler": {"method": "ddim", "steps": 10},
        "conditioning": {"kind": "text", "prompts": "p.txt", "guidance": 3.0},
    }
    model = load_config({"models": {"mine": {"checkpoint": str(folder)} | own}}).models["mine"]
    assert (model.sampler.steps, model.sampler.spacing, model.guidance) == (10, "uniform_from_one", 3.0)
    without = load_config({"models": {"mine": {"checkpoint": str(folder)}}}).models["mine"]
    assert without.conditioning is not None
    assert without.conditioning.prompts is None  # asked for where it is run


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "scheduler"])
def test_values_of_no_known_kind_end_in_one_sentence(part: str, tmp_path: Path) -> None:
    unet = UNET | {"cross_attention_dim": 1024}
    scheduler = SCHEDULER | {"trained_betas": None}
    parts = {"unet": unet, "vae": VAE, "text_encoder": ENCODER, "scheduler": scheduler}
    folder = written(tmp_path, **parts)
    file = folder / part / _FILES.get(part, "config.json")
    for key in parts[part]:
        for value in ("x", [], {}, -1, 0, 1e30, [1, "x"], [[1]], None, True):
            file.write_text(json.dumps(parts[part] | {key: value}))
            sentence = str(file)  # where the value changes nothing
            try:
                describe_folder(folder)
            except EdadmError as error:
                sentence = str(error)
            assert str(file) in sentence
            assert "\n" not in sentence


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    folder = written(tmp_path, unet=UNET)
    file = folder / "unet" / "config.json"
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert describe_folder(folder).settings["architecture"]["context_channels"] == 768


@pytest.mark.parametrize(
    ("part", "key", "value", "said"),
    [
        ("vae", "act_fn", "gelu", 'act_fn: "gelu", and only silu is built here'),
        (
            "text_encoder",
            "vocab_size",
            100,
            "vocab_size: 100, and prompts are cut into CLIP's 49408 tokens here",
        ),
    ],
)
def test_a_parts_other_values_are_refused_with_their_reason(
    part: str, key: str, value: object, said: str, tmp_path: Path
) -> None:
    parts = {"unet": UNET | {"cross_attention_dim": 1024}, "vae": VAE, "text_encoder": ENCODER}
    with pytest.raises(EdadmError, match=said):
        describe_folder(written(tmp_path, **parts | {part: parts[part] | {key: value}}))


def test_a_sampler_of_distilled_networks_is_refused_as_such(tmp_path: Path) -> None:
    folder = written(tmp_path, unet=UNET, scheduler=SCHEDULER | {"_class_name": "LCMScheduler"})
    with pytest.raises(
        EdadmError, match=r'says _class_name: "LCMScheduler", and networks that were distilled'
    ):
        describe_folder(folder)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("unet", "_class_name", "SanaTransformer2DModel"),
        ("unet", "addition_embed_type", "text_time"),
        ("unet", "class_embed_type", "timestep"),
        ("unet", "num_class_embeds", 10),
        ("unet", "time_cond_proj_dim", 256),
        ("unet", "encoder_hid_dim", 4096),
        ("unet", "dual_cross_attention", True),
        ("unet", "num_attention_heads", 8),
        ("unet", "mid_block_type", None),
        ("unet", "mid_block_type", "UNetMidBlock2D"),
        ("unet", "attention_type", "gated"),
        ("unet", "cross_attention_dim", [768, 1024]),
        ("unet", "sample_size", [64, 96]),
        ("unet", "act_fn", "elu"),
        ("unet", "norm_num_groups", None),
        ("unet", "layers_per_block", "two"),
        ("unet", "down_block_types", ["SkipDownBlock2D"] * 4),
        ("unet", "a_key_of_2030", 1),
        ("unet", "out_channels", 8),
        ("unet", "downsample_type", "resnet"),
        ("vae", "_class_name", "AutoencoderTiny"),
        ("vae", "latents_mean", [0.1]),
        ("vae", "use_post_quant_conv", False),
        ("vae", "act_fn", "relu"),
        ("vae", "down_block_types", ["AttnDownEncoderBlock2D"] * 4),
        ("text_encoder", "model_type", "t5"),
        ("text_encoder", "hidden_act", "relu"),
        ("text_encoder", "layer_norm_eps", 1e-6),
        ("text_encoder", "vocab_size", 30000),
        ("scheduler", "_class_name", "EDMEulerScheduler"),
        ("scheduler", "rescale_betas_zero_snr", True),
        ("scheduler", "prediction_type", "flow"),
        ("scheduler", "beta_schedule", "sigmoid"),
        ("scheduler", "trained_betas", [0.1, 2.0]),
        ("scheduler", "num_train_timesteps", "1000"),
        ("scheduler", "beta_start", None),
        ("scheduler", "use_flow_sigmas", True),
        ("tokenizer", "pad_token", "<pad>"),
    ],
)
def test_what_is_not_built_is_refused_by_its_key(part: str, key: str, value: object, tmp_path: Path) -> None:
    parts = {
        "unet": UNET | {"cross_attention_dim": 1024},
        "vae": VAE,
        "text_encoder": ENCODER,
        "scheduler": SCHEDULER,
    }
    parts["tokenizer"] = {"pad_token": {"content": "!"}}
    assert describe_folder(written(tmp_path, **parts))
    (tmp_path / part / _FILES.get(part, "config.json")).write_text(json.dumps(parts[part] | {key: value}))
    with pytest.raises(EdadmError) as caught:
        describe_folder(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / part / _FILES.get(part, 'config.json')} says {key}: ")
    assert "\n" not in said


def test_sizes_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        EdadmError,
        match=r"unet/config\.json describes no network that can be built: norm_num_groups 48 does not divide",
    ):
        describe_folder(written(tmp_path, unet=UNET | {"norm_num_groups": 48}))


@pytest.mark.parametrize("value", [None, False])
def test_an_unknown_key_that_switches_nothing_on_is_taken(value: object, tmp_path: Path) -> None:
    assert describe_folder(written(tmp_path, unet=UNET | {"a_key_of_2030": value}))


def test_broken_files_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path, unet=UNET)
    for content in (b"{", b"[]", b"\xff\xfe"):
        (folder / "unet/config.json").write_bytes(content)
        with pytest.raises(
            EdadmError, match=r"unet/config\.json (cannot be read as JSON|holds no JSON object)"
        ):
            describe_folder(folder)


def test_a_pipeline_without_a_unet_is_refused(tmp_path: Path) -> None:
    sentence = (
        '_class_name: "FluxTransformer2DModel", and only UNet2DModel, UNet2DConditionModel, '
        "DiTTransformer2DModel, PixArtTransformer2DModel and SD3Transformer2DModel are built here"
    )
    with pytest.raises(EdadmError, match=sentence):
        describe_folder(written(tmp_path, transformer={"_class_name": "FluxTransformer2DModel"}))


def test_an_autoencoder_without_a_scale_has_diffusers_own_and_says_so(tmp_path: Path) -> None:
    vae = {key: value for key, value in VAE.items() if key != "scaling_factor"}
    found = describe_folder(
        written(tmp_path, unet=UNET | {"cross_attention_dim": 1024}, vae=vae, text_encoder=ENCODER)
    )
    assert found.settings["autoencoder"]["scale"] == 0.18215
    assert any("scaling_factor is not set in vae/config.json" in sentence for sentence in found.left_open)
    assert any("prediction and schedule are guesses" in sentence for sentence in found.left_open)


def test_a_sampler_visits_no_more_timesteps_than_there_are(tmp_path: Path) -> None:
    betas = {"trained_betas": [0.1] * 10, "steps_offset": 1}
    found = describe_folder(written(tmp_path, unet=UNET, scheduler=SCHEDULER | betas))
    assert found.settings["sampler"]["steps"] == 9


@pytest.mark.parametrize(("kind", "clips"), [("DDIMScheduler", True), ("PNDMScheduler", False)])
def test_clipping_that_no_key_tells_of_is_named(kind: str, clips: bool, tmp_path: Path) -> None:
    found = describe_folder(written(tmp_path, unet=UNET, scheduler=SCHEDULER | {"_class_name": kind}))
    assert any("clip_sample: true" in line for line in found.left_open) == clips
