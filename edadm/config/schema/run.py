"""Settings of evaluations, runs and memory, and the configuration as a whole."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from edadm.config.inputs.statistics import Crop
from edadm.config.schema.model import AUTO, Model, Shards
from edadm.config.schema.quantization import Bits, Calibration, Reconstruction
from edadm.networks.settings.strict import Count, Strict

Extractor = Literal["cifar10_classifier", "inception", "pytorch_fid", "dinov2", "clip"]
Score = Literal[
    "fid",
    "sfid",
    "inception_score",
    "kid",
    "precision_recall",
    "cmmd",
    "clip_score",
    "class_accuracy",
    "ssim",
    "flip",
    "lpips",
    "dists",
]


class Evaluation(Strict):
    """How images are made and scored."""

    images: Count = 256
    shards: Shards = AUTO
    batch_size: Count = Field(64, description="images per sampler run")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        "fp32", description="arithmetic of the U-Net while it generates"
    )
    compiled: bool = Field(
        False,
        description="torch.compile the U-Net first: minutes once, then faster; the last bits of images "
        "differ",
    )
    seed: int = Field(0, description="image i of every variant starts from the noise of (seed, i)")
    scores: tuple[Score, ...] = Field(
        ("fid", "sfid", "inception_score"), description="what is computed; PSNR to full precision always is"
    )
    extractor: Extractor = Field(
        "cifar10_classifier",
        description="network whose features are compared: the bundled classifier, torch-fidelity's or "
        "pytorch-fid's InceptionV3, DINOv2's ViT-L/14, CLIP's ViT-L/14 at 336 px",
    )
    extractor_weights: str | None = Field(
        None, description="file with the extractor's weights; see `edadm download`"
    )
    reference: str = Field(
        "bundled:cifar10_train_statistics",
        description="real images: statistics (.h5 of `edadm reference-statistics`, .npz with mu and sigma), "
        "a folder or archive of images, or `bundled:NAME`",
    )
    fallback_reference: str | None = Field(
        None,
        description="if the Inception weights are absent, score with the bundled classifier against this "
        "(statistics or a folder); "
        "null stops with a sentence",
    )
    resolution: Count | None = Field(
        None,
        description="generated and real images are cropped to a square and resized (bicubic) to this side; "
        "null leaves them",
    )
    crop: Crop = Field(
        "square",
        description="how images come to `resolution`: the centred square, bicubic (latent diffusion's LSUN); "
        "adm: halved, bicubic, centre crop (guided-diffusion's ImageNet); box: box filter, centre crop (its "
        "LSUN)",
    )
    prompts: str | None = Field(
        None,
        description="prompts of the images in order, one per line or a JSON list (clip_score); null takes "
        "those the model is given",
    )
    clip_model: str = Field(
        "ViT-L-14-quickgelu",
        description="open_clip's name of the CLIP model, or `local-dir:PATH` for its config",
    )
    scored_at_once: Literal[8, 16, 32, 64, 128, 256] = Field(
        256,
        description="images that the networks of scores see at once: fewer take less memory; the last bits "
        "of scores depend on it",
    )
    vgg_weights: str | None = Field(
        None, description="file with torchvision's VGG16 (lpips, dists); see `edadm download`"
    )
    lpips_weights: str | None = Field(None, description="file with the weights of LPIPS for VGG, v0.1")
    dists_weights: str | None = Field(None, description="file with the weights of DISTS")
    clip_weights: str | None = Field(
        None, description="file with the CLIP weights in open_clip's layout; see `edadm download`"
    )


class Run(Strict):
    """One model and its variants: `fp32`, or CALIBRATION/BITS/RECONSTRUCTION, all names of presets.

    `/integer` or the name of another backend may follow: the same checkpoint, its images made by that
    backend, with `/integer` by integers on a CPU.
    """

    model: str
    variants: tuple[str, ...] = Field(min_length=1)
    evaluation: str = "quick"
    seeds: int = Field(
        1,
        ge=1,
        le=100,
        description="learnings of each variant, whose mean and spread the report gives; they share all else",
    )


class Memory(Strict):
    """Limits of what reconstruction keeps between computations, and where; results do not depend on it.

    Files take the rest.
    """

    device: float | None = Field(
        None, ge=0, description="GiB on the GPU, beside networks and the work itself; null takes what is free"
    )
    host: float | None = Field(None, ge=0, description="GiB of host memory; null takes what is free")


class Config(Strict):
    """A whole configuration."""

    results: str = "results"
    memory: Memory = Memory()
    runs: tuple[Run, ...] = ()
    models: dict[str, Model] = Field({})
    calibrations: dict[str, Calibration] = Field({})
    bits: dict[str, Bits] = Field({})
    reconstructions: dict[str, Reconstruction] = Field({})
    evaluations: dict[str, Evaluation] = Field({})


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file.

    Presets may also name a `base`, whose settings they then inherit.
    """
    schema = Config.model_json_schema(by_alias=True)
    for kind in ("Model", "Calibration", "Bits", "Reconstruction", "Evaluation"):
        schema["$defs"][kind]["properties"]["base"] = {
            "type": "string",
            "description": "a preset to inherit from",
        }
        schema["$defs"][kind].pop("required", None)
    return schema
