"""The float network of a model preset, and what surrounds it: condition, decoder, and what it predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edadm.errors import EdadmError


def open_float(architecture: Any, weights: Path, device: Any) -> Any:
    """The float network for inference: on a GPU, with kernels between its convolutions."""
    import torch

    from edadm.networks.load import load_network

    network = load_network(architecture, weights, device)
    if torch.device(device).type != "cuda":
        return network
    from edadm.deploy.floats import fused

    return fused(network)


def open_prediction(model: Any) -> Any:
    """What the preset's network predicts, and how the noise follows from it."""
    from edadm.sampling.denoiser import Prediction

    return Prediction.of(model)


def open_condition(model: Any, weights: Path | None, images: int, device: Any) -> Any:
    """What the model is told about each of its images, or None if it takes no condition.

    Raises:
        EdadmError: it takes one, and no weights are given.
    """
    from edadm.conditions.classes import make_labels
    from edadm.conditions.condition import make_condition
    from edadm.networks.load import load_condition_network

    if model.conditioning is None:
        return None
    if "condition" not in model.parts:
        return make_labels(model.conditioning, images, device)
    if weights is None:
        raise EdadmError(
            "this model takes a condition; give its weights with --condition "
            "(from convert-checkpoint --part condition)"
        )
    return make_condition(load_condition_network(model, weights, device), model.conditioning, images)


def open_decoder(model: Any, weights: Path | None, device: Any) -> Any:
    """The decoder from latents to images; a model of pixels has them already.

    Raises:
        EdadmError: the model makes latents, and no weights are given.
    """
    from edadm.networks.load import load_decoder

    if model.autoencoder is None:
        return lambda latents: latents
    if weights is None:
        raise EdadmError(
            "this model makes latents; give its decoder with --autoencoder "
            "(from convert-checkpoint --part autoencoder)"
        )
    return load_decoder(model, weights, device)
