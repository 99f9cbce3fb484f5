"""What sets of tensors are called: by names and shapes that one kind of network has and no other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from edadm.networks.weights.known.signs import ANY_U_NET, FOREIGN, ONLY_UNETS, PARTS, Kind

Shapes = Mapping[str, tuple[int, ...]]
_FIRST = re.compile(r"^(?:model\.diffusion_model\.|unet\.)?(?:input_blocks\.0\.0|conv_in)\.weight$")
_LAST = re.compile(r"^(?:model\.diffusion_model\.|unet\.)?(?:out\.2|conv_out)\.weight$")
_ADDED = re.compile(r"(?:add_embedding\.linear_1|label_emb\.0\.0)\.weight$")
_CONTEXT = re.compile(r"\.attn2\.to_k\.weight$")


def kind_of(shapes: Shapes) -> Kind | None:
    """What a set of tensors is, by its names and shapes; None if it is like nothing known here.

    Args:
        shapes: sizes of tensors by name.
    """
    names = "\n".join(shapes)
    has: Callable[[str], object] = lambda pattern: re.search(pattern, names, re.MULTILINE)  # noqa: E731
    for sign in FOREIGN:
        if has(sign.pattern) and not has(sign.without):
            return sign.kind
    if has(ANY_U_NET):
        return _u_net(shapes, has)
    return next((sign.kind for sign in PARTS if has(sign.pattern)), None)


def _u_net(shapes: Shapes, has: Callable[[str], object]) -> Kind:
    """Which U-Net, or whole model with one, it is."""
    whole = bool(has(r"^(?:first_stage_model|cond_stage_model|conditioner)\."))
    compvis = bool(has(r"(?:^|\.)input_blocks\.0\.0\.weight$"))
    layout = "compvis" if compvis else "ddim" if has(r"(?:^|\.)temb\.dense\.0\.weight$") else "diffusers"
    part = "all" if whole else "unet"
    if special := _special(shapes, has, layout):
        return special
    inputs, outputs = _channels(shapes, _FIRST, 1), _channels(shapes, _LAST, 0)
    if inputs and outputs and inputs > outputs:
        return _given_an_image(inputs, outputs, part, layout)
    if inputs and outputs and outputs > inputs:
        told = f"{_VARIANCE if outputs == 2 * inputs else _MORE} ({inputs} input channels, {outputs} output)"
        return Kind("other_outputs", told, "take one that predicts what it is given", "other", layout)
    author = "CompVis'" if compvis else "diffusers'"
    holds = f"{'a whole model' if whole else 'a U-Net'} in {author} layout"
    if has(r"^cond_stage_model\.model\.") or (_context(shapes) == 1024 and not has(r"add_embedding")):
        return Kind("sd2", f"{holds}, Stable Diffusion 2's (1024 channels of context)", "", part, layout)
    if layout == "ddim":
        return Kind("ddim", "a U-Net in the layout of ermongroup/ddim", "", part, layout)
    context = _context(shapes)
    told = "with conditions" if context else "without conditions"
    family = f"Stable Diffusion 1's ({context} channels of context)" if context == 768 else told
    return Kind("latent_diffusion" if compvis else "unet", f"{holds}, {family}", "", part, layout)


_VARIANCE = "a U-Net that predicts a variance, too"
_MORE = "a U-Net that predicts more than it is given"
_OTHER_CHANNELS = ("image_to_image", "a U-Net that is given an image beside the noise")
_EDITED = ("inpainting", "instruct_pix2pix")
_BY_CHANNELS = {
    (9, 4): ("inpainting", "an inpainting U-Net"),
    (8, 4): ("instruct_pix2pix", "an InstructPix2Pix U-Net"),
    (5, 4): ("depth", "a depth-to-image U-Net"),
    (7, 4): ("upscaling", "an upscaling U-Net"),
    (6, 3): ("super_resolution", "a super-resolution U-Net"),
}


def _given_an_image(inputs: int, outputs: int, part: str, layout: str) -> Kind:
    """A U-Net that is given an image behind the noise; two kinds can be built here."""
    name, what = _BY_CHANNELS.get((inputs, outputs), _OTHER_CHANNELS)
    told = f"{what} ({inputs} input channels, {outputs} of them noise)"
    if name in _EDITED:
        return Kind(name, told, "", part, layout)
    return Kind(name, told, "take the text-to-image model that it was made from", "other", layout)


def _special(shapes: Shapes, has: Callable[[str], object], layout: str) -> Kind | None:
    """U-Nets with more inputs than an image, a timestep and one context."""
    added = next((shapes[name] for name in shapes if _ADDED.search(name)), None)
    instead = "take Stable Diffusion 1, or a model of CompVis' latent-diffusion"
    xl = ""
    if has(r"^conditioner\.embedders\.1\.") or (added and added[-1] == 2816):
        xl = "Stable Diffusion XL (base)"
    elif added and (has(r"^conditioner\.embedders\.0\.model\.") or added[-1] == 2560):
        xl = "Stable Diffusion XL's refiner"
    if xl:
        part = "all" if has(r"^conditioner\.") else "unet"
        holds = "a whole model" if part == "all" else "a U-Net"
        author = "diffusers'" if layout == "diffusers" else "CompVis'"
        name = "sdxl_refiner" if "refiner" in xl else "sdxl"
        return Kind(name, f"{holds} of {xl} in {author} layout", "", part, layout)
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
