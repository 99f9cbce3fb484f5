"""What a file says of its training: what the network predicts, and its betas."""

from __future__ import annotations

import re
from pathlib import Path

from edadm.config.betas import betas_of, same_betas
from edadm.config.schema import NoiseSchedule
from edadm.networks.described.markers import refuse_untold, stated_betas, stated_prediction
from edadm.networks.settings.reading import DescriptionError, Settings
from edadm.networks.weights.packed.stored import Stored

_LAST_NORM = re.compile(r"(?:.*\.)?output_blocks\.\d+\.1\.transformer_blocks\.0\.norm1\.bias")
_SPREAD = 0.09  # of the last such norm's biases, above which ComfyUI takes Stable Diffusion 2 for one of v
SIDES = {"eps": 64, "v": 96}  # heights of latents in Stable Diffusion 2, by what it predicts
_USUAL = {
    "ddim": {"kind": "linear", "start": 1e-4, "end": 0.02, "timesteps": 1000},
    "compvis": {"kind": "sqrt_linear", "start": 0.00085, "end": 0.012, "timesteps": 1000},
    "dit": {"kind": "linear", "start": 1e-4, "end": 0.02, "timesteps": 1000},
    "pixart": {"kind": "linear", "start": 1e-4, "end": 0.02, "timesteps": 1000},
}


def training_of(
    state: dict[str, Stored],
    metadata: dict[str, str],
    layout: str,
    left_open: list[str],
    path: Path,
    is_second: bool = False,
) -> tuple[str, Settings]:
    """The network's prediction, as `Model.prediction` names it, and the noise schedule's settings.

    Guesses are named.

    Args:
        state: all tensors of the file.
        metadata: what it says of itself.
        layout: of its names.
        left_open: sentences on what it does not say.
        path: of it.
        is_second: whether it is of Stable Diffusion 2, of which some predict the velocity.

    Raises:
        CheckpointError: of a training that no sampler here follows.
    """
    marks = {
        name: stored.load()
        for name, stored in state.items()
        if "." not in name or name.startswith("edm_vpred.")
    }
    refuse_untold(marks, metadata, path)
    stated = stated_prediction(marks, metadata)
    if stated is None and is_second:
        stated = _guess_of_second(state, left_open), ""
    if stated is None:
        left_open.append(
            "prediction stands in no tensor: eps is usual; set v or sample if the training was for that"
        )
    predicted = stated[0] if stated else "eps"
    if predicted not in ("eps", "v", "sample"):
        raise DescriptionError(
            f"{path} {stated[1] if stated else ''}, and only eps, v and sample are sampled here"
        )
    betas = stated_betas(marks)
    if betas is None:
        usual = _USUAL[layout]
        left_open.append(
            f"schedule stands in no tensor: {usual['kind']} from {usual['start']} to {usual['end']} is usual"
        )
        return predicted, dict(usual)
    return predicted, _schedule(*betas)


def _guess_of_second(state: dict[str, Stored], left_open: list[str]) -> str:
    """What a network of Stable Diffusion 2 predicts, by the one sign that tensors are known to have of it."""
    norms = [name for name in state if _LAST_NORM.fullmatch(name)]
    last = max(norms, key=lambda name: int(name.split("output_blocks.")[1].split(".")[0]), default=None)
    spread = 0.0 if last is None else state[last].load().double().std(correction=0).item()
    guess = "v" if spread > _SPREAD else "eps"
    left_open.append(
        f"prediction stands in no tensor of Stable Diffusion 2, so set it: v for models of 768 pixels (2.0, "
        f"2.1; image_size {SIDES['v']}), eps for those of 512 ('base'; {SIDES['eps']}); {guess} is a guess, "
        f"since the biases of the last norm1 spread by {spread:.3f}, and ComfyUI takes more than {_SPREAD} "
        "for v"
    )
    return guess


def _schedule(betas: list[float], tolerance: float) -> Settings:
    """The kind and ends of given betas; they themselves where they are of no kind."""
    ends = {"start": float(f"{betas[0]:.4g}"), "end": float(f"{betas[-1]:.4g}")}
    for kind in ("linear", "sqrt_linear", "cosine"):
        settings: Settings = {"kind": kind, "timesteps": len(betas)} | ({} if kind == "cosine" else ends)
        if (
            0 < ends["start"] < 1
            and 0 < ends["end"] < 1
            and same_betas(betas, betas_of(NoiseSchedule.model_validate(settings)), tolerance)
        ):
            return settings
    return {"kind": "trained", "timesteps": len(betas), "betas": betas}
