"""All scores of a set of images, each with the conditions it holds under."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from edadm.config.schema import Evaluation
from edadm.config.scoring import AGAINST_REAL_IMAGES, BUNDLED_EXTRACTOR, Scoring
from edadm.config.sources import file_sha256, locate
from edadm.errors import EdadmError
from edadm.metrics.datasets import Images, preparation, prepared
from edadm.metrics.extract import Advance, extract_features
from edadm.metrics.frechet import frechet_distance, statistics
from edadm.metrics.paired import mean_psnr
from edadm.metrics.references import Reference, load_reference

SMALLEST_SPLIT = 500
KID_SUBSET = 1000
NEIGHBOURS = 3
_LAYERS = {"fid": "pooled", "sfid": "spatial", "inception_score": "logits", "kid": "pooled", "precision_recall": "pooled"}


def evaluate(
    images: Images,
    references: Images | None,
    settings: Evaluation,
    files: Scoring,
    advance: Advance = lambda images: None,
) -> dict[str, Any]:
    """The scores that `settings` asks for, and PSNR to `references`, the full-precision images of the same noise.

    Args:
        images: generated images; all but PSNR and CLIP score see them as `settings.resolution` prepares them.
        files: what `edadm.config.sources.scoring` found; its `reference` must be statistics, not a folder.
        advance: told the number of images after each batch.

    Raises:
        EdadmError: the reference does not fit the extractor, or lacks what a score needs.
    """
    reference = None
    if AGAINST_REAL_IMAGES & set(settings.scores) and files.reference is not None:
        reference = load_reference(files.reference)
        _check_reference(files.reference, files, reference, settings)
    layers = tuple(dict.fromkeys(_LAYERS[score] for score in settings.scores if score in _LAYERS))
    features: dict[str, Tensor] = {}
    if layers:
        seen = prepared(images, files.resolution)
        features = extract_features(seen, files.extractor, weights=files.weights, layers=layers, advance=advance)
    splits = 10 if len(images) >= 10 * SMALLEST_SPLIT else 1
    scores: dict[str, Any] = {}
    for score in ("fid", "sfid"):
        if score in settings.scores and reference is not None:
            layer = _LAYERS[score]
            scores[score] = frechet_distance(statistics(features[layer]), reference.layers[layer])
    if "inception_score" in settings.scores:
        scores["inception_score"] = isc_features_to_metric(features["logits"], splits=splits)[KEY_METRIC_ISC_MEAN]
    if reference is not None and reference.features is not None:
        scores |= _sample_scores(features, reference.features, settings)
    scores["psnr"] = None if references is None else mean_psnr(images, references)
    conditions = _conditions(len(images), files, reference, settings, splits)
    if "clip_score" in settings.scores:
        from edadm.metrics.clip_score import clip_scores, read_prompts  # open_clip takes a while to import

        assert settings.prompts is not None
        assert files.clip_weights is not None
        prompts = Path(settings.prompts).expanduser()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        found = clip_scores(images, read_prompts(prompts, len(images)), settings.clip_model, files.clip_weights, device)
        scores["clip_score"] = found.mean().item()
        conditions |= {"clip_model": settings.clip_model, "clip_sha256": file_sha256(files.clip_weights)}
        conditions["prompts_sha256"] = file_sha256(prompts)
    return scores | {"conditions": conditions}


def _sample_scores(features: dict[str, Tensor], real: Float[Tensor, "m d"], settings: Evaluation) -> dict[str, float]:
    """Scores that need single real images' features: KID (arXiv 1801.01401), precision and recall (arXiv 1904.06991)."""
    found = {}
    if "kid" in settings.scores:
        size = min(KID_SUBSET, len(features["pooled"]), len(real))
        found["kid"] = kid_features_to_metric(features["pooled"], real, kid_subset_size=size, verbose=False)[KEY_METRIC_KID_MEAN]
    if "precision_recall" in settings.scores:
        options = {"prc_neighborhood": NEIGHBOURS, "save_cpu_ram": True, "verbose": False}
        both = prc_features_to_metric(features["pooled"], real, **options)
        found |= {"precision": both[KEY_METRIC_PRECISION], "recall": both[KEY_METRIC_RECALL]}
    return found


def _check_reference(path: Path, files: Scoring, reference: Reference, settings: Evaluation) -> None:
    """Refuses statistics of another extractor or other weights, and scores for which the file holds nothing."""
    facts = reference.facts
    if facts["extractor"] not in (files.extractor, None):
        raise EdadmError(f"{path} holds features of '{facts['extractor']}', the images are scored by '{files.extractor}'; use one for both")
    if facts["extractor"] is None and files.extractor == BUNDLED_EXTRACTOR:
        raise EdadmError(f"{path} holds features of Inception, the images are scored by the bundled classifier; use one for both")
    if files.weights is not None and facts.get("weights_sha256") not in (None, file_sha256(files.weights)):
        raise EdadmError(f"{path} was made with other weights than {files.weights}; make it again with `edadm reference-statistics`")
    if facts.get("preparation", preparation(files.resolution)) != preparation(files.resolution):
        raise EdadmError(
            f"{path} was made with the preparation '{facts['preparation']}', the images get '{preparation(files.resolution)}'; "
            "use the same `resolution` for both"
        )
    missing = [score for score in ("fid", "sfid") if score in settings.scores and _LAYERS[score] not in reference.layers]
    if missing:
        raise EdadmError(f"{path} holds nothing to compute {missing[0]} from; take it out of `scores`, or give a folder of images")
    if reference.features is None and (needy := {"kid", "precision_recall"} & set(settings.scores)):
        raise EdadmError(
            f"{min(needy)} needs features of single real images, and {path} has none; give a folder as `reference`, "
            "or make it with `edadm reference-statistics --keep-features 10000`"
        )


def _conditions(images: int, files: Scoring, reference: Reference | None, settings: Evaluation, splits: int) -> dict[str, Any]:
    """What the numbers hold under; keys that do not apply are absent."""
    conditions: dict[str, Any] = {"images": images}
    if set(settings.scores) & set(_LAYERS):
        weights = files.weights or locate(f"bundled:{BUNDLED_EXTRACTOR}")
        conditions |= {"extractor": files.extractor, "extractor_sha256": file_sha256(weights), "preparation": preparation(files.resolution)}
    if files.instead_of:
        conditions["instead_of"] = files.instead_of
    if "inception_score" in settings.scores:
        conditions["inception_score_splits"] = splits
    if reference is not None:
        facts = reference.facts
        conditions |= {"reference_images": facts["images"], "reference_set": facts["set"], "reference_sha256": facts["sha256"]}
        conditions["reference_preparation"] = facts.get("preparation", "not stated")
        if reference.features is not None and {"kid", "precision_recall"} & set(settings.scores):
            conditions["reference_features"] = len(reference.features)
    return conditions
