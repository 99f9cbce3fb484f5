"""All scores of a set of images, each with the conditions it holds under."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from edadm.config.files.scoring import (
    AGAINST_REAL_IMAGES,
    BUNDLED_EXTRACTOR,
    NEED_FEATURES,
    Scoring,
    paired_of,
)
from edadm.config.files.sources import file_sha256, locate
from edadm.config.inputs.prompts import prompts_per_image
from edadm.config.inputs.statistics import LAYERS, refuse_unfit, statistics_head
from edadm.config.schema import Evaluation
from edadm.errors import EdadmError
from edadm.metrics.circumstances import circumstances
from edadm.metrics.extractors.extract import Advance
from edadm.metrics.images.datasets import Images
from edadm.metrics.measure import CLIP, PSNR, layers_of, measured
from edadm.metrics.references import Reference, load_reference
from edadm.metrics.scores.cmmd import cmmd
from edadm.metrics.scores.frechet import frechet_distance, statistics
from edadm.metrics.uncertainty import floors, freed_of_size, psnr_scores, resamples

CLASSES = "class_accuracy"
SMALLEST_SPLIT = 500
KID_SUBSET, KID_SUBSETS = 1000, 100  # images in each, and how many
NEIGHBOURS = 3
FEWEST = {
    "fid": 2,
    "sfid": 2,
    "kid": 2,
    "precision_recall": NEIGHBOURS + 1,
}  # images that a score is defined for


def evaluate(
    images: Images,
    references: Images | None,
    settings: Evaluation,
    files: Scoring,
    advance: Advance = lambda images: None,
    device: torch.device | str = "cpu",
    known: dict[str, Tensor] | None = None,
    by: dict[str, str] | None = None,
    labels: Sequence[int] = (),
) -> dict[str, Any]:
    """The scores that `settings` asks for, and PSNR to the full-precision images of the same noise.

    `kid_spread` is the standard deviation over KID's subsets, `inception_score_spread` that over IS' splits,
    where these differ. `resamples` are pseudo-values, from which intervals follow, of the score and of its
    difference to that of other images of the same noise (`scores.jackknife`); `floor` is what real images
    score.

    Args:
        images: generated images; all but PSNR and CLIP score see them as `settings.resolution` prepares them.
        files: what `edadm.config.files.scoring.scoring` found; its `reference` must be statistics, no
            folder.
        advance: told the number of images after each batch.
        device: where the networks that score compute.
        known: what `measured` found of these images, if that was done before.
        by: then, the `circumstances` in which it was.
        labels: the class that each image was to be of, for `class_accuracy`.

    Raises:
        EdadmError: the reference does not fit the extractor or lacks what a score needs, prompts or labels
            and images are not as many, or there are too few images for a score, before anything is computed;
            or a score is no finite number.
    """
    reference = None
    if AGAINST_REAL_IMAGES & set(settings.scores) and files.reference is not None:
        _refuse_too_few(len(images), settings)
        reference = _fitting_reference(files.reference, files, settings)
    prompts = prompts_of(settings, len(images))
    _refuse_other_labels(len(images), labels, settings)
    if known is None:
        told = (prompts, layers_of(settings), settings, files)
        known = measured(images, references, None, *told, advance, device)
    splits = 10 if len(images) >= 10 * SMALLEST_SPLIT else 1
    scores = _set_scores(known, reference, settings, splits)
    per_image: dict[str, Tensor] = {}
    if CLASSES in settings.scores:
        per_image[CLASSES] = (known["logits"].argmax(1) == torch.tensor(labels)).float()
        scores[CLASSES] = per_image[CLASSES].mean().item()
    scores["psnr"] = None
    paired = {name: known[name] for name in (PSNR, *paired_of(settings)) if name in known}
    if PSNR in known:
        per_image |= paired
        scores |= {name: values.mean().item() for name, values in paired.items()}
        scores |= psnr_scores(known[PSNR])
    conditions = _conditions(len(images), files, reference, settings, splits)
    conditions |= by or circumstances(device)
    if prompts is not None:
        per_image[CLIP] = known[CLIP]
        scores["clip_score"] = known[CLIP].mean().item()
        conditions |= _clip_conditions(settings, files)
    _refuse_what_is_not_finite(scores)
    resampled = resamples(scores, known, reference, per_image)
    scores |= freed_of_size(resampled, len(images), known)
    chance = {"resamples": resampled, "floor": floors(scores, len(images), reference)}
    return scores | {name: found for name, found in chance.items() if found} | {"conditions": conditions}


def _refuse_other_labels(images: int, labels: Sequence[int], settings: Evaluation) -> None:
    """Refuses to compare classes of images with labels that are not one for each.

    Raises:
        EdadmError: there are more or fewer.
    """
    if CLASSES in settings.scores and len(labels) != images:
        raise EdadmError(f"{CLASSES} needs the class of each of {images} images, and there are {len(labels)}")


def _refuse_too_few(images: int, settings: Evaluation) -> None:
    """Refuses scores that are not defined for so few images.

    Raises:
        EdadmError: there are such.
    """
    for score in settings.scores:
        if images < (fewest := FEWEST.get(score, 1)):
            raise EdadmError(
                f"{score} is defined for {fewest} images or more, here are {images}; add images, or take "
                f"{score} out of `scores`"
            )


def prompts_of(settings: Evaluation, images: int) -> list[str] | None:
    """The prompts of all images in order, if a CLIP score is wanted.

    Raises:
        EdadmError: they are not as many as the images.
    """
    if "clip_score" not in settings.scores:
        return None
    assert settings.prompts is not None
    return prompts_per_image(Path(settings.prompts).expanduser(), images)


def _clip_conditions(settings: Evaluation, files: Scoring) -> dict[str, Any]:
    assert settings.prompts is not None
    assert files.clip_weights is not None
    digest = file_sha256(Path(settings.prompts).expanduser())
    return {
        "clip_model": settings.clip_model,
        "clip_sha256": file_sha256(files.clip_weights),
        "prompts_sha256": digest,
        "captions_per_image": 1,
    }


def _refuse_what_is_not_finite(scores: dict[str, Any]) -> None:
    """A score that is no number belongs in no file: it would be no valid JSON, and compare with nothing."""
    bad = [score for score, value in scores.items() if value is not None and not math.isfinite(value)]
    if bad:
        raise EdadmError(
            f"{bad[0]} is {scores[bad[0]]}: features of these images are not finite or all alike; look at "
            "the images, "
            f"or take {bad[0]} out of `scores`"
        )


def _set_scores(
    features: dict[str, Tensor], reference: Reference | None, settings: Evaluation, splits: int
) -> dict[str, Any]:
    """Scores of all images together: Frechet distances, IS, and those of single real images."""
    scores: dict[str, Any] = {}
    for score in ("fid", "sfid"):
        if score in settings.scores and reference is not None:
            layer = LAYERS[score]
            scores[score] = frechet_distance(statistics(features[layer]), reference.layers[layer])
    if "inception_score" in settings.scores:
        found = isc_features_to_metric(features["logits"], splits=splits)
        scores["inception_score"] = found[KEY_METRIC_ISC_MEAN]
        scores |= {"inception_score_spread": found[KEY_METRIC_ISC_STD]} if splits > 1 else {}
    if reference is not None and reference.features is not None:
        scores |= _sample_scores(features, reference.features, settings)
    return scores


def _sample_scores(
    features: dict[str, Tensor], real: Float[Tensor, "m d"], settings: Evaluation
) -> dict[str, float]:
    """Scores that need single real images' features: KID, CMMD, precision and recall.

    arXiv 1801.01401, 2401.09603 and 1904.06991.
    """
    found: dict[str, float] = {}
    if "kid" in settings.scores:
        size = min(KID_SUBSET, len(features["pooled"]), len(real))
        kid = kid_features_to_metric(
            features["pooled"], real, kid_subset_size=size, kid_subsets=KID_SUBSETS, verbose=False
        )
        found["kid"] = kid[KEY_METRIC_KID_MEAN]
        if size < max(len(features["pooled"]), len(real)):  # else every subset is the whole
            found["kid_spread"] = kid[KEY_METRIC_KID_STD]
    if "cmmd" in settings.scores:
        found["cmmd"] = cmmd(features["pooled"], real)
    if "precision_recall" in settings.scores:
        options = {"prc_neighborhood": NEIGHBOURS, "save_cpu_ram": True, "verbose": False}
        both = prc_features_to_metric(features["pooled"], real, **options)
        found |= {"precision": both[KEY_METRIC_PRECISION], "recall": both[KEY_METRIC_RECALL]}
    return found


def _fitting_reference(path: Path, files: Scoring, settings: Evaluation) -> Reference:
    """Statistics of the right extractor, weights, preparation and size, with what every score needs.

    Their head is looked at first.
    """
    head = statistics_head(path)
    refuse_unfit(path, head, files.extractor, files.preparation, settings.scores)
    if files.weights is not None and head.facts.get("weights_sha256") not in (
        None,
        file_sha256(files.weights),
    ):
        raise EdadmError(
            f"{path} was made with other weights than {files.weights}; make it again with `edadm "
            "reference-statistics`"
        )
    return load_reference(path)


def _conditions(
    images: int, files: Scoring, reference: Reference | None, settings: Evaluation, splits: int
) -> dict[str, Any]:
    """What the numbers hold under; keys that do not apply are absent."""
    conditions: dict[str, Any] = {"images": images}
    if set(settings.scores) & set(LAYERS):
        weights = files.weights or locate(f"bundled:{BUNDLED_EXTRACTOR}")
        conditions |= {
            "extractor": files.extractor,
            "extractor_sha256": file_sha256(weights),
            "preparation": files.preparation,
            "scored_at_once": settings.scored_at_once,
        }
    conditions |= {f"{name}_sha256": file_sha256(file) for name, file in files.perceptual.items()}
    if files.instead_of:
        conditions["instead_of"] = files.instead_of
    if "inception_score" in settings.scores:
        conditions["inception_score_splits"] = splits
    if reference is not None:
        facts = reference.facts
        conditions |= {
            "reference_images": facts["images"],
            "reference_set": facts["set"],
            "reference_sha256": facts["sha256"],
        }
        conditions["reference_preparation"] = facts.get("preparation", "not stated")
        if reference.features is not None and NEED_FEATURES & set(settings.scores):
            conditions["reference_features"] = kept = len(reference.features)
            if "kid" in settings.scores:
                size = min(KID_SUBSET, images, kept)
                conditions["kid_subsets"] = f"{KID_SUBSETS} of {size}"
    return conditions
