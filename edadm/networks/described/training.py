"""What a file says of its training: what the network predicts, and its betas."""

from __future__ import annotations

from pathlib import Path

from edadm.config.betas import betas_of, same_betas
from edadm.config.schema import NoiseSchedule
from edadm.networks.described.markers import refuse_untold, stated_betas, stated_prediction
from edadm.networks.settings.reading import DescriptionError, Settings
from edadm.networks.weights.packed.stored import Stored

_USUAL = {
    "ddim": {"kind": "linear", "start": 1e-4, "end": 0.02, "timesteps": 1000},
    "compvis": {"kind": "sqrt_linear", "start": 0.00085, "end": 0.012, "timesteps": 1000},
}


def training_of(
    state: dict[str, Stored], metadata: dict[str, str], layout: str, left_open: list[str], path: Path
) -> tuple[str, Settings]:
    """The network's prediction, as `Model.prediction` names it, and the noise schedule's settings.

    Guesses are named.

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
