"""Marks in single files: empty tensors with telling names, metadata, the betas of their training."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from edadm.config.betas import betas_of, same_betas, schedule_in_words
from edadm.config.schema import Model
from edadm.networks.weights import CheckpointError
from edadm.networks.weights.reading import open_container

# Tensors without meaning of their own, by which programs know what a merged file was trained for.
_NO_SIGNAL = "which samplers here cannot start from; use another checkpoint"
_ELUCIDATED = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file; empty for any other, and for an index of several."""
    return open_container(path).metadata if path.is_file() and path.suffix != ".json" else {}


def stated_prediction(state: dict[str, Tensor], metadata: dict[str, str]) -> tuple[str, str] | None:
    """The network's prediction, as `Model.prediction` names it, and what says so; None where nothing does."""
    if "v_pred" in state:
        return "v", "holds the marker 'v_pred'"
    stated = metadata.get("modelspec.prediction_type", "").lower()
    if stated:
        known = {"v": "v", "v_prediction": "v", "epsilon": "eps", "eps": "eps", "sample": "sample"}
        return known.get(stated, stated), f"says modelspec.prediction_type: {stated}"
    if metadata.get("modelspec.architecture", "").endswith("768-v"):
        return "v", f"says modelspec.architecture: {metadata['modelspec.architecture']}"
    if metadata.get("ss_v_parameterization", "").lower() == "true":
        return "v", "says ss_v_parameterization: True"
    return None


def refuse_untold(state: dict[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    """Refuses a file that says it is of a training which no sampler here follows, or no whole network.

    Raises:
        CheckpointError: names the mark.
    """
    if foreign := next((name for name in _ELUCIDATED if name in state), None):
        raise CheckpointError(
            f"{path} holds '{foreign}': its network was trained on continuous noise levels (EDM), which no "
            "sampler here "
            "follows; use another checkpoint"
        )
    if "ztsnr" in state or metadata.get("ss_zero_terminal_snr", "").lower() == "true":
        raise CheckpointError(f"{path} says that its last timestep has no signal (ztsnr), {_NO_SIGNAL}")
    if (betas := stated_betas(state)) and betas[0][-1] == 1:
        raise CheckpointError(f"{path} holds betas that end without a signal, {_NO_SIGNAL}")
    kind = metadata.get("modelspec.architecture", "")
    if "/" in kind:
        raise CheckpointError(
            f"{path} says modelspec.architecture: {kind}, which is an addition to a network; name the whole "
            "network"
        )


def refuse_markers(model: Model, path: Path, state: dict[str, Tensor]) -> None:
    """Refuses a file whose own marks contradict the preset.

    Raises:
        CheckpointError: names the mark, both values and what to do.
    """
    metadata = metadata_of(path)
    refuse_untold(state, metadata, path)
    stated = stated_prediction(state, metadata)
    if stated is not None and stated[0] != model.prediction:
        raise CheckpointError(
            f"{path} {stated[1]}, the preset prediction: {model.prediction}; set prediction: {stated[0]}"
        )
    _check_betas(model, path, state)


def stated_betas(state: dict[str, Tensor]) -> tuple[list[float], float] | None:
    """The betas of a CompVis training, and how exact they are, relative; None where the file holds none.

    Numbers that are no betas (zeros, ones), as writers leave them that never filled the buffer, say nothing.
    """
    for name in ("betas", "alphas_cumprod"):
        found = state.get(name)
        if found is None or found.dim() != 1 or len(found) < 2 or not found.is_floating_point():
            continue
        precise = found.dtype in (torch.float32, torch.float64)
        kept, tolerance = found.double(), 1e-3 if precise else 2e-2
        if name == "alphas_cumprod":
            if not precise:  # differences of near numbers
                continue
            kept, tolerance = 1 - kept / torch.cat([torch.ones(1, dtype=torch.float64), kept[:-1]]), 1e-2
        if bool(((kept[:-1] > 0) & (kept[:-1] < 1)).all()) and 0 < kept[-1] <= 1:
            return kept.tolist(), tolerance
    return None


def _check_betas(model: Model, path: Path, state: dict[str, Tensor]) -> None:
    stated = stated_betas(state)
    if stated is None:
        return
    betas, tolerance = stated
    if not same_betas(betas, betas_of(model.schedule), tolerance):
        ends = f"{betas[0]:.3g} to {betas[-1]:.3g} in {len(betas)} timesteps"
        raise CheckpointError(
            f"{path} holds the betas that it was trained with, {ends}, and the preset's are "
            f"{schedule_in_words(model.schedule)}; "
            f"run `edadm describe {path}`, which prints a schedule that fits"
        )
