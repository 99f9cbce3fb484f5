"""What scores need of every image, whether of all images at once or of a part of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.config.files.scoring import Scoring, paired_of
from edadm.config.inputs.statistics import LAYERS, SIZES
from edadm.config.schema import Evaluation
from edadm.metrics.extractors.extract import Advance, build_extractor, features_of
from edadm.metrics.images.datasets import Images, in_blocks, prepare
from edadm.metrics.scores.flip import flip
from edadm.metrics.scores.paired import Measure, of_pairs, parity_of, refuse_other_numbers
from edadm.metrics.scores.psnr import psnr
from edadm.metrics.scores.ssim import ssim

if TYPE_CHECKING:
    from edadm.metrics.scores.clip_score import ClipScore

CLIP, PSNR = "clip_score", "psnr"
PAIRED: dict[str, Measure] = {"ssim": ssim, "flip": flip}  # to the full-precision image of the same noise


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
    """A row for each image, which is decoded once.

    Features by layer, `psnr` and other measures, `parity_*`, `clip_score`, if any. Rows of a part that begins
    with a batch are those that the part has among all images, bit by bit.

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
    refuse_other_numbers(images, *(others for others in (references, simulated) if others is not None))
    network = build_extractor(files.extractor, files.weights, layers).to(device) if layers else None
    clip = _clip(settings, files, device) if prompts is not None else None
    measures = {PSNR: psnr} | _measures(settings, files, device) if references is not None else {}

    def load(index: int) -> dict[str, Tensor]:
        found = {"images": images[index]}
        found |= {} if references is None else {"references": references[index]}
        found |= {} if simulated is None else {"simulated": simulated[index]}
        found |= {} if network is None else {"seen": prepare(found["images"], files.resolution, files.crop)}
        return found | ({} if clip is None else {"ready": clip.prepare(found["images"])})

    found, done = [], 0
    for block in in_blocks(len(images), settings.scored_at_once, load):
        rows: dict[str, Tensor] = {}
        if references is not None:
            pairs = block["images"], block["references"]
            rows |= {name: of_pairs(*pairs, measure) for name, measure in measures.items()}
            rows |= {} if simulated is None else parity_of(pairs[0], block["simulated"], pairs[1])
        if network is not None:
            rows |= features_of(network, block["seen"], torch.device(device))
            advance(len(block["seen"]))
        if clip is not None and prompts is not None:
            rows[CLIP] = clip(block["ready"], prompts[done : done + len(block["ready"])])
        found.append(rows)
        done += len(block["images"])
    return {name: torch.cat([rows[name] for rows in found]) for name in found[0]}


def _measures(settings: Evaluation, files: Scoring, device: torch.device | str) -> dict[str, Measure]:
    """Measures of images beside those of full precision by name, PSNR apart."""
    found: dict[str, Measure] = {name: PAIRED[name] for name in paired_of(settings) if name in PAIRED}
    if files.perceptual:
        from edadm.metrics.scores.perceptual import perceptual  # torchvision takes a while to import

        asked = [name for name in paired_of(settings) if name not in PAIRED]
        found |= {name: perceptual(name, files.perceptual, device) for name in asked}
    return found


def _clip(settings: Evaluation, files: Scoring, device: torch.device | str) -> ClipScore:
    from edadm.metrics.scores.clip_score import ClipScore  # open_clip takes a while to import

    assert files.clip_weights is not None
    return ClipScore(settings.clip_model, files.clip_weights, device)
