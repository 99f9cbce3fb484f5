"""Settings of models: noise schedule, sampler, trajectories, and the parts of a model."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edadm.config.schema.shift import DynamicShift, Shift
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.parts import Autoencoder, Conditioning
from edadm.networks.settings.strict import Count, Strict, of_some

SOLVERS = ("dpm_solver++", "unipc")  # of diffusers, of second order
EULERS = ("euler", "euler_ancestral")
FLOW = "flow_euler"  # the method of networks that predict the flow from images to noise
_SPACINGS = dict.fromkeys(SOLVERS, ("trailing", "linspace")) | dict.fromkeys(EULERS, ("trailing",))


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
    """Betas of the forward process, or that there are none: a flow mixes image and noise linearly."""

    kind: Literal["linear", "sqrt_linear", "cosine", "trained", "flow"] = Field(
        "linear",
        description="what is evenly spaced: betas, or their roots (CompVis); cosine is diffusers' "
        "squaredcos_cap_v2; flow has no betas: the share of noise is t / timesteps",
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

    method: Literal["ddim", "plms", "dpm_solver++", "unipc", "euler", "euler_ancestral", "flow_euler"] = (
        Field(
            "ddim",
            description="dpm_solver++ and unipc are of second order, by diffusers; euler and euler_ancestral "
            "are DDIM's steps of eta 0 and 1 as diffusers begins and ends them; flow_euler is of flows alone",
        )
    )
    steps: Count = 100
    spacing: Literal["uniform", "quadratic", "uniform_from_one", "trailing", "linspace"] = Field(
        "quadratic",
        description="uniform_from_one is CompVis'; trailing (of the solvers, euler and flow_euler) and "
        "linspace (of the solvers and flow_euler) are diffusers'",
    )
    eta: float = Field(0.0, ge=0, le=1, description="0 is deterministic, 1 is ancestral (ddim)")
    below: Count | None = of_some(
        "runs visit timesteps below this one, and begin from the model's images with that much noise (ddim, "
        "plms and euler, with uniform spacings)"
    )
    shift: Shift | None = of_some(
        "by which levels of noise sigma become shift sigma / (1 + (shift - 1) sigma); 1 if none is set "
        "(flow_euler)"
    )
    dynamic_shift: DynamicShift | None = of_some("a shift by the size of images instead (flow_euler)")

    @model_validator(mode="after")
    def _shifts_belong_to_flows(self) -> Sampler:
        if self.method != FLOW and (self.shift is not None or self.dynamic_shift is not None):
            name = "shift" if self.shift is not None else "dynamic_shift"
            raise ValueError(f"the sampler '{self.method}' has no {name}; remove it, or set method: {FLOW}")
        if self.shift is not None and self.dynamic_shift is not None:
            raise ValueError("levels of noise are shifted once; remove shift or dynamic_shift")
        return self

    @model_validator(mode="after")
    def _settings_belong_to_the_method(self) -> Sampler:
        if self.method != "ddim" and self.eta > 0:
            kind = "takes no eta" if self.method == "euler_ancestral" else "is deterministic"
            raise ValueError(f"the sampler '{self.method}' {kind}; set eta: 0, or method: ddim")
        allowed = (*_SPACINGS.get(self.method, ("quadratic",)), "uniform", "uniform_from_one")
        if self.method == FLOW:
            allowed = ("linspace", "trailing")
        if self.spacing not in allowed:
            known = ", ".join(allowed[:-1])
            raise ValueError(
                f"the sampler '{self.method}' has no {self.spacing} spacing; set spacing: {known} or "
                f"{allowed[-1]}"
            )
        if self.below is not None and (self.method in SOLVERS or not self.spacing.startswith("uniform")):
            raise ValueError(
                "`below` goes with ddim, plms and euler and with spacing: uniform or uniform_from_one; set "
                "these"
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
    layout: Literal["ddim", "compvis", "dit", "pixart"] = Field(
        "ddim", description="key layout of the checkpoint, if it is not diffusers'"
    )
    ema: Literal["auto"] | bool = Field(
        "auto", description="averaged weights: where the file holds any, always, or never"
    )
    architecture: Architecture = Architecture()
    autoencoder: Autoencoder | None = None
    conditioning: Conditioning | None = None
    prediction: Literal["eps", "v", "sample", "flow"] = Field(
        "eps",
        description="what the network predicts: the noise, the velocity (arXiv 2202.00512), the image, or "
        "the flow, which is the noise less the image (arXiv 2209.03003)",
    )
    schedule: NoiseSchedule = NoiseSchedule()
    sampler: Sampler = Sampler()
    trajectories: Trajectories = Trajectories()
    pixels: Literal["round", "truncate"] = Field("round", description="how pixel values become whole numbers")

    @property
    def condition_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of all that the network is told of one image, by name; none without a condition."""
        channels = self.architecture.context_channels
        if self.conditioning is not None and self.architecture.classes is not None:
            return {"labels": (1,)}
        if self.conditioning is None or channels is None:
            return {}
        told = self.conditioning.shapes(channels)
        side = self.architecture.image_size
        image = (
            {"image": (self.architecture.image_channels, side, side)} if self.conditioning.has_image else {}
        )
        return told | image

    @property
    def guidance(self) -> float:
        """The guidance scale; 1 without a condition."""
        return self.conditioning.guidance if self.conditioning else 1.0

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of a checkpoint: `unet`, `autoencoder`, `condition` (class embedding or text encoder).

        The first is the network that makes images, whatever it is; one that embeds classes by itself has no
        condition beside it.
        """
        beside = self.conditioning if self.architecture.classes is None else None
        present = {"unet": True, "autoencoder": self.autoencoder, "condition": beside}
        return tuple(part for part, given in present.items() if given)

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what the network sees."""
        return (self.architecture.in_channels, self.architecture.image_size, self.architecture.image_size)
