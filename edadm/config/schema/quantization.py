"""Settings of calibration sets, of bits and of reconstruction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, model_serializer, model_validator

from edadm.config.methods import CORRECTIONS, INDEPENDENT, METHODS
from edadm.config.schema.model import Share
from edadm.networks.settings.strict import Count, Strict, of_some


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


class LearnedScales(Strict):
    """How factors of input channels are learned before ranges are searched (DMQ)."""

    layers: tuple[str, ...] = Field(("*",), description="name patterns of the layers that have such factors")
    voted: tuple[str, ...] = Field(
        ("*.conv_shortcut",),
        description="name patterns of those whose factors start from a vote of rows, where that is better",
    )
    agreement: Share = Field(0.85, description="share of the rows that must vote alike")
    iterations: Count = Field(6000, description="Adam steps per layer, or per group of layers of one norm")
    rows: Count = Field(64, description="calibration rows that are learned from, evenly spread")
    batch_size: Count = Field(32, description="rows per Adam step")
    learning_rate: float = Field(
        0.05, gt=0, description="of the exponents of 2 at the first step; falls linearly"
    )
    focus: float = Field(
        20.0, ge=0, description="power of (1 - share of the error) by which a timestep weighs; 0: all alike"
    )
    momentum: Share = Field(0.95, description="share of the old in the running error of a timestep")
    seed: int = 1234


class Linear(Strict):
    """How linear layers are quantized otherwise than convolutions (docs/schemes.md)."""

    layers: tuple[str, ...] = Field(
        ("*",), description="name patterns of the linear layers; those that `bits.layers` names are left out"
    )
    weights: Annotated[int, Field(ge=2, le=8)] | None = Field(
        None, description="bits of their weights; null: as of all layers"
    )
    activations: Annotated[int, Field(ge=2, le=8)] | None = Field(
        None, description="bits of their inputs; null: as of all layers"
    )
    inputs: Literal["static", "dynamic"] = Field(
        "static",
        description="static: one grid of an input, searched on calibration rows; dynamic: a symmetric grid "
        "of each token, by its largest magnitude when the network runs",
    )
    rotation: Literal["hadamard", "regular_hadamard"] | None = Field(
        None, description="Hadamard matrix by which blocks of input channels are rotated (QuaRot, ConvRot)"
    )
    rank: Count | None = Field(
        None, description="rank of a branch in 16-bit floating point beside the weight (SVDQuant); null: none"
    )

    @property
    def transforms(self) -> bool:
        """Whether layers get grids of tokens, rotations or branches, which not every backend computes."""
        return self.inputs == "dynamic" or self.rotation is not None or self.rank is not None


class Bits(Strict):
    """Widths and grids."""

    weights: int = Field(8, ge=2, le=8)
    activations: int = Field(8, ge=2, le=8)
    softmax: Annotated[int, Field(ge=2, le=8)] | None = Field(
        8, description="bits of the attention weights; null leaves them in floating point"
    )
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
    learned_scales: LearnedScales | None = Field(
        None, description="factors of input channels are learned, from those of `smoothing` if there are any"
    )
    linear: Linear | None = of_some("how linear layers are quantized otherwise than convolutions")

    @model_validator(mode="after")
    def _scales_are_learned_of_plain_grids(self) -> Bits:
        if self.linear is not None and self.learned_scales is not None:
            raise ValueError(
                "scales are learned for static grids of inputs that nothing rotates; leave out `linear` or "
                "`learned_scales`"
            )
        return self

    @property
    def smooths(self) -> bool:
        """Whether any layer may be smoothed."""
        strengths = self.smoothing, *self.smoothing_layers.values()
        return self.learned_scales is not None or any(strength is not None for strength in strengths)

    @property
    def range_passes(self) -> int:
        """How often all rows are gone through until every range is known."""
        return 1 + self.smooths + (self.learned_scales is not None)

    @model_serializer(mode="wrap")
    def _without_smoothing(self, serialise: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Files of networks that are not smoothed stay as they were before any could be."""
        settings = serialise(self)
        if self.learned_scales is None:
            settings.pop("learned_scales", None)
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
    correction: Literal[tuple(CORRECTIONS)] | None = of_some(
        "afterwards, a correction in the sampler is fitted and kept with the checkpoint; "
        + "; ".join(f"{name}: {correction.description}" for name, correction in CORRECTIONS.items())
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
