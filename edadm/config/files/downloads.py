"""Where public weights and reference data come from, where they go, and by what they are recognised.

Addresses and checksums are those that the sources named here publish. `UNKNOWN` stands where none was
published: such a file is taken as the server sends it, and its own hash is told.
"""

from __future__ import annotations

from dataclasses import dataclass

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Download:
    """A public file.

    Attributes:
        what: in words.
        url: its address.
        path: where presets look for it, relative to the working directory.
        source: who documents address and checksum.
        checksum: `md5:HEX`, `sha256:HEX` (HEX may be the beginning only), or `UNKNOWN`.
        member: the file to take out of the archive at `url`; None if that is no archive.
        remark: what else to know.
    """

    what: str
    url: str
    path: str
    source: str
    checksum: str = UNKNOWN
    member: str | None = None
    remark: str = ""


_LDM = "https://ommer-lab.com/files/latent-diffusion"
_ADM = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches"
_INCEPTION = (
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"  # both projects publish the same file
)

DOWNLOADS = {
    "ddim_cifar10": Download(
        "the DDPM of CIFAR-10 (EMA weights, converted by pesser/pytorch_diffusion)",
        "https://heibox.uni-heidelberg.de/f/2e4f01e2d9ee49bab1d5/?dl=1",
        "checkpoints/ema_cifar10.ckpt",
        "ermongroup/ddim, functions/ckpt_util.py",
        "md5:1fa350b952534ae442b1d5235cce5cd3",
    ),
    "ldm4_bedroom": Download(
        "LDM-4 of LSUN-Bedroom",
        f"{_LDM}/lsun_bedrooms.zip",
        "checkpoints/lsun_beds256/model.ckpt",
        "CompVis/latent-diffusion, README.md",
        member="model.ckpt",
    ),
    "ldm8_church": Download(
        "LDM-8 of LSUN-Church",
        f"{_LDM}/lsun_churches.zip",
        "checkpoints/lsun_churches256/model.ckpt",
        "CompVis/latent-diffusion, README.md",
        member="model.ckpt",
    ),
    "ldm4_imagenet": Download(
        "the class-conditional LDM-4 of ImageNet (cin256-v2)",
        f"{_LDM}/nitro/cin/model.ckpt",
        "checkpoints/cin256-v2/model.ckpt",
        "CompVis/latent-diffusion, README.md",
    ),
    "sd14_coco": Download(
        "Stable Diffusion v1.4",
        "https://huggingface.co/CompVis/stable-diffusion-v-1-4-original/resolve/main/sd-v1-4.ckpt",
        "checkpoints/sd-v1-4.ckpt",
        "its model page; the checksum as several public projects pin it",
        "sha256:fe4efff1e174c627256e44ec2991ba279b3816e364b49f9be2abc0b3ff3f8556",
        remark="its page may ask to log in and accept the licence; then fetch it with a browser",
    ),
    "torch_fidelity_inception": Download(
        "torch-fidelity's InceptionV3",
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "checkpoints/weights-inception-2015-12-05-6726825d.pth",
        "torch-fidelity, feature_extractor_inceptionv3.py; the checksum as several public projects pin it",
        f"sha256:{_INCEPTION}",
    ),
    "pytorch_fid_inception": Download(
        "pytorch-fid's InceptionV3",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "checkpoints/pt_inception-2015-12-05-6726825d.pth",
        "pytorch-fid, inception.py; the checksum's beginning is in the file name, the rest from a public "
        "copy's LFS pointer",
        f"sha256:{_INCEPTION}",
    ),
    "clip_vit_l_14": Download(
        "OpenAI's CLIP ViT-L/14 in open_clip's layout",
        "https://huggingface.co/timm/vit_large_patch14_clip_224.openai/resolve/main/open_clip_model.safetensors",
        "checkpoints/clip_vit_l_14.safetensors",
        "open_clip, pretrained.py (repository) and its constant for the file name",
        remark="OpenAI's own ViT-L-14.pt is a TorchScript program, which is not executed here",
    ),
    "clip_vit_l_14_336": Download(
        "OpenAI's CLIP ViT-L/14 at 336 px in open_clip's layout",
        "https://huggingface.co/timm/vit_large_patch14_clip_336.openai/resolve/main/open_clip_model.safetensors",
        "checkpoints/clip_vit_l_14_336.safetensors",
        "open_clip, pretrained.py (repository) and its constant for the file name",
    ),
    "vgg16": Download(
        "torchvision's VGG16 of ImageNet",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "checkpoints/vgg16-397923af.pth",
        "torchvision, models/vgg.py; the checksum as several public projects pin it",
        "sha256:397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    ),
    "lpips": Download(
        "the weights of LPIPS for VGG, v0.1",
        "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1/vgg.pth",
        "checkpoints/lpips_vgg.pth",
        "richzhang/PerceptualSimilarity; the checksum is that of the file in the package lpips 0.1.4",
        "sha256:a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
    ),
    "dists": Download(
        "the weights of DISTS",
        "https://github.com/dingkeyan93/DISTS/raw/master/DISTS_pytorch/weights.pt",
        "checkpoints/dists_weights.pt",
        "dingkeyan93/DISTS, whose package DISTS_pytorch on PyPI has the same file",
    ),
    "dinov2_vit_l_14": Download(
        "DINOv2's ViT-L/14 in timm's layout",
        "https://huggingface.co/timm/vit_large_patch14_dinov2.lvd142m/resolve/main/model.safetensors",
        "checkpoints/dinov2_vit_l_14.safetensors",
        "timm, models/vision_transformer.py (repository) and its constant for the file name",
    ),
    "adm_imagenet_256": Download(
        "guided-diffusion's reference batch of ImageNet 256",
        f"{_ADM}/imagenet/256/VIRTUAL_imagenet256_labeled.npz",
        "data/VIRTUAL_imagenet256_labeled.npz",
        "openai/guided-diffusion, evaluations/README.md",
    ),
    "adm_bedroom_256": Download(
        "guided-diffusion's reference batch of LSUN-Bedroom 256",
        f"{_ADM}/lsun/bedroom/VIRTUAL_lsun_bedroom256.npz",
        "data/VIRTUAL_lsun_bedroom256.npz",
        "openai/guided-diffusion, evaluations/README.md",
    ),
    "coco_captions": Download(
        "the captions of COCO val2014",
        "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
        "checkpoints/captions_val2014.json",
        "cocodataset.org, download page",
        member="annotations/captions_val2014.json",
    ),
}
