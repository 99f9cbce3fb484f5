"""What sets of tensors are called: by names and shapes that one kind of network has and no other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

Shapes = Mapping[str, tuple[int, ...]]
ONLY_UNETS = "edadm quantizes U-Nets alone"
_MERGE = (
    "merge it into its U-Net (diffusers: `load_lora_weights`, `fuse_lora`, `unload_lora_weights`, `save_pretrained`), and name that folder"
)
_FLOAT = "take the model's own floating-point weights"
_BASE = "name the checkpoint of the U-Net that it belongs to"


@dataclass(frozen=True)
class Kind:
    """What a set of tensors is.

    Args:
        name: in one word, for readers in other programs.
        what: in words, with an article.
        advice: what its owner can do, where edadm cannot use it; empty where it can.
        part: which part of a model it can be: `unet`, `autoencoder`, `condition`, `all` of them, or none; `other` is a U-Net
            that no sampler here can run, beside which other parts may lie.
        layout: of its names, as a preset's `layout` has it, or `diffusers`.
    """

    name: str
    what: str
    advice: str = ""
    part: str = ""
    layout: str = ""


@dataclass(frozen=True)
class _Sign:
    """A pattern in names by which a kind is known; of several that fit, the first counts."""

    pattern: str
    kind: Kind
    without: str = "(?!)"


_U_NET = r"(?:^|\.)(?:input_blocks\.0\.0|time_embed\.0|time_embedding\.linear_1|temb\.dense\.0)\.weight$"
_ANY_U_NET = rf"{_U_NET}|^(?:unet\.|model\.diffusion_model\.)?(?:down_blocks|input_blocks)\.1\."


def _transformer(name: str, what: str) -> Kind:
    return Kind(name, f"{what} (a diffusion transformer)", ONLY_UNETS)


def _quantized(what: str) -> Kind:
    return Kind("quantized_elsewhere", f"a file that {what} quantized", f"{_FLOAT}; edadm quantizes them itself")


_FOREIGN = (
    _Sign(
        r"\.comfy_quant$|(?:^|\.)scaled_fp8$|\.scale_weight$|\.scale_input$",
        _quantized("ComfyUI (comfy_quant, scaled fp8)"),
    ),
    _Sign(
        r"\.(?:wscales|wtscale|smooth_factor|smooth_factor_orig|proj_down|wcscales)$",
        _quantized("SVDQuant (nunchaku)"),
    ),
    _Sign(r"\.(?:absmax|quant_map|SCB|weight_format)$|\.quant_state\.", _quantized("bitsandbytes")),
    _Sign(r"\.(?:qzeros|g_idx|qweight)$", _quantized("GPTQ or AWQ")),
    _Sign(
        r"\.weight\._(?:data|scale|shift)$|\.weight:_data$|\.(?:weight_scale|input_scale|weight_scale_inv|weight_scale_2)$",
        _quantized("another tool (quanto, torchao, TensorRT or compressed-tensors)"),
    ),
    _Sign(
        r"\.weight_fake_quant\.|\.activation_post_process\.|\.(?:weight_quantizer|act_quantizer|aqtizer|wqtizer)\.",
        _quantized("a program with simulated quantizers (Q-Diffusion, PTQD, torch.ao)"),
    ),
    _Sign(
        r"lora_(?:up|down|mid|A|B)\b|_lora\.(?:up|down)|lora_linear_layer|hada_w[12]|lokr_w[12]|\.dora_scale$|\.oft_blocks|^lora_(?:unet|te)",
        Kind("lora", "a LoRA (low-rank changes of a U-Net), not a U-Net", _MERGE),
    ),
    _Sign(
        r"(?:^|\.)(?:motion_modules|temporal_transformer)\.",
        Kind(
            "motion",
            "a motion module or a video U-Net (AnimateDiff)",
            ONLY_UNETS + " of single images; name the image model's checkpoint",
        ),
    ),
    _Sign(
        r"^control_model\.|^controlnet_|(?:^|\.)(?:input_hint_block|zero_convs|controlnet_cond_embedding|controlnet_down_blocks)\.",
        Kind("controlnet", "a ControlNet, not a U-Net", _BASE),
        without=r"^model\.diffusion_model\.",
    ),
    _Sign(
        r"^image_proj\.|^ip_adapter\.|\.to_[kv]_ip\.",
        Kind("ip_adapter", "an IP-Adapter (image prompts for a U-Net), not a U-Net", _BASE),
    ),
    _Sign(
        r"^(?:adapter\.)?body\.\d+\.(?:block[12]|in_conv|resnets)\b|^adapter\.(?:body|conv_in)\.",
        Kind("t2i_adapter", "a T2I-Adapter, not a U-Net", _BASE),
    ),
    _Sign(
        r"string_to_param|string_to_token|^emb_params$|^<.*>$|^\*$|^clip_[gl]$",
        Kind("textual_inversion", "a textual inversion (the embedding of one word), not a U-Net", _BASE),
    ),
    _Sign(
        r"(?:^|\.)(?:double_blocks|single_blocks|single_transformer_blocks)\.\d",
        _transformer("flux", "FLUX or a relative"),
    ),
    _Sign(
        r"(?:^|\.)joint_blocks\.\d|(?:^|\.)transformer_blocks\.\d+\.(?:attn\.add_[kqv]_proj|norm1_context)\.",
        _transformer("sd3", "Stable Diffusion 3"),
    ),
    _Sign(r"(?:^|\.)(?:adaln_single\.|caption_projection\.|t_block\.1\.)", _transformer("pixart", "PixArt")),
    _Sign(
        r"(?:^|\.)blocks\.\d+\.adaLN_modulation\.|(?:^|\.)transformer_blocks\.\d+\.norm1\.emb\.",
        _transformer("dit", "DiT, or a relative of it"),
    ),
    _Sign(
        r"(?:^|\.)(?:in_blocks|mid_block|out_blocks)(?:\.\d+)?\.attn\.qkv\.",
        _transformer("uvit", "U-ViT"),
        without=_U_NET,
    ),
    _Sign(
        r"(?:^|\.)blocks\.\d+\.(?:cross_attn|self_attn)\.|(?:^|\.)(?:x_embedder|patch_embed(?:ding)?|pos_embed)\.proj\.",
        _transformer("transformer", "a transformer over patches of an image"),
        without=r"visual\.|vision_model",
    ),
    _Sign(
        r"(?:^|\.)down_blocks\.\d+\.\d+\.(?:channelwise|mapper)\b|^clf\.1\.|(?:^|\.)effnet_mapper\.",
        Kind(
            "cascade",
            "a stage of Stable Cascade (Würstchen)",
            ONLY_UNETS + " of diffusers' and CompVis' kinds",
        ),
    ),
    _Sign(
        r"(?:^|\.)Mixed_[567][a-e]\.",
        Kind(
            "inception",
            "Inception-v3 (the network of FID), not a U-Net",
            "name it as evaluations.*.extractor_weights",
        ),
    ),
    _Sign(
        r"^lin\d\.model\.1\.weight$|^features\.\d+\.(?:0\.)?weight$",
        Kind("perceptual", "a network for comparing images (VGG, LPIPS)", _BASE),
    ),
    _Sign(
        r"RRDB_trunk|body\.\d+\.rdb\d\.|^conv_first\.",
        Kind("upscaler", "an upscaler (ESRGAN), not a U-Net", _BASE),
    ),
    _Sign(
        r"^(?:special_care_embeds|concept_embeds)",
        Kind("safety_checker", "a safety checker, not a U-Net", _BASE),
    ),
    _Sign(
        r"(?:^|\.)(?:all_modules\.\d+\.)",
        Kind(
            "score_sde",
            "a U-Net of score_sde (NCSN++, DDPM++)",
            "its names and network are not known here; diffusers has converted ones (google/ncsnpp-*), which it cannot quantize either",
        ),
        without=_U_NET,
    ),
    _Sign(
        r"(?:^|\.)(?:enc|dec)\.\d+x\d+_(?:conv|block|up|down|in)",
        Kind(
            "edm",
            "a U-Net of EDM (Karras)",
            "edadm has no such network; it takes those of ermongroup/ddim, CompVis and diffusers",
        ),
    ),
    _Sign(
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
_PARTS = (
    _Sign(
        r"(?:^|\.)(?:quant_conv|post_quant_conv|quantize\.embedding)\.|(?:^|\.)decoder\.(?:conv_in|mid|up|up_blocks)\b",
        Kind(
            "autoencoder",
            "an autoencoder (VAE) alone, not a U-Net",
            "name it as autoencoder.checkpoint, and the U-Net's as `checkpoint`",
            "autoencoder",
        ),
    ),
    _Sign(
        r"(?:^|\.)(?:vision_model|visual)\.",
        Kind(
            "clip",
            "a CLIP with its image encoder, not a U-Net",
            "edadm evaluates with it (evaluations.*.clip_weights); name the U-Net's checkpoint",
            "condition",
        ),
    ),
    _Sign(
        r"(?:^|\.)(?:token_embedding|embeddings\.word_embeddings)\.weight|^encoder\.block\.0\.layer\.|^shared\.weight$|(?:^|\.)resblocks\.\d+\.",
        Kind(
            "text_encoder",
            "a text encoder alone, not a U-Net",
            "name it as conditioning.checkpoint, and the U-Net's as `checkpoint`",
            "condition",
        ),
    ),
    _Sign(
        r"^(?:conv1|layer1\.0\.conv1|fc)\.weight$|^classifier\.\d*\.?weight$|^head\.(?:weight|fc)",
        _CLASSIFIER,
    ),
)
_FIRST = re.compile(r"^(?:model\.diffusion_model\.|unet\.)?(?:input_blocks\.0\.0|conv_in)\.weight$")
_LAST = re.compile(r"^(?:model\.diffusion_model\.|unet\.)?(?:out\.2|conv_out)\.weight$")
_CONTEXT = re.compile(r"\.attn2\.to_k\.weight$")


def kind_of(shapes: Shapes) -> Kind | None:
    """What a set of tensors is, by its names and shapes; None if it is like nothing known here.

    Args:
        shapes: sizes of tensors by name.
    """
    names = "\n".join(shapes)
    has: Callable[[str], object] = lambda pattern: re.search(pattern, names, re.MULTILINE)  # noqa: E731
    for sign in _FOREIGN:
        if has(sign.pattern) and not has(sign.without):
            return sign.kind
    if has(_ANY_U_NET):
        return _u_net(shapes, has)
    return next((sign.kind for sign in _PARTS if has(sign.pattern)), None)


def _u_net(shapes: Shapes, has: Callable[[str], object]) -> Kind:
    """Which U-Net, or whole model with one, it is."""
    whole = bool(has(r"^(?:first_stage_model|cond_stage_model|conditioner)\."))
    compvis = bool(has(r"(?:^|\.)input_blocks\.0\.0\.weight$"))
    layout = "compvis" if compvis else "ddim" if has(r"(?:^|\.)temb\.dense\.0\.weight$") else "diffusers"
    part = "all" if whole else "unet"
    if special := _special(shapes, has):
        return special
    inputs, outputs = _channels(shapes, _FIRST, 1), _channels(shapes, _LAST, 0)
    if inputs and outputs and inputs > outputs:
        name, what = _BY_CHANNELS.get((inputs, outputs), ("image_to_image", "a U-Net that is given an image beside the noise"))
        told = f"{what} ({inputs} input channels, {outputs} of them noise)"
        return Kind(name, told, "take the text-to-image model that it was made from", "other", layout)
    if has(r"^cond_stage_model\.model\.") or (_context(shapes) == 1024 and not has(r"add_embedding")):
        return Kind(
            "sd2",
            "Stable Diffusion 2",
            "edadm builds the text encoder of Stable Diffusion 1 alone; take a model of that",
            part,
            layout,
        )
    if layout == "ddim":
        return Kind("ddim", "a U-Net in the layout of ermongroup/ddim", "", part, layout)
    holds = "a whole model in CompVis' layout" if whole else f"a U-Net in {'CompVis' if compvis else 'diffusers'}' layout"
    context = _context(shapes)
    told = "with conditions" if context else "without conditions"
    family = f"Stable Diffusion 1's ({context} channels of context)" if context == 768 else told
    return Kind("latent_diffusion" if compvis else "unet", f"{holds}, {family}", "", part, layout)


_BY_CHANNELS = {
    (9, 4): ("inpainting", "an inpainting U-Net"),
    (8, 4): ("instruct_pix2pix", "an InstructPix2Pix U-Net"),
    (5, 4): ("depth", "a depth-to-image U-Net"),
    (7, 4): ("upscaling", "an upscaling U-Net"),
    (6, 3): ("super_resolution", "a super-resolution U-Net"),
}


def _special(shapes: Shapes, has: Callable[[str], object]) -> Kind | None:
    """U-Nets with more inputs than an image, a timestep and one context."""
    added = next(
        (shapes[name] for name in shapes if re.search(r"add_embedding\.linear_1\.weight$|label_emb\.0\.0\.weight$", name)),
        None,
    )
    instead = "take Stable Diffusion 1, or a model of CompVis' latent-diffusion"
    if has(r"^conditioner\.embedders\.1\.") or (added and added[-1] == 2816):
        return Kind("sdxl", "Stable Diffusion XL (base)", instead, "other")
    if has(r"^conditioner\.embedders\.0\.model\.") or (added and added[-1] == 2560):
        return Kind("sdxl_refiner", "Stable Diffusion XL's refiner", instead, "other")
    if added or has(r"(?:^|\.)(?:encoder_hid_proj|add_embedding|class_embedding)\."):
        return Kind(
            "conditioned_unet",
            "a U-Net with further embeddings (Kandinsky, DeepFloyd IF or classes)",
            instead,
            "unet",
        )
    if has(r"(?:^|\.)label_emb\.weight$"):
        return Kind(
            "adm",
            "a class-conditional U-Net of OpenAI's guided-diffusion",
            "take CompVis' LDM for ImageNet (`ldm4_imagenet`)",
            "unet",
        )
    if has(r"\.temporal_|(?:^|\.)temp_convs?\.|\.time_stack\.|\.time_mixer\."):
        return Kind("video", "a U-Net for videos", ONLY_UNETS + " of single images", "unet")
    return None


def _channels(shapes: Shapes, pattern: re.Pattern[str], axis: int) -> int | None:
    """Channels of the first or last convolution."""
    sizes = next((shapes[name] for name in shapes if pattern.search(name)), ())
    return sizes[axis] if len(sizes) == 4 else None


def _context(shapes: Shapes) -> int | None:
    """Channels of the context of the first cross-attention."""
    sizes = next((shapes[name] for name in shapes if _CONTEXT.search(name)), ())
    return sizes[1] if len(sizes) == 2 else None
