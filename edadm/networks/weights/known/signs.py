"""Patterns in names by which kinds of networks, and files of other tools, are known."""

from __future__ import annotations

from dataclasses import dataclass

ONLY_UNETS = "edadm quantizes U-Nets, DiT and PixArt alone"
_MERGE = "merge it into its U-Net with `edadm convert-checkpoint --lora FILE:0.8`, and name what that writes"
_FLOAT = "take the model's own floating-point weights"
_BASE = "name the checkpoint of the U-Net that it belongs to"


@dataclass(frozen=True)
class Kind:
    """What a set of tensors is.

    Args:
        name: in one word, for readers in other programs.
        what: in words, with an article.
        advice: what its owner can do, where edadm cannot use it; empty where it can.
        part: of a model, that it can be: `unet`, `autoencoder`, `condition`, `all` of them, or none;
            `other` is a U-Net that no sampler here can run, beside which other parts may lie.
        layout: of its names, as a preset's `layout` has it, or `diffusers`.
    """

    name: str
    what: str
    advice: str = ""
    part: str = ""
    layout: str = ""


@dataclass(frozen=True)
class Sign:
    """A pattern in names by which a kind is known; of several that fit, the first counts."""

    pattern: str
    kind: Kind
    without: str = "(?!)"


_U_NET = r"(?:^|\.)(?:input_blocks\.0\.0|time_embed\.0|time_embedding\.linear_1|temb\.dense\.0)\.weight$"
ANY_U_NET = rf"{_U_NET}|^(?:unet\.|model\.diffusion_model\.)?(?:down_blocks|input_blocks)\.1\."


_STREAMS = r"(?:^|\.)transformer_blocks\.\d+\.(?:attn\.add_[kqv]_proj|norm1_context)\."  # SD3's in diffusers
_PIXART = r"(?:^|\.)(?:caption_projection|y_embedder\.y_proj)\.(?:linear_1|fc1)\.weight$"  # and so is this
_CLASSES = r"(?:^|\.)(?:y_embedder|class_embedder)\.embedding_table\.weight$"  # DiT's, which is built here


def _any(*patterns: str) -> str:
    return "|".join(patterns)


def _transformer(name: str, what: str) -> Kind:
    return Kind(name, f"{what} (a diffusion transformer)", ONLY_UNETS)


def _quantized(what: str) -> Kind:
    advice = f"{_FLOAT}; edadm quantizes them itself"
    return Kind("quantized_elsewhere", f"a file that {what} quantized", advice)


FOREIGN = (
    Sign(
        r"\.comfy_quant$|(?:^|\.)scaled_fp8$|\.scale_weight$|\.scale_input$",
        _quantized("ComfyUI (comfy_quant, scaled fp8)"),
    ),
    Sign(
        r"\.(?:wscales|wtscale|smooth_factor|smooth_factor_orig|proj_down|wcscales)$",
        _quantized("SVDQuant (nunchaku)"),
    ),
    Sign(r"\.(?:absmax|quant_map|SCB|weight_format)$|\.quant_state\.", _quantized("bitsandbytes")),
    Sign(r"\.(?:qzeros|g_idx|qweight)$", _quantized("GPTQ or AWQ")),
    Sign(
        _any(
            r"\.weight\._(?:data|scale|shift)$",
            r"\.weight:_data$",
            r"\.(?:weight_scale|input_scale|weight_scale_inv|weight_scale_2)$",
        ),
        _quantized("another tool (quanto, torchao, TensorRT or compressed-tensors)"),
    ),
    Sign(
        _any(
            r"\.weight_fake_quant\.",
            r"\.activation_post_process\.",
            r"\.(?:weight_quantizer|act_quantizer|aqtizer|wqtizer)\.",
        ),
        _quantized("a program with simulated quantizers (Q-Diffusion, PTQD, torch.ao)"),
    ),
    Sign(
        _any(
            r"lora_(?:up|down|mid|A|B)\b",
            r"_lora\.(?:up|down)",
            r"lora_(?:linear_)?layer",
            r"hada_w[12]",
            r"lokr_w[12]",
            r"\.dora_scale$",
            r"\.oft_blocks",
            r"^lora_(?:unet|te)",
        ),
        Kind("lora", "a LoRA (low-rank changes of a U-Net), not a U-Net", _MERGE),
    ),
    Sign(
        r"(?:^|\.)(?:motion_modules|temporal_transformer)\.",
        Kind(
            "motion",
            "a motion module or a video U-Net (AnimateDiff)",
            ONLY_UNETS + " of single images; name the image model's checkpoint",
        ),
    ),
    Sign(
        _any(
            r"^control_model\.",
            r"^controlnet_",
            r"(?:^|\.)(?:input_hint_block|zero_convs|controlnet_cond_embedding|controlnet_down_blocks)\.",
        ),
        Kind("controlnet", "a ControlNet, not a U-Net", _BASE),
        without=r"^model\.diffusion_model\.",
    ),
    Sign(
        r"^image_proj\.|^ip_adapter\.|\.to_[kv]_ip\.",
        Kind("ip_adapter", "an IP-Adapter (image prompts for a U-Net), not a U-Net", _BASE),
    ),
    Sign(
        r"^(?:adapter\.)?body\.\d+\.(?:block[12]|in_conv|resnets)\b|^adapter\.(?:body|conv_in)\.",
        Kind("t2i_adapter", "a T2I-Adapter, not a U-Net", _BASE),
    ),
    Sign(
        r"string_to_param|string_to_token|^emb_params$|^<.*>$|^\*$|^clip_[gl]$",
        Kind("textual_inversion", "a textual inversion (the embedding of one word), not a U-Net", _BASE),
    ),
    Sign(
        r"(?:^|\.)(?:double_blocks|single_blocks|single_transformer_blocks)\.\d",
        _transformer("flux", "FLUX or a relative"),
    ),
    Sign(
        r"(?:^|\.)joint_blocks\.\d",
        _transformer("sd3", "Stable Diffusion 3, in its makers' layout"),
    ),
    Sign(
        r"(?:^|\.)(?:adaln_single\.|caption_projection\.|t_block\.1\.)",
        _transformer("pixart", "a relative of PixArt"),
        without=r"(?:^|\.)(?:pos_embed\.proj|blocks\.0\.cross_attn\.q_linear)\.weight$",
    ),
    Sign(
        r"(?:^|\.)blocks\.\d+\.adaLN_modulation\.|(?:^|\.)transformer_blocks\.\d+\.norm1\.emb\.",
        _transformer("dit", "a relative of DiT that is told no class"),
        without=_CLASSES,
    ),
    Sign(
        r"(?:^|\.)(?:in_blocks|mid_block|out_blocks)(?:\.\d+)?\.attn\.qkv\.",
        _transformer("uvit", "U-ViT"),
        without=_U_NET,
    ),
    Sign(
        _any(
            r"(?:^|\.)blocks\.\d+\.(?:cross_attn|self_attn)\.",
            r"(?:^|\.)(?:x_embedder|patch_embed(?:ding)?|pos_embed)\.proj\.",
        ),
        _transformer("transformer", "a transformer over patches of an image"),
        without=rf"visual\.|vision_model|{_CLASSES}|{_STREAMS}|{_PIXART}",
    ),
    Sign(
        r"(?:^|\.)down_blocks\.\d+\.\d+\.(?:channelwise|mapper)\b|^clf\.1\.|(?:^|\.)effnet_mapper\.",
        Kind(
            "cascade",
            "a stage of Stable Cascade (Würstchen)",
            ONLY_UNETS + " of diffusers' and CompVis' kinds",
        ),
    ),
    Sign(
        r"(?:^|\.)Mixed_[567][a-e]\.",
        Kind(
            "inception",
            "Inception-v3 (the network of FID), not a U-Net",
            "name it as evaluations.*.extractor_weights",
        ),
    ),
    Sign(
        r"^lin\d\.model\.1\.weight$|^features\.\d+\.(?:0\.)?weight$",
        Kind("perceptual", "a network for comparing images (VGG, LPIPS)", _BASE),
    ),
    Sign(
        r"RRDB_trunk|body\.\d+\.rdb\d\.|^conv_first\.",
        Kind("upscaler", "an upscaler (ESRGAN), not a U-Net", _BASE),
    ),
    Sign(
        r"^(?:special_care_embeds|concept_embeds)",
        Kind("safety_checker", "a safety checker, not a U-Net", _BASE),
    ),
    Sign(
        r"(?:^|\.)(?:all_modules\.\d+\.)",
        Kind(
            "score_sde",
            "a U-Net of score_sde (NCSN++, DDPM++)",
            "edadm has no such network; it takes those of ermongroup/ddim, CompVis and diffusers",
        ),
        without=_U_NET,
    ),
    Sign(
        r"(?:^|\.)(?:enc|dec)\.\d+x\d+_(?:conv|block|up|down|in)",
        Kind(
            "edm",
            "a U-Net of EDM (Karras)",
            "edadm has no such network; it takes those of ermongroup/ddim, CompVis and diffusers",
        ),
    ),
    Sign(
        r"(?:^|\.)(?:downs|ups)\.\d+\.\d+\.(?:block1|blocks|res_conv|fn|proj)?\.?",
        Kind(
            "lucidrains",
            "a U-Net of denoising-diffusion-pytorch",
            "edadm has no such network; it takes those of ermongroup/ddim, CompVis and diffusers",
        ),
        without=_U_NET,
    ),
)
_CLASSIFIER = Kind("classifier", "a classifier of images, not a U-Net", _BASE)
_OF_TEXT = "a diffusion transformer that is told a text (PixArt), not a U-Net"
_DIT = "a diffusion transformer that is told classes (DiT), not a U-Net"
PARTS = (
    Sign(_STREAMS, Kind("sd3", "a transformer of Stable Diffusion 3, not a U-Net", "", "unet", "diffusers")),
    Sign(r"(?:^|\.)y_embedder\.embedding_table\.weight$", Kind("dit", _DIT, "", "unet", "dit")),
    Sign(r"(?:^|\.)t_block\.1\.weight$", Kind("pixart", _OF_TEXT, "", "unet", "pixart")),
    Sign(r"(?:^|\.)adaln_single\.linear\.weight$", Kind("pixart", _OF_TEXT, "", "unet", "diffusers")),
    Sign(r"(?:^|\.)class_embedder\.embedding_table\.weight$", Kind("dit", _DIT, "", "unet", "diffusers")),
    Sign(
        _any(
            r"(?:^|\.)(?:quant_conv|post_quant_conv|quantize\.embedding)\.",
            r"(?:^|\.)decoder\.(?:conv_in|mid|up|up_blocks)\b",
        ),
        Kind(
            "autoencoder",
            "an autoencoder (VAE) alone, not a U-Net",
            "name it as autoencoder.checkpoint, and the U-Net's as `checkpoint`",
            "autoencoder",
        ),
    ),
    Sign(
        r"(?:^|\.)(?:vision_model|visual)\.",
        Kind(
            "clip",
            "a CLIP with its image encoder, not a U-Net",
            "edadm evaluates with it (evaluations.*.clip_weights); name the U-Net's checkpoint",
            "condition",
        ),
    ),
    Sign(
        _any(
            r"(?:^|\.)(?:token_embedding|embeddings\.word_embeddings)\.weight",
            r"^encoder\.block\.0\.layer\.",
            r"^shared\.weight$",
            r"(?:^|\.)resblocks\.\d+\.",
        ),
        Kind(
            "text_encoder",
            "a text encoder alone, not a U-Net",
            "name it as conditioning.checkpoint, and the U-Net's as `checkpoint`",
            "condition",
        ),
    ),
    Sign(
        r"^(?:conv1|layer1\.0\.conv1|fc)\.weight$|^classifier\.\d*\.?weight$|^head\.(?:weight|fc)",
        _CLASSIFIER,
    ),
)
