"""The `scheduler_config.json` of a diffusers pipeline: betas, what the network predicts, and what samples."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from edadm.config.schema import FLOW, NoiseSchedule, Sampler
from edadm.networks.settings.reading import Settings, refuse, understood

_KINDS = {"linear": "linear", "scaled_linear": "sqrt_linear", "squaredcos_cap_v2": "cosine"}
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "sample"}
_LATER = (0.00085, 0.012)  # the default betas of those that came with Stable Diffusion
_BETAS = {
    "DDPMScheduler": (1e-4, 0.02),
    "DDPMParallelScheduler": (1e-4, 0.02),
    "DDIMScheduler": (1e-4, 0.02),
    "DDIMParallelScheduler": (1e-4, 0.02),
    "DDIMInverseScheduler": (1e-4, 0.02),
    "PNDMScheduler": (1e-4, 0.02),
    "LMSDiscreteScheduler": (1e-4, 0.02),
    "EulerDiscreteScheduler": (1e-4, 0.02),
    "EulerAncestralDiscreteScheduler": (1e-4, 0.02),
    "DPMSolverMultistepScheduler": (1e-4, 0.02),
    "DPMSolverSinglestepScheduler": (1e-4, 0.02),
    "DPMSolverSDEScheduler": _LATER,
    "DEISMultistepScheduler": (1e-4, 0.02),
    "UniPCMultistepScheduler": (1e-4, 0.02),
    "HeunDiscreteScheduler": _LATER,
    "KDPM2DiscreteScheduler": _LATER,
    "KDPM2AncestralDiscreteScheduler": _LATER,
}
_KEYS = {"timesteps": "num_train_timesteps", "start": "beta_start", "end": "beta_end"}
_CLIPPING = ("DDPM", "DDIM")  # classes that clip where the file does not say
_STEPS = 50
FLOW_SCHEDULER = "FlowMatchEulerDiscreteScheduler"
_FLOW_STEPS = 28
_OTHER_LEVELS = (  # of diffusers' scheduler of flows, that sampler has not
    *("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"),
    *("invert_sigmas", "shift_terminal", "stochastic_sampling"),
)
_DYNAMIC = {
    "base_shift": ("base_shift", 0.5),
    "max_shift": ("max_shift", 1.15),
    "base_image_seq_len": ("base_tokens", 256),
    "max_image_seq_len": ("max_tokens", 4096),
    "time_shift_type": ("kind", "exponential"),
}
_FEW = "networks that were distilled for it go from noise to an image in a few steps"
_DISTILLED = {"LCMScheduler": _FEW, "TCDScheduler": _FEW}


@understood
def schedule_settings(config: Settings, where: Path) -> tuple[Settings, str]:
    """The noise schedule's settings, and what the network predicts, as `Model.prediction` names it.

    Raises:
        DescriptionError: one that no sampler here follows; names the key.
    """
    kind = str(config.get("_class_name", "DDPMScheduler"))
    if kind == FLOW_SCHEDULER:
        return _flow(config, where), "flow"
    if kind in _DISTILLED:
        raise refuse(
            where,
            "_class_name",
            kind,
            f"{_DISTILLED[kind]}, which no sampler here does; use another checkpoint",
        )
    if kind not in _BETAS:
        raise refuse(
            where,
            "_class_name",
            kind,
            "networks of other than discrete betas are not sampled here; use another checkpoint",
        )
    if config.get("rescale_betas_zero_snr"):
        reason = (
            "a step from a signal of zero has no meaning for samplers that take it from the noise; use "
            "another checkpoint"
        )
        raise refuse(where, "rescale_betas_zero_snr", True, reason)
    if config.get("timestep_type", "discrete") != "discrete":
        raise refuse(
            where,
            "timestep_type",
            config["timestep_type"],
            "only discrete timesteps are sampled here; use another checkpoint",
        )
    if config.get("use_flow_sigmas"):
        reason = "flow matching has no betas; use another checkpoint"
        raise refuse(where, "use_flow_sigmas", config["use_flow_sigmas"], reason)
    predicted = config.get("prediction_type", "epsilon")
    if predicted not in _PREDICTIONS:
        known = ", ".join(_PREDICTIONS)
        raise refuse(
            where, "prediction_type", predicted, f"only {known} are sampled here; use another checkpoint"
        )
    return _betas(config, where, _BETAS[kind]), _PREDICTIONS[predicted]


def _betas(config: Settings, where: Path, ends: tuple[float, float]) -> Settings:
    count = config.get("num_train_timesteps", 1000)
    trained = config.get("trained_betas")
    if trained is not None:
        settings: Settings = {"kind": "trained", "timesteps": len(trained), "betas": list(trained)}
    else:
        name = config.get("beta_schedule", "linear")
        if name not in _KINDS:
            reason = f"only {', '.join(_KINDS)} are sampled here; list its betas under trained_betas"
            raise refuse(where, "beta_schedule", name, reason)
        settings = {"kind": _KINDS[name], "timesteps": count}
        if name != "squaredcos_cap_v2":
            settings |= {"start": config.get("beta_start", ends[0]), "end": config.get("beta_end", ends[1])}
    try:
        NoiseSchedule.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        key = "trained_betas" if trained is not None else _KEYS.get(str(*problem["loc"][:1]), "beta_schedule")
        raise refuse(
            where, key, config.get(key), f"that is no schedule ({problem['msg']}); mend it"
        ) from None
    return settings


def _flow(config: Settings, where: Path) -> Settings:
    """The noise schedule of a flow, if its levels are those that the sampler here has."""
    for key in _OTHER_LEVELS:
        if config.get(key):
            reason = "only shifted levels of noise are sampled here; use another checkpoint"
            raise refuse(where, key, config[key], reason)
    settings = {"kind": "flow", "timesteps": config.get("num_train_timesteps", 1000)}
    NoiseSchedule.model_validate(settings)
    return settings


def flow_sampler(config: Settings, where: Path, tokens: int, spacing: str) -> Settings:
    """The sampler of a flow, with the shift that the scheduler says.

    Args:
        config: content of the file.
        where: the file, for sentences.
        tokens: patches of an image, by which a dynamic shift is chosen.
        spacing: as the family's pipeline calls its scheduler.

    Raises:
        DescriptionError: a shift that no sampler has; names the key.
    """

    @understood
    def read(config: Settings, where: Path) -> Settings:
        settings: Settings = {"method": FLOW, "steps": _FLOW_STEPS, "spacing": spacing}
        if config.get("use_dynamic_shifting"):
            own = {name: config.get(key, default) for key, (name, default) in _DYNAMIC.items()}
            own |= {name: float(own[name]) for name in ("base_shift", "max_shift")}
            settings["dynamic_shift"] = {"tokens": tokens, **own}
        elif (shift := float(config.get("shift", 1.0))) != 1:
            settings["shift"] = shift
        Sampler.model_validate(settings)
        return settings

    return read(config, where)


def sampler_settings(config: Settings, timesteps: int) -> tuple[Settings, list[str]]:
    """A sampler near the pipeline's own, and sentences on what is left open.

    The number of steps stands in no file, and the method is a choice; the published runs' are taken, but for
    trailing timesteps, which of the samplers here the solvers visit: networks distilled for a few steps begin
    there.

    Args:
        config: content of the file.
        timesteps: of the schedule, of which a sampler visits no more.
    """
    offset = config.get("steps_offset", 0) == 1
    spacing = "uniform_from_one" if offset else "uniform"
    pseudo = config.get("_class_name") == "PNDMScheduler" and bool(config.get("skip_prk_steps"))
    steps = max(1, min(_STEPS, timesteps - offset))
    settings: Settings = {"method": "plms" if pseudo else "ddim", "steps": steps, "spacing": spacing}
    trails = config.get("timestep_spacing") == "trailing"
    if trails:
        settings |= {"method": "dpm_solver++", "spacing": "trailing"}
    named = str(config.get("_class_name", "no scheduler"))
    left_open = [f"the sampler is a choice (the folder names {named}); its number of steps stands in no file"]
    if trails:
        left_open.append(
            "the folder's scheduler says timestep_spacing: trailing, as those of networks distilled for a "
            "few steps do (Turbo, Lightning): of such a one set sampler.steps, and conditioning.guidance (1 "
            "is none), to what its makers say"
        )
    clips = config.get("clip_sample", named.startswith(_CLIPPING))
    if clips or config.get("thresholding"):
        key = "clip_sample" if clips else "thresholding"
        left_open.append(
            f"the folder's scheduler says {key}: true, which clips each step's estimate of the image; "
            "samplers here do not"
        )
    return settings, left_open
