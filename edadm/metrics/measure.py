"""What scores need of every image, whether of all images at once or of a part of them."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.config.files.scoring import Scoring, paired_of
from edadm.config.inputs.statistics import LAYERS, SIZES
from edadm.config.schema import Evaluation
from edadm.metrics.extract import Advance, extract_features
from edadm.metrics.images.datasets import Images, prepared
from edadm.metrics.scores.flip import flip
from edadm.metrics.scores.paired import of_pairs, parity_rows
from edadm.metrics.scores.psnr import psnr
from edadm.metrics.scores.ssim import ssim

CLIP, PSNR = "clip_score", "psnr"
PAIRED = {"ssim": ssim, "flip": flip}  # to the full-precision image of the same noise


def layers_of(settings: Evaluation) -> tuple[str, ...]:
    """The layers of features that the scores of an evaluation are computed from."""
    return tuple(dict.fromkeys(LAYERS[score] for score in settings.scores if score in LAYERS))


def kept_layers(settings: Evaluation, files: Scoring) -> tuple[str, ...]:
    """The layers that are kept for other scores as well: all that the extractor has, if it is needed."""
    return tuple(SIZES[files.extractor]) if layers_of(settings) else ()


def measured(
    images: Images,
    references: Images | None,
    simulated: Images | None,
    prompts: list[str] | None,
    layers: tuple[str, ...],
    settings: Evaluation,
    files: Scoring,
    advance: Advance = lambda images: None,
    device: torch.device | str = "cpu",
) -> dict[str, Float[Tensor, "n ..."]]:
    """A row for each image: features by layer, `psnr` and other measures, `parity_*`, `clip_score`, if any.

    Rows of a part that begins with a batch are those that the part has among all images, bit by bit.

    Args:
        images: that are scored.
        references: of full precision, from the same noise.
        simulated: of the simulated network, where the images were computed with integers.
        prompts: one for each image, if a CLIP score is wanted.
        layers: of features.
        settings, files: of the evaluation.
        advance: told the number of images after each batch of features.
        device: where the networks that score compute.

    Raises:
        EdadmError: there are not as many references as images.
    """
    found: dict[str, Tensor] = {}
    if references is not None:
        measures = {PSNR: psnr} | {name: PAIRED[name] for name in paired_of(settings)}
        found |= {name: of_pairs(images, references, measure) for name, measure in measures.items()}
        found |= {} if simulated is None else parity_rows(images, simulated, references)
    if layers:
        seen: Any = prepared(images, files.resolution, files.crop)
        found |= extract_features(
            seen, files.extractor, weights=files.weights, layers=layers, advance=advance, device=device
        )
    if prompts is not None:
        from edadm.metrics.scores.clip_score import clip_scores  # open_clip takes a while to import

        assert files.clip_weights is not None
        found[CLIP] = clip_scores(images, prompts, settings.clip_model, files.clip_weights, device)
    return found
