"""What a configuration may say: every setting with its range, its default and its unit."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """Refuses unknown keys and later changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class UNetArchitecture(Strict):
    """Sizes of the ermongroup/ddim U-Net."""

    image_size: Count = 32
    in_channels: Count = 3
    channels: Count = Field(128, description="channels of the first level")
    multipliers: tuple[Count, ...] = Field((1, 2, 2, 2), description="channels of each level, as multiples of the first")
    blocks_per_level: Count = Field(2, description="res-blocks per level on the way down; one more on the way up")
    attention_resolutions: tuple[Count, ...] = (16,)
    norm_groups: Count = Field(32, description="groups of every GroupNorm")


class NoiseSchedule(Strict):
    """Betas of the forward process."""

    kind: Literal["linear", "sqrt_linear"] = "linear"
    start: float = Field(1e-4, gt=0, lt=1)
    end: float = Field(2e-2, gt=0, lt=1)
    timesteps: Count = 1000


class Sampler(Strict):
    """How noise becomes images."""

    method: Literal["ddim"] = "ddim"
    steps: Count = 100
    spacing: Literal["uniform", "quadratic", "uniform_from_one"] = "quadratic"
    eta: float = Field(0.0, ge=0, description="0 is deterministic, 1 is ancestral")


class Trajectories(Strict):
    """Full-precision sampler runs that are recorded."""

    count: Count = Field(1024, description="sampler runs, of which calibration takes one state each")
    batch_size: Count = Field(64, description="runs per batch; a killed collection loses at most one batch")
    feature_rows: Count = Field(64, description="first runs whose mid-block features feed TDAC")
    shards: Count = Field(1, description="jobs among which the runs are divided")
    seed: int = 1234


class Model(Strict):
    """A full-precision model, its sampler, and the trajectories recorded from it."""

    checkpoint: str = Field(description="a file, or `bundled:NAME` for weights inside the package")
    layout: Literal["ddim"] = Field("ddim", description="key layout of the checkpoint")
    architecture: UNetArchitecture = UNetArchitecture()
    schedule: NoiseSchedule = NoiseSchedule()
    sampler: Sampler = Sampler()
    trajectories: Trajectories = Trajectories()

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the network sees."""
        return (self.architecture.in_channels, self.architecture.image_size, self.architecture.image_size)


class Calibration(Strict):
    """Which (x_t, t) the quantizers see."""

    selector: Literal["normal", "random", "tdac", "uniform"] = "tdac"
    size: Count = Field(1024, description="calibration samples")
    held_out: int = Field(0, ge=0, description="further samples that nothing learns from, to report unit errors on")
    density_weight: float = Field(1.0, ge=0, description="weight of density (TDAC); 0 leaves variety alone")
    lambda_: float = Field(1.2, ge=0, alias="lambda", description="weight of variety against density (TDAC)")
    radius: float = Field(3.0, gt=0, description="mean squared feature distance of neighbouring steps (TDAC)")
    every: Count = Field(1, description="k of every k-th sampler step (uniform; Q-Diffusion's 20 of 100 steps are 5)")
    seed: int = 1234


class LayerBits(Strict):
    """Bits of one layer, chosen by name pattern; null leaves its input, or the whole layer, in floating point."""

    weights: Annotated[int, Field(ge=2, le=8)] | None
    activations: Annotated[int, Field(ge=2, le=8)] | None

    @model_validator(mode="after")
    def _float_weights_take_float_inputs(self) -> LayerBits:
        if self.weights is None and self.activations is not None:
            raise ValueError("weights in floating point need activations: null; quantize both or leave both")
        return self


class Bits(Strict):
    """Widths and grids."""

    weights: int = Field(8, ge=2, le=8)
    activations: int = Field(8, ge=2, le=8)
    softmax: int = Field(8, ge=2, le=8, description="bits of the attention weights")
    split_shortcuts: bool = Field(True, description="two grids where a skip is concatenated (method: split quantization)")
    layers: dict[str, LayerBits] = Field(
        {"time_embedding.linear_1": LayerBits(weights=8, activations=8), "conv_out": LayerBits(weights=8, activations=None)},
        description="exceptions by name pattern; the default follows the official code (first registered and last layer)",
    )
    activation_grid: Literal["symmetric", "asymmetric"] = Field(
        "symmetric", description="ends of two-sided activation ranges: opposite, as the official code has it, or searched one by one"
    )
    range_batch_size: Count = Field(256, description="rows per update of the activation ranges")
    range_momentum: Share = Field(0.1, description="share of a new batch in the running activation range")
    range_bins: Count | None = Field(8192, description="histogram bins of the activation range search; null searches exactly")


class Reconstruction(Strict):
    """How rounding and step sizes are learned."""

    method: Literal["fbr", "block", "layer", "fbr_float_inputs", "none"] = Field(
        "fbr", description="none: nearest; layer: AdaRound; block: BRECQ; fbr: EDA-DM; fbr_float_inputs: the same, units independent"
    )
    iterations: Count = Field(5000, description="Adam steps per unit")
    unit_iterations: dict[str, Count] = Field({}, description="exceptions to `iterations` by name pattern of the unit")
    batch_size: Count = Field(32, description="rows per Adam step")
    weight_lr: float = Field(0.5, gt=0, description="learning rate of the rounding variables")
    scale_lr: float = Field(5e-4, gt=0, description="learning rate of the activation step sizes, or of their logarithms")
    scale_parameter: Literal["linear", "log"] = Field("linear", description="what is learned: step sizes, or their logarithms")
    layer_weight: float = Field(0.8, ge=0, description="weight of the inner layers' errors (gamma)")
    without_layer_errors: tuple[Literal["res_block", "attention", "transformer"], ...] = Field(
        (), description="kinds of units that learn from their own error alone, as the official code's do by accident where it checkpoints"
    )
    rounding_weight: float = Field(0.0, ge=0, description="weight of AdaRound's regulariser; the official code has none")
    mix_probability: Share = Field(0.5, description="chance that an input element comes from the quantized path")
    drop_probability: float = Field(0.5, ge=0, lt=1, description="chance that an activation stays unquantized while learning (QDrop)")
    bias_correction: bool = Field(False, description="afterwards, biases take up the mean error of each output channel")
    precision: Literal["tf32", "fp32", "bf16"] = Field("tf32", description="arithmetic of learning on a GPU; tf32 is PyTorch's default")
    chain_batch_size: Count = Field(128, description="rows per paused forward pass")
    jobs: Count = Field(1, description="jobs that share the units; only with method fbr_float_inputs")
    seed: int = 1234

    @model_validator(mode="after")
    def _only_independent_units_can_be_shared(self) -> Reconstruction:
        if self.jobs > 1 and self.method != "fbr_float_inputs":
            raise ValueError(f"units of method '{self.method}' wait for each other; set jobs: 1, or method: fbr_float_inputs")
        return self


Extractor = Literal["cifar10_classifier", "inception", "pytorch_fid"]
Score = Literal["fid", "sfid", "inception_score", "kid", "precision_recall", "clip_score"]


class Evaluation(Strict):
    """How images are made and scored."""

    images: Count = 256
    shards: Count = 1
    batch_size: Count = Field(64, description="images per sampler run")
    seed: int = Field(0, description="image i of every variant starts from the noise of (seed, i)")
    scores: tuple[Score, ...] = Field(("fid", "sfid", "inception_score"), description="what is computed; PSNR to full precision always is")
    extractor: Extractor = Field(
        "cifar10_classifier",
        description="network whose features are compared: the bundled classifier, torch-fidelity's or pytorch-fid's InceptionV3",
    )
    extractor_weights: str | None = Field(None, description="file with the Inception weights; see `edadm download`")
    reference: str = Field(
        "bundled:cifar10_train_statistics",
        description="real images: statistics (.h5 of `edadm reference-statistics`, .npz with mu and sigma), a folder, or `bundled:NAME`",
    )
    fallback_reference: str | None = Field(
        None,
        description="if the Inception weights are absent, score with the bundled classifier against this (statistics or a folder); "
        "null stops with a sentence",
    )
    resolution: Count | None = Field(
        None, description="generated and real images are cropped to a square and resized (bicubic) to this side; null leaves them"
    )
    prompts: str | None = Field(None, description="prompts of the images in order, one per line or a JSON list (clip_score)")
    clip_model: str = Field("ViT-L-14-quickgelu", description="open_clip's name of the CLIP model, or `local-dir:PATH` for its config")
    clip_weights: str | None = Field(None, description="file with the CLIP weights in open_clip's layout; see `edadm download`")


class Run(Strict):
    """One model and its variants: `fp32` or CALIBRATION/BITS/RECONSTRUCTION, all names of presets."""

    model: str
    variants: tuple[str, ...] = Field(min_length=1)
    evaluation: str = "quick"


class Config(Strict):
    """A whole configuration."""

    results: str = "results"
    runs: tuple[Run, ...] = ()
    models: dict[str, Model] = {}
    calibrations: dict[str, Calibration] = {}
    bits: dict[str, Bits] = {}
    reconstructions: dict[str, Reconstruction] = {}
    evaluations: dict[str, Evaluation] = {}


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file; presets may also name a `base`, whose settings they then inherit."""
    schema = Config.model_json_schema(by_alias=True)
    for kind in ("Model", "Calibration", "Bits", "Reconstruction", "Evaluation"):
        schema["$defs"][kind]["properties"]["base"] = {"type": "string", "description": "a preset to inherit from"}
        schema["$defs"][kind].pop("required", None)
    return schema
