"""Writes tiny checkpoints of every family as others lay them out, without edadm: `originals.py FOLDER`."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

WIDTHS, BLOCKS, CONTEXT, VOCABULARY, TOKENS = (8, 16), 1, 24, 49408, 16
UNET = {"sample_size": 8, "block_out_channels": WIDTHS, "layers_per_block": BLOCKS, "norm_num_groups": 4}
State = dict[str, Tensor]


class Weights:
    """A state dict that grows by random layers of unit gain."""

    def __init__(self, seed: int):
        self.state: State = {}
        self.generator = torch.Generator().manual_seed(seed)

    def random(self, *shape: int) -> Tensor:
        """Normal numbers."""
        return torch.randn(shape, generator=self.generator)

    def layer(self, name: str, *shape: int, bias: bool = True) -> None:
        """A convolution or a linear layer, whose weight has the shape."""
        self.state[f"{name}.weight"] = self.random(*shape) / math.sqrt(math.prod(shape[1:]))
        if bias:
            self.state[f"{name}.bias"] = 0.1 * self.random(shape[0])

    def norm(self, name: str, channels: int) -> None:
        """A normalisation with its own scale and shift."""
        self.state[f"{name}.weight"] = 1 + 0.1 * self.random(channels)
        self.state[f"{name}.bias"] = 0.1 * self.random(channels)

    def below(self, prefix: str) -> State:
        """The state dict with a prefix before every name."""
        return {f"{prefix}{name}": tensor for name, tensor in self.state.items()}


def pixel_block(to: Weights, name: str, inputs: int, outputs: int, embedding: int | None) -> None:
    """A res-block of ermongroup/ddim, which CompVis' autoencoders have without time."""
    to.norm(f"{name}.norm1", inputs)
    to.layer(f"{name}.conv1", outputs, inputs, 3, 3)
    if embedding:
        to.layer(f"{name}.temb_proj", outputs, embedding)
    to.norm(f"{name}.norm2", outputs)
    to.layer(f"{name}.conv2", outputs, outputs, 3, 3)
    if inputs != outputs:
        to.layer(f"{name}.nin_shortcut", outputs, inputs, 1, 1)


def pixel_attention(to: Weights, name: str, channels: int) -> None:
    """An attention of the same code."""
    to.norm(f"{name}.norm", channels)
    for part in ("q", "k", "v", "proj_out"):
        to.layer(f"{name}.{part}", channels, channels, 1, 1)


def pixel_middle(to: Weights, channels: int, embedding: int | None) -> None:
    """What is between the way down and the way up."""
    pixel_block(to, "mid.block_1", channels, channels, embedding)
    pixel_attention(to, "mid.attn_1", channels)
    pixel_block(to, "mid.block_2", channels, channels, embedding)


def ddim(seed: int) -> Weights:
    """A U-Net of ermongroup/ddim with attention at its second level."""
    to, embedding = Weights(seed), 4 * WIDTHS[0]
    to.layer("temb.dense.0", embedding, WIDTHS[0])
    to.layer("temb.dense.1", embedding, embedding)
    to.layer("conv_in", WIDTHS[0], 3, 3, 3)
    skips, current = [WIDTHS[0]], WIDTHS[0]
    for level, width in enumerate(WIDTHS):
        pixel_block(to, f"down.{level}.block.0", current, width, embedding)
        current = width
        skips.append(current)
        if level:
            pixel_attention(to, f"down.{level}.attn.0", current)
        else:
            to.layer("down.0.downsample.conv", current, current, 3, 3)
            skips.append(current)
    pixel_middle(to, current, embedding)
    for level in (1, 0):
        for block in range(BLOCKS + 1):
            pixel_block(to, f"up.{level}.block.{block}", current + skips.pop(), WIDTHS[level], embedding)
            current = WIDTHS[level]
            if level:
                pixel_attention(to, f"up.1.attn.{block}", current)
    to.layer("up.1.upsample.conv", WIDTHS[1], WIDTHS[1], 3, 3)
    to.norm("norm_out", current)
    to.layer("conv_out", 3, current, 3, 3)
    return to


def latent_block(to: Weights, name: str, inputs: int, outputs: int, film: bool) -> None:
    """A res-block of CompVis."""
    to.norm(f"{name}.in_layers.0", inputs)
    to.layer(f"{name}.in_layers.2", outputs, inputs, 3, 3)
    to.layer(f"{name}.emb_layers.1", outputs * (2 if film else 1), 4 * WIDTHS[0])
    to.norm(f"{name}.out_layers.0", outputs)
    to.layer(f"{name}.out_layers.3", outputs, outputs, 3, 3)
    if inputs != outputs:
        to.layer(f"{name}.skip_connection", outputs, inputs, 1, 1)


def latent_attention(to: Weights, name: str, channels: int, context: int | None) -> None:
    """An attention of CompVis; over a context, a SpatialTransformer."""
    to.norm(f"{name}.norm", channels)
    if context is None:
        to.layer(f"{name}.qkv", 3 * channels, channels, 1)
        to.layer(f"{name}.proj_out", channels, channels, 1)
        return
    to.layer(f"{name}.proj_in", channels, channels, 1, 1)
    inner = f"{name}.transformer_blocks.0"
    for attention, width in (("attn1", channels), ("attn2", context)):
        to.layer(f"{inner}.{attention}.to_q", channels, channels, bias=False)
        for part in ("to_k", "to_v"):
            to.layer(f"{inner}.{attention}.{part}", channels, width, bias=False)
        to.layer(f"{inner}.{attention}.to_out.0", channels, channels)
    to.layer(f"{inner}.ff.net.0.proj", 8 * channels, channels)
    to.layer(f"{inner}.ff.net.2", channels, 4 * channels)
    for norm in ("norm1", "norm2", "norm3"):
        to.norm(f"{inner}.{norm}", channels)
    to.layer(f"{name}.proj_out", channels, channels, 1, 1)


def latent_unet(seed: int, channels: int, context: int | None = None, film: bool = False) -> Weights:
    """A U-Net of CompVis with attention at its second level; with `film`, res-blocks halve and double."""
    to, embedding = Weights(seed), 4 * WIDTHS[0]
    to.layer("time_embed.0", embedding, WIDTHS[0])
    to.layer("time_embed.2", embedding, embedding)
    to.layer("input_blocks.0.0", WIDTHS[0], channels, 3, 3)
    latent_block(to, "input_blocks.1.0", WIDTHS[0], WIDTHS[0], film)
    if film:
        latent_block(to, "input_blocks.2.0", WIDTHS[0], WIDTHS[0], film)
    else:
        to.layer("input_blocks.2.0.op", WIDTHS[0], WIDTHS[0], 3, 3)
    latent_block(to, "input_blocks.3.0", WIDTHS[0], WIDTHS[1], film)
    latent_attention(to, "input_blocks.3.1", WIDTHS[1], context)
    latent_block(to, "middle_block.0", WIDTHS[1], WIDTHS[1], film)
    latent_attention(to, "middle_block.1", WIDTHS[1], context)
    latent_block(to, "middle_block.2", WIDTHS[1], WIDTHS[1], film)
    skips, current = [WIDTHS[0], WIDTHS[0], WIDTHS[0], WIDTHS[1]], WIDTHS[1]
    for block in range(4):
        width = WIDTHS[1] if block < 2 else WIDTHS[0]
        latent_block(to, f"output_blocks.{block}.0", current + skips.pop(), width, film)
        current = width
        if block < 2:
            latent_attention(to, f"output_blocks.{block}.1", current, context)
    if film:
        latent_block(to, "output_blocks.1.2", WIDTHS[1], WIDTHS[1], film)
    else:
        to.layer("output_blocks.1.2.conv", WIDTHS[1], WIDTHS[1], 3, 3)
    to.norm("out.0", current)
    to.layer("out.2", channels, current, 3, 3)
    return to


def transformer(seed: int, width: int, blocks: int, classes: int) -> Weights:
    """DiT's transformer of patches of 2 x 2 over latents of 4 channels, which predicts a variance, too."""
    to = Weights(seed)
    to.layer("x_embedder.proj", width, 4, 2, 2)
    to.layer("t_embedder.mlp.0", width, 256)
    to.layer("t_embedder.mlp.2", width, width)
    to.layer("y_embedder.embedding_table", classes + 1, width, bias=False)
    for block in range(blocks):
        to.layer(f"blocks.{block}.attn.qkv", 3 * width, width)
        to.layer(f"blocks.{block}.attn.proj", width, width)
        to.layer(f"blocks.{block}.mlp.fc1", 4 * width, width)
        to.layer(f"blocks.{block}.mlp.fc2", width, 4 * width)
        to.layer(f"blocks.{block}.adaLN_modulation.1", 6 * width, width)
    to.layer("final_layer.linear", 2 * 2 * 8, width)
    to.layer("final_layer.adaLN_modulation.1", 2 * width, width)
    return to


def autoencoder(seed: int, latent: int, codes: int | None) -> State:
    """An autoencoder of CompVis: with a codebook, or else with a mean and a variance."""
    to, moments = Weights(seed), latent if codes else 2 * latent
    to.layer("conv_in", WIDTHS[0], 3, 3, 3)
    pixel_block(to, "down.0.block.0", WIDTHS[0], WIDTHS[0], None)
    to.layer("down.0.downsample.conv", WIDTHS[0], WIDTHS[0], 3, 3)
    pixel_block(to, "down.1.block.0", WIDTHS[0], WIDTHS[1], None)
    pixel_middle(to, WIDTHS[1], None)
    to.norm("norm_out", WIDTHS[1])
    to.layer("conv_out", moments, WIDTHS[1], 3, 3)
    state = to.below("encoder.")
    to = Weights(seed + 1)
    to.layer("conv_in", WIDTHS[1], latent, 3, 3)
    pixel_middle(to, WIDTHS[1], None)
    for level, inputs in ((1, WIDTHS[1]), (0, WIDTHS[1])):
        pixel_block(to, f"up.{level}.block.0", inputs, WIDTHS[level], None)
        pixel_block(to, f"up.{level}.block.1", WIDTHS[level], WIDTHS[level], None)
    to.layer("up.1.upsample.conv", WIDTHS[1], WIDTHS[1], 3, 3)
    to.norm("norm_out", WIDTHS[0])
    to.layer("conv_out", 3, WIDTHS[0], 3, 3)
    state |= to.below("decoder.")
    to = Weights(seed + 2)
    to.layer("quant_conv", moments, moments, 1, 1)
    to.layer("post_quant_conv", latent, latent, 1, 1)
    if codes:
        to.layer("quantize.embedding", codes, latent, bias=False)
    return state | to.state


def text_encoder() -> CLIPTextModel:
    """CLIP's text encoder with two layers."""
    sizes = {
        "hidden_size": CONTEXT,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = CLIPTextConfig(vocab_size=VOCABULARY, max_position_embeddings=TOKENS, **sizes)
    return randomised(CLIPTextModel(config), 7)


def randomised(network: nn.Module, seed: int) -> nn.Module:
    """The same network with random parameters of unit gain."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            gain = math.sqrt(math.prod(parameter.shape[1:])) if parameter.ndim > 1 else 10
            centre = 1 if parameter.ndim == 1 and name.endswith("weight") else 0
            parameter.copy_(centre + drawn / gain)
    return network.eval()


def compvis(path: Path, unet: Weights, averaged: Weights, first_stage: State, condition: State) -> None:
    """A Lightning file with averages that differ, schedule buffers, and a loss that nobody needs."""
    state = {"betas": torch.zeros(1000), "scale_factor": torch.tensor(0.25)}
    state |= unet.below("model.diffusion_model.")
    squeezed = {name.replace(".", ""): tensor for name, tensor in averaged.state.items()}
    state |= {f"model_ema.diffusion_model{name}": tensor for name, tensor in squeezed.items()}
    state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(1)}
    state |= {f"first_stage_model.{name}": tensor for name, tensor in first_stage.items()}
    state["first_stage_model.loss.discriminator.weight"] = torch.zeros(2)
    state |= {f"cond_stage_model.{name}": tensor for name, tensor in condition.items()}
    torch.save({"state_dict": state, "epoch": 3}, path)


def write(folder: Path) -> None:
    """All originals, as `presets.yaml` names them."""
    folder.mkdir()
    (folder / "prompts.txt").write_text("".join(f"a picture of {number} boats\n" for number in range(6)))
    raw, averaged = ddim(1), ddim(2)
    torch.save([raw.below("module."), {"state": {}}, 9, 10, averaged.below("module.")], folder / "ddim.ckpt")

    words = text_encoder()
    names = {name: tensor for name, tensor in words.state_dict().items() if "position_ids" not in name}
    prefix = "" if next(iter(names)).startswith("text_model.") else "text_model."
    text = {f"transformer.{prefix}{name}": tensor for name, tensor in names.items()}
    classes = {"embedding.weight": Weights(6).random(11, 12)}
    vq, kl = autoencoder(40, 3, 32), autoencoder(50, 4, None)
    compvis(folder / "plain.ckpt", latent_unet(3, 3), latent_unet(4, 3), vq, {})
    compvis(folder / "film.ckpt", latent_unet(5, 4, film=True), latent_unet(6, 4, film=True), kl, {})
    compvis(folder / "classes.ckpt", latent_unet(7, 3, 12), latent_unet(8, 3, 12), vq, classes)
    compvis(folder / "text.ckpt", latent_unet(9, 4, CONTEXT), latent_unet(10, 4, CONTEXT), kl, text)

    torch.save(transformer(14, 32, 2, 10).state, folder / "dit.pt")

    blocks = {
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    own = {
        "attention_head_dim": 4,
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
    }
    randomised(UNet2DModel(**UNET, **blocks, **own), 11).save_pretrained(folder / "unconditional" / "unet")

    across = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D")}
    own = {
        "cross_attention_dim": CONTEXT,
        "attention_head_dim": 2,
        "use_linear_projection": True,
        "transformer_layers_per_block": 2,
    }
    pipeline = folder / "conditional"
    randomised(UNet2DConditionModel(**UNET, **across, **own), 12).save_pretrained(pipeline / "unet")
    sides = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
    }
    sizes = {"block_out_channels": WIDTHS, "norm_num_groups": 4, "scaling_factor": 0.25}
    randomised(AutoencoderKL(**sides, **sizes), 13).save_pretrained(pipeline / "vae")
    words.save_pretrained(pipeline / "text_encoder")
    DDIMScheduler(prediction_type="v_prediction").save_pretrained(pipeline / "scheduler")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
