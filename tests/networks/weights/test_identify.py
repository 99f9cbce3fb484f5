"""What a file is said to be."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edadm.networks.convert import convert_checkpoint
from edadm.networks.weights import CheckpointError, check_fit, read_state
from edadm.networks.weights.known.identify import identify
from edadm.networks.weights.known.kinds import kind_of
from edadm.networks.weights.reading import open_container

from ..families import original_checkpoint, tiny

PAGE = b"<!DOCTYPE html>\n<html><head><title>Log in</title></head></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3438167540\n"
FILES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "it is an empty file; download it again"),
    "pointer": (
        POINTER,
        r"it is a Git-LFS pointer, which stands for the file itself; fetch that with `git lfs pull`",
    ),
    "page": (PAGE, "it is a web page .*; download it again, where you are logged in"),
    "page behind a mark": (b"\xef\xbb\xbf\n <html>", "it is a web page"),
    "error": (
        b'{"error":"Repository not found"}',
        r"it is JSON text \('\{\"error\":\"Repository not found\"\}'\)",
    ),
    "config": (
        json.dumps({"_class_name": "UNet2DModel"}).encode(),
        "it is the configuration of a network .*; name its folder",
    ),
    "index": (
        json.dumps({"weight_map": {}}).encode(),
        "it is the index of a checkpoint in several files; name its folder",
    ),
    "text": ("Größe: 5\nlr: 1e-4\n".encode(), r"it is a text \('Gr\\xf6\\xdfe: 5 lr: 1e-4'\)"),
    "gguf": (
        b"GGUF\x03\0\0\0" + bytes(20),
        "it is a GGUF file .*; take the model's own floating-point weights",
    ),
    "onnx": (
        b"\x08\x0a\x12\x07pytorch\x1a\x052.1.0",
        "it is an ONNX graph; take the weights that it was exported from",
    ),
    "flax": (b"\x81\xa6params\x82\xa7conv_in", r"it is a Flax file \(msgpack\); .*from_flax=True"),
    "tensorflow": (
        bytes(range(1, 60)) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb",
        "it is a part of a TensorFlow checkpoint",
    ),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(9), "it is an HDF5 file"),
    "numpy": (b"\x93NUMPY\x01\0", "it is an array of numpy"),
    "gzip": (gzip.compress(b"x"), "it is a gzip archive; unpack it"),
    "zstd": (b"\x28\xb5\x2f\xfd\0\0", "it is a zstd archive"),
    "picture": (b"\x89PNG\r\n\x1a\n", r"it is an image \(PNG\)"),
    "zeros": (bytes(5000), "it is a file that begins with zeros"),
    "tar": (bytes(257) + b"ustar\x0000" + bytes(255), "it is a tar archive, or a PyTorch file of 2016"),
    "noise": (bytes([200, 3, 255, 0, 17] * 40), "is it complete"),
}


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
@pytest.mark.parametrize("what", FILES)
def test_what_is_no_checkpoint_is_called_what_it_is(what: str, suffix: str, tmp_path: Path) -> None:
    path, (content, told) = tmp_path / f"m.{suffix}", FILES[what]
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"m\.{suffix} cannot be read as a checkpoint.*{told}"):
        read_state(path)


def test_what_was_cut_short_is_said_to_be(tmp_path: Path) -> None:
    state, path = {"a.weight": torch.ones(500)}, tmp_path / "m"
    for save, told in (
        (torch.save, "the end of its archive is missing"),
        (save_file, r"[\d,]+ of [\d,]+ bytes are there"),
    ):
        save(state, path)
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(CheckpointError, match=rf"\(it is cut short: {told}\); is it complete"):
            read_state(path)
    torch.save(state, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckpointError, match="it is cut short"):
        read_state(path)
    path.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    with pytest.raises(CheckpointError, match="it is cut short, or no safetensors file"):
        read_state(path)


def named(*names: str, **sizes: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(names, (4, 4)) | sizes


SD = {
    "model.diffusion_model.input_blocks.0.0.weight": (320, 4, 3, 3),
    "model.diffusion_model.out.2.weight": (4, 320, 3, 3),
}
DIFFUSERS = {
    "conv_in.weight": (32, 4, 3, 3),
    "time_embedding.linear_1.weight": (8, 8),
    "conv_out.weight": (4, 32, 3, 3),
}
KINDS: dict[str, tuple[dict[str, tuple[int, ...]], str]] = {
    "kohya LoRA": (
        named(
            "lora_unet_down_blocks_0_attn1_to_q.lora_down.weight", "lora_unet_down_blocks_0_attn1_to_q.alpha"
        ),
        "lora",
    ),
    "peft LoRA": (named("unet.down_blocks.1.attentions.0.attn1.to_q.lora_A.weight"), "lora"),
    "LoRA of diffusers 0.20": (
        named("conv_in.weight", "down_blocks.0.attentions.0.attn1.to_q.lora_layer.up.weight"),
        "lora",
    ),
    "LoHa": (named("lora_unet_mid_block.hada_w1_a"), "lora"),
    "injected LoRA": (
        named("base_model.model.conv_in.lora_B.default.weight", "base_model.model.conv_in.base_layer.weight"),
        "lora",
    ),
    "learned variances": (SD | {"model.diffusion_model.out.2.weight": (8, 320, 3, 3)}, "other_outputs"),
    "ControlNet of CompVis' names": (
        named("control_model.input_blocks.0.0.weight", "control_model.zero_convs.0.0.weight"),
        "controlnet",
    ),
    "ControlNet of diffusers": (
        DIFFUSERS | named("controlnet_cond_embedding.conv_in.weight"),
        "controlnet",
    ),
    "T2I-Adapter": (named("adapter.body.0.resnets.0.block1.weight"), "t2i_adapter"),
    "T2I-Adapter, first names": (
        named("body.0.block1.weight", "body.0.in_conv.weight", "conv_in.weight"),
        "t2i_adapter",
    ),
    "IP-Adapter": (named("image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"), "ip_adapter"),
    "textual inversion": ({"<cat-toy>": (768,)}, "textual_inversion"),
    "motion module": (named("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight"), "motion"),
    "VAE": (named("encoder.conv_in.weight", "decoder.conv_in.weight", "quant_conv.weight"), "autoencoder"),
    "VAE of diffusers": (
        named("encoder.down_blocks.1.resnets.0.conv1.weight", "decoder.up_blocks.0.a.weight"),
        "autoencoder",
    ),
    "text encoder": (named("text_model.embeddings.token_embedding.weight"), "text_encoder"),
    "T5": (named("shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"), "text_encoder"),
    "CLIP": (named("visual.conv1.weight", "token_embedding.weight"), "clip"),
    "SD 1": (
        SD | {"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768)},
        "latent_diffusion",
    ),
    "SD 2": (
        SD | {"model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024)},
        "sd2",
    ),
    "SD 2 of diffusers": (
        DIFFUSERS | {"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (320, 1024)},
        "sd2",
    ),
    "inpainting": (SD | {"model.diffusion_model.input_blocks.0.0.weight": (320, 9, 3, 3)}, "inpainting"),
    "inpainting of diffusers": (DIFFUSERS | {"conv_in.weight": (32, 9, 3, 3)}, "inpainting"),
    "InstructPix2Pix": (
        SD | {"model.diffusion_model.input_blocks.0.0.weight": (320, 8, 3, 3)},
        "instruct_pix2pix",
    ),
    "SDXL": (SD | {"model.diffusion_model.label_emb.0.0.weight": (1280, 2816)}, "sdxl"),
    "SDXL of diffusers": (DIFFUSERS | {"add_embedding.linear_1.weight": (1280, 2816)}, "sdxl"),
    "SDXL refiner": (SD | {"model.diffusion_model.label_emb.0.0.weight": (1536, 2560)}, "sdxl_refiner"),
    "SD 3": (named("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"), "sd3"),
    "FLUX": (named("double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"), "flux"),
    "FLUX of diffusers": (named("single_transformer_blocks.0.attn.to_q.weight", "x_embedder.weight"), "flux"),
    "PixArt": (named("adaln_single.linear.weight", "transformer_blocks.0.attn1.to_q.weight"), "pixart"),
    "DiT": (named("x_embedder.proj.weight", "blocks.0.adaLN_modulation.1.weight"), "dit"),
    "ComfyUI's fp8": (
        SD | named("model.diffusion_model.out.2.scale_weight", "scaled_fp8"),
        "quantized_elsewhere",
    ),
    "comfy_quant": (SD | named("model.diffusion_model.out.2.comfy_quant"), "quantized_elsewhere"),
    "SVDQuant": (
        named("transformer_blocks.0.qkv_proj.wscales", "transformer_blocks.0.qkv_proj.qweight"),
        "quantized_elsewhere",
    ),
    "bitsandbytes": (
        DIFFUSERS | named("conv_in.weight.absmax", "conv_in.weight.quant_map"),
        "quantized_elsewhere",
    ),
    "Inception": (named("Mixed_5b.branch1x1.conv.weight", "fc.weight"), "inception"),
    "ddim": (named("temb.dense.0.weight", "conv_in.weight"), "ddim"),
    "diffusers": (DIFFUSERS, "unet"),
    "ADM": (
        {
            "input_blocks.0.0.weight": (32, 3, 3, 3),
            "out.2.weight": (6, 32, 3, 3),
            "label_emb.weight": (1000, 8),
        },
        "adm",
    ),
    "score_sde": (named("all_modules.0.W", "all_modules.1.weight"), "score_sde"),
    "EDM": (named("model.enc.32x32_conv.weight"), "edm"),
}


@pytest.mark.parametrize("what", KINDS)
def test_sets_of_tensors_are_called_what_they_are(what: str) -> None:
    shapes, name = KINDS[what]
    kind = kind_of(shapes)
    assert kind is not None
    assert kind.name == name


def test_networks_of_this_project_are_known(tmp_path: Path) -> None:
    for family, told in (
        ("ldm4_bedroom", "a whole model in CompVis' layout, without conditions"),
        ("sd14_coco", "with conditions"),
    ):
        save_file(
            {name: tensor.contiguous() for name, tensor in original_checkpoint(tiny(family)).items()},
            tmp_path / "m",
        )
        found = identify(open_container(tmp_path / "m"), tmp_path / "m")
        assert found.kind is not None
        assert told in found.kind.what
        assert (found.kind.part, found.kind.layout, found.kind.advice) == ("all", "compvis", "")
        assert found.averaged == "'model_ema'"


def refused(content: Any, path: Path, part: str = "unet") -> str:
    torch.save(content, path)
    with pytest.raises(CheckpointError) as caught:
        convert_checkpoint(tiny("sd14_coco", path), part)
    return str(caught.value)


def test_conversion_says_what_a_file_is_and_what_can_be_done(tmp_path: Path) -> None:
    path = tmp_path / "m.ckpt"
    lora = {
        "lora_unet_mid.lora_up.weight": torch.zeros(2, 2),
        "lora_unet_mid.lora_down.weight": torch.zeros(2, 2),
    }
    assert refused(lora, path).startswith(
        f"{path} is a LoRA (low-rank changes of a U-Net), not a U-Net; merge it into its U-Net"
    )
    vae = {"decoder.conv_in.weight": torch.zeros(2, 2, 3, 3), "quant_conv.weight": torch.zeros(2, 2, 1, 1)}
    assert refused(vae, path) == (
        f"{path} is an autoencoder (VAE) alone, not a U-Net; name it as autoencoder.checkpoint, and the U-Net's as `checkpoint`"
    )
    whole = {
        name: tensor
        for name, tensor in original_checkpoint(tiny("sd14_coco")).items()
        if not name.startswith("model_ema.")
    }
    first = "model.diffusion_model.input_blocks.0.0.weight"
    whole[first] = torch.zeros(16, 7, 3, 3)
    assert (
        "is an upscaling U-Net (7 input channels, 4 of them noise); take the text-to-image model"
        in refused(whole, path)
    )
    assert convert_checkpoint(tiny("sd14_coco", path), "condition"), "its text encoder is Stable Diffusion's"
    assert "holds no U-Net" in (told := refused({"blob.weight": torch.zeros(2)}, path))
    assert told.endswith("; its first names are 'blob.weight', which are of no network known here")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"string_to_param": {"*": torch.zeros(1, 768)}, "name": "cat"}, "a textual inversion"),
        (
            {
                "image_proj": {"proj.weight": torch.zeros(2)},
                "ip_adapter": {"1.to_k_ip.weight": torch.zeros(2)},
            },
            "an IP-Adapter",
        ),
        ({768: [torch.zeros(2)], "name": "style"}, "named by numbers"),
        ({"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}, "the state of a training"),
    ],
)
def test_containers_that_are_no_networks_are_called_what_they_are(
    content: Any, told: str, tmp_path: Path
) -> None:
    assert told in refused(content, tmp_path / "m.pt")


def test_a_quantized_checkpoint_of_edadm_is_not_taken_for_floats(tmp_path: Path) -> None:
    path = tmp_path / "quantized.safetensors"
    save_file({"conv_in.codes": torch.zeros(2, dtype=torch.uint8)}, path, {"edadm": '{"format_version": 2}'})
    found = identify(open_container(path), path)
    assert found.kind is not None
    assert found.kind.what == "a quantized checkpoint of edadm"


def test_a_misfit_is_told_with_what_the_file_is() -> None:
    expected = {name: torch.zeros(size) for name, size in DIFFUSERS.items()}
    wider = {
        **expected,
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": torch.zeros(3, 1024),
    }
    with pytest.raises(
        CheckpointError,
        match=r"which the preset's network lacks; `architecture.multipliers` decides that, and `edadm describe`",
    ):
        check_fit(wider, expected, Path("m"))


def test_archives_of_numpy_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", mu=np.zeros(2))
    with pytest.raises(CheckpointError, match=r"is an archive of numpy arrays \(\.npz\), not weights"):
        read_state(tmp_path / "m.npz")
