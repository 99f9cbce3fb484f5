"""What a configuration may say: every setting with its range, its default and its unit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, model_serializer, model_validator

from edadm.config.methods import INDEPENDENT, METHODS
from edadm.networks.settings.architecture import UNetArchitecture
from edadm.networks.settings.parts import Autoencoder, Conditioning
from edadm.networks.settings.strict import Count, Strict

SOLVERS = ("dpm_solver++", "unipc")  # of diffusers, of second order
AUTO: Literal["auto"] = "auto"
Shards = Annotated[
    Count | Literal["auto"],
    Field(
        description="jobs that divide the work, in whole batches; auto goes by the machine and the work. "
        "Up to the number of batches it changes no byte of a result"
    ),
]
Share = Annotated[float, Field(ge=0, le=1)]


class NoiseSchedule(Strict):
    """Betas of the forward process."""

    kind: Literal["linear", "sqrt_linear", "cosine", "trained"] = Field(
        "linear",
        description="what is evenly spaced: betas, or their roots (CompVis); cosine is diffusers' "
        "squaredcos_cap_v2",
    )
    start: float = Field(1e-4, gt=0, lt=1)
    end: float = Field(2e-2, gt=0, lt=1)
    timesteps: Count = 1000
    betas: tuple[Annotated[float, Field(gt=0, lt=1)], ...] | None = Field(
        None, description="one for each timestep (trained)"
    )

    @model_validator(mode="after")
    def _betas_are_given_once(self) -> NoiseSchedule:
        if (self.kind == "trained") != (self.betas is not None):
            fix = "list them under betas" if self.betas is None else "set kind: trained, or remove betas"
            raise ValueError(f"betas are listed with kind 'trained' and only there; {fix}")
        if self.betas is not None and len(self.betas) != self.timesteps:
            raise ValueError(
                f"there are {len(self.betas)} betas for {self.timesteps} timesteps; set timesteps: "
                f"{len(self.betas)}"
            )
        return self


class Sampler(Strict):
    """How noise becomes images."""

    method: Literal["ddim", "plms", "dpm_solver++", "unipc"] = Field(
        "ddim", description="the last two of second order, by diffusers"
    )
    steps: Count = 100
    spacing: Literal["uniform", "quadratic", "uniform_from_one", "trailing", "linspace"] = Field(
        "quadratic",
        description="uniform_from_one is CompVis'; trailing and linspace are diffusers', for its two solvers",
    )
    eta: float = Field(0.0, ge=0, le=1, description="0 is deterministic, 1 is ancestral (ddim)")

    @model_validator(mode="after")
    def _settings_belong_to_the_method(self) -> Sampler:
        if self.method != "ddim" and self.eta > 0:
            raise ValueError(f"the sampler '{self.method}' is deterministic; set eta: 0, or method: ddim")
        own = ("trailing", "linspace") if self.method in SOLVERS else ("quadratic",)
        allowed = (*own, "uniform", "uniform_from_one")
        if self.spacing not in allowed:
            known = ", ".join(allowed[:-1])
            raise ValueError(
                f"the sampler '{self.method}' has no {self.spacing} spacing; set spacing: {known} or "
                f"{allowed[-1]}"
            )
        return self


class Trajectories(Strict):
    """Full-precision sampler runs that are recorded."""

    count: Count = Field(1024, description="sampler runs, of which calibration takes one state each")
    batch_size: Count = Field(64, description="runs per batch; a killed collection loses at most one batch")
    feature_rows: Count = Field(64, description="first runs whose mid-block features feed TDAC")
    shards: Shards = AUTO
    seed: int = 1234


class Model(Strict):
    """A full-precision model, its sampler, and the trajectories recorded from it."""

    checkpoint: str = Field(
        description="a file, a diffusers folder, or `bundled:NAME` for weights inside the package"
    )
    source: str = Field("", description="where to get the checkpoint, for whoever lacks it")
    layout: Literal["ddim", "compvis"] = Field(
        "ddim", description="key layout of the checkpoint, if it is not diffusers'"
    )
    ema: Literal["auto"] | bool = Field(
        "auto", description="averaged weights: where the file holds any, always, or never"
    )
    architecture: UNetArchitecture = UNetArchitecture()
    autoencoder: Autoencoder | None = None
    conditioning: Conditioning | None = None
    prediction: Literal["eps", "v", "sample"] = Field(
        "eps",
        description="what the network predicts: the noise, the velocity (arXiv 2202.00512), or the image",
    )
    schedule: NoiseSchedule = NoiseSchedule()
    sampler: Sampler = Sampler()
    trajectories: Trajectories = Trajectories()
    pixels: Literal["round", "truncate"] = Field("round", description="how pixel values become whole numbers")

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of all that the network is told of one image, by name; none without a condition."""
        channels = self.architecture.context_channels
        if self.conditioning is None or channels is None:
            return {}
        return self.conditioning.shapes(channels)

    @property
    def guidance(self) -> float:
        """The guidance scale; 1 without a condition."""
        return self.conditioning.guidance if self.conditioning else 1.0

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of a checkpoint: `unet`, `autoencoder`, `condition` (class embedding or text encoder)."""
        present = {"unet": True, "autoencoder": self.autoencoder, "condition": self.conditioning}
        return tuple(part for part, given in present.items() if given)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the network sees."""
        return (self.architecture.in_channels, self.architecture.image_size, self.architecture.image_size)


class Calibration(Strict):
    """Which (x_t, t) the quantizers see."""

    selector: Literal["normal", "random", "tdac", "uniform"] = "tdac"
    size: Count = Field(1024, description="calibration samples")
    held_out: int = Field(
        0, ge=0, description="further samples that nothing learns from, to report unit errors on"
    )
    density_weight: float = Field(1.0, ge=0, description="weight of density (TDAC); 0 leaves variety alone")
    lambda_: float = Field(1.2, ge=0, alias="lambda", description="weight of variety against density (TDAC)")
    radius: float = Field(3.0, gt=0, description="mean squared feature distance of neighbouring steps (TDAC)")
    every: Count = Field(
        1, description="k of every k-th sampler step (uniform; Q-Diffusion's 20 of 100 steps are 5)"
    )
    seed: int = 1234


class LayerBits(Strict):
    """Bits of one layer, chosen by name pattern; null leaves it, or its input, in floating point."""

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
    split_shortcuts: bool = Field(
        True, description="two grids where a skip is concatenated (docs/method.md, 3.6)"
    )
    layers: dict[str, LayerBits] = Field(
        {
            "time_embedding.linear_1": LayerBits(weights=8, activations=8),
            "conv_out": LayerBits(weights=8, activations=None),
        },
        description="exceptions by name pattern; the default follows the official code (first registered and "
        "last layer)",
    )
    weight_zero_point: Literal["middle", "either"] = Field(
        "either",
        description="zero of symmetric weight grids: 2^(bits-1) in all channels, or the better of that and "
        "one less in each",
    )
    activation_grid: Literal["symmetric", "asymmetric"] = Field(
        "symmetric",
        description="ends of two-sided activation ranges: opposite, as the official code has it, or searched "
        "one by one",
    )
    range_batch_size: Count = Field(256, description="rows per update of the activation ranges")
    range_momentum: Share = Field(0.1, description="share of a new batch in the running activation range")
    range_bins: Count | None = Field(
        8192, description="histogram bins of the activation range search; null searches exactly"
    )
    smoothing: Share | None = Field(
        None,
        description="share of the differences between a layer's input channels that moves into its weight "
        "(SmoothQuant's alpha); null moves nothing",
    )
    smoothing_layers: dict[str, Share | None] = Field(
        {}, description="exceptions to `smoothing` by name pattern of the layer"
    )

    @property
    def smooths(self) -> bool:
        """Whether any layer may be smoothed."""
        return any(strength is not None for strength in (self.smoothing, *self.smoothing_layers.values()))

    @model_serializer(mode="wrap")
    def _without_smoothing(self, serialise: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Files of networks that are not smoothed stay as they were before any could be."""
        settings = serialise(self)
        if not self.smooths:
            settings.pop("smoothing", None)
            settings.pop("smoothing_layers", None)
        return settings


class Reconstruction(Strict):
    """How rounding and step sizes are learned."""

    method: Literal[tuple(METHODS)] = Field(
        "fbr", description="; ".join(f"{name}: {method.description}" for name, method in METHODS.items())
    )
    iterations: Count = Field(5000, description="Adam steps per unit")
    unit_iterations: dict[str, Count] = Field(
        {}, description="exceptions to `iterations` by name pattern of the unit"
    )
    batch_size: Count = Field(32, description="rows per Adam step")
    weight_lr: float = Field(0.5, gt=0, description="learning rate of the rounding variables")
    scale_lr: float = Field(
        5e-4, gt=0, description="learning rate of the activation step sizes, or of their logarithms"
    )
    scale_parameter: Literal["linear", "log"] = Field(
        "linear", description="what is learned: step sizes, or their logarithms"
    )
    layer_weight: float = Field(0.8, ge=0, description="weight of the inner layers' errors (gamma)")
    without_layer_errors: tuple[Literal["res_block", "attention", "transformer"], ...] = Field(
        (),
        description="kinds of units that learn from their own error alone, as the official code's do by "
        "accident where it checkpoints",
    )
    exclude: Literal["last_registered", "true_last"] = Field(
        "last_registered",
        description="the layer of a unit without an error of its own; the official code's choice need not be "
        "its last",
    )
    rounding_weight: float = Field(
        0.0, ge=0, description="weight of AdaRound's regulariser; the official code has none"
    )
    mix_probability: Share = Field(
        0.5, description="chance that an input element comes from the quantized path"
    )
    drop_probability: float = Field(
        0.5, ge=0, lt=1, description="chance that an activation stays unquantized while learning (QDrop)"
    )
    bias_correction: bool = Field(
        False, description="afterwards, biases take up the mean error of each output channel"
    )
    precision: Literal["tf32", "fp32", "bf16"] = Field(
        "tf32", description="arithmetic of learning on a GPU; tf32 is PyTorch's default"
    )
    chain_batch_size: Count = Field(128, description="rows per paused forward pass")
    jobs: Count = Field(
        1, description=f"jobs that share the units; only with method {' or '.join(INDEPENDENT)}"
    )
    seed: int = 1234

    @model_validator(mode="after")
    def _biases_are_corrected_where_something_is_learned(self) -> Reconstruction:
        if self.bias_correction and not METHODS[self.method].learns:
            raise ValueError(
                f"method '{self.method}' corrects no biases; set bias_correction: false, or a method that "
                "learns"
            )
        return self

    @model_validator(mode="after")
    def _only_independent_units_can_be_shared(self) -> Reconstruction:
        if self.jobs > 1 and not METHODS[self.method].independent:
            raise ValueError(
                f"units of method '{self.method}' wait for each other; set jobs: 1, or method: "
                f"{' or '.join(INDEPENDENT)}"
            )
        return self


Extractor = Literal["cifar10_classifier", "inception", "pytorch_fid"]
Score = Literal["fid", "sfid", "inception_score", "kid", "precision_recall", "clip_score"]


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
        "pytorch-fid's InceptionV3",
    )
    extractor_weights: str | None = Field(
        None, description="file with the Inception weights; see `edadm download`"
    )
    reference: str = Field(
        "bundled:cifar10_train_statistics",
        description="real images: statistics (.h5 of `edadm reference-statistics`, .npz with mu and sigma), "
        "a folder, or `bundled:NAME`",
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
    prompts: str | None = Field(
        None,
        description="prompts of the images in order, one per line or a JSON list (clip_score); null takes "
        "those the model is given",
    )
    clip_model: str = Field(
        "ViT-L-14-quickgelu",
        description="open_clip's name of the CLIP model, or `local-dir:PATH` for its config",
    )
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
