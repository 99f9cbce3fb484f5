"""Files with which an evaluation works, checked before work starts.

Imports no torch, so that a dry run can do it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edadm.config.files.cached import cached
from edadm.config.files.downloads import DOWNLOADS
from edadm.config.files.sources import locate
from edadm.config.inputs.folders import has_images, list_images
from edadm.config.inputs.prompts import prompts_per_image
from edadm.config.inputs.sets import holds_images, kind_of
from edadm.config.inputs.statistics import LAYERS, Crop, preparation, refuse_unfit, statistics_head
from edadm.config.schema import Config, Evaluation, Extractor
from edadm.errors import EdadmError

BUNDLED_EXTRACTOR: Extractor = "cifar10_classifier"
BUNDLED_SIDE = 32
AGAINST_REAL_IMAGES = frozenset({"fid", "sfid", "kid", "precision_recall", "cmmd"})
NEED_FEATURES = frozenset({"kid", "precision_recall", "cmmd"})  # of single real images
PERCEPTUAL = frozenset({"lpips", "dists"})  # of these, those with weights
PAIRED = frozenset({"ssim", "flip"}) | PERCEPTUAL  # beside PSNR, to full precision of the same noise
KEPT_FEATURES = 10_000
_EXTRACTOR_WEIGHTS = {
    "inception": "torch_fidelity_inception",
    "pytorch_fid": "pytorch_fid_inception",
    "dinov2": "dinov2_vit_l_14",
    "clip": "clip_vit_l_14_336",
}
_CLIP_WEIGHTS = "clip_vit_l_14"


@dataclass(frozen=True)
class Scoring:
    """The files of an evaluation.

    Attributes:
        extractor: which network.
        weights: its weights; None for the bundled one.
        reference: statistics, or images; None where no score needs real images.
        resolution: side to which images are brought; None leaves them.
        clip_weights: for the CLIP score; else None.
        instead_of: the extractor whose weights are absent, where the bundled one takes its place.
        absent: then, the sentence that says what to put where.
        crop: how images are brought to the resolution.
        perceptual: weights of paired measures, by `vgg16` and their names.
    """

    extractor: Extractor
    weights: Path | None
    reference: Path | None
    resolution: int | None
    clip_weights: Path | None = None
    instead_of: str | None = None
    absent: str | None = None
    crop: Crop = "square"
    perceptual: Mapping[str, Path] = field(default_factory=dict)

    @property
    def preparation(self) -> str:
        """What is done to images before they are seen, in words."""
        return preparation(self.resolution, self.crop)

    @property
    def real_images(self) -> Path | None:
        """The reference, where it is images of which there are no statistics yet."""
        return self.reference if self.reference is not None and holds_images(self.reference) else None


def paired_of(evaluation: Evaluation) -> list[str]:
    """The measures that an evaluation asks for of images beside those of full precision, PSNR apart."""
    return [score for score in evaluation.scores if score in PAIRED]


def extractor_weights(evaluation: Evaluation, files: Scoring) -> Path | None:
    """The weights of the network whose features the scores of an evaluation need, if any does."""
    if files.weights is None and set(evaluation.scores) & set(LAYERS):
        return locate(f"bundled:{BUNDLED_EXTRACTOR}")
    return files.weights


def scoring(evaluation: Evaluation, prompts_follow: bool = False, against: Path | None = None) -> Scoring:
    """What an evaluation needs, all of it there.

    Args:
        evaluation: the settings.
        against: images or statistics in the place of the evaluation's real images, whichever network scores.
        prompts_follow: prompts that are not named will be written (`edadm write-prompts`), since the models
            are given some.

    Raises:
        EdadmError: weights, prompts or real images are absent, with a sentence that says what to put where.
    """
    clip = _clip(evaluation, prompts_follow) if "clip_score" in evaluation.scores else None
    if against is not None:
        instead = {"reference": str(against)}
        instead |= {"fallback_reference": str(against)} if evaluation.fallback_reference else {}
        evaluation = evaluation.model_copy(update=instead)
    extractor, weights, source, side = evaluation.extractor, None, evaluation.reference, evaluation.resolution
    instead_of = absent = None
    if extractor != BUNDLED_EXTRACTOR and set(evaluation.scores) & set(LAYERS):
        try:
            weights = _file(
                evaluation.extractor_weights,
                "extractor_weights",
                f"extractor '{extractor}'",
                _EXTRACTOR_WEIGHTS[extractor],
            )
        except EdadmError as error:
            if evaluation.fallback_reference is None:
                raise EdadmError(
                    f"{error}; or set `fallback_reference` to score with the bundled classifier instead"
                ) from None
            absent = str(error)
            extractor, instead_of, source, side = (
                BUNDLED_EXTRACTOR,
                extractor,
                evaluation.fallback_reference,
                BUNDLED_SIDE,
            )
    needed = AGAINST_REAL_IMAGES & set(evaluation.scores)
    reference = _reference(source, side, against is not None) if needed else None
    found = Scoring(
        extractor,
        weights,
        reference,
        side,
        clip,
        instead_of,
        absent,
        evaluation.crop,
        _perceptual(evaluation),
    )
    if reference is not None and found.real_images is None:
        refuse_unfit(reference, statistics_head(reference), extractor, found.preparation, evaluation.scores)
    return found


def scoring_of(name: str, config: Config) -> Scoring:
    """`scoring` of a preset; a sentence about what is absent begins with its name."""
    models = [config.models[run.model] for run in config.runs if run.evaluation == name]
    settings = config.evaluations[name]
    try:
        found = scoring(
            settings, all(model.conditioning and model.conditioning.has_prompts for model in models)
        )
        if found.clip_weights and settings.prompts:
            prompts_per_image(Path(settings.prompts).expanduser(), settings.images)
        return found
    except EdadmError as error:
        raise EdadmError(f"evaluations.{name}: {error}") from None


def _clip(evaluation: Evaluation, prompts_follow: bool) -> Path:
    there = prompts_follow if evaluation.prompts is None else Path(evaluation.prompts).expanduser().is_file()
    if not there:
        where = (
            "set `prompts`"
            if evaluation.prompts is None
            else f"there is no file {evaluation.prompts}; mend `prompts`"
        )
        raise EdadmError(
            f"clip_score compares images with their prompts: {where}, a text file with one per line or a "
            "JSON list"
        )
    return _file(evaluation.clip_weights, "clip_weights", "clip_score", _CLIP_WEIGHTS)


def _perceptual(evaluation: Evaluation) -> dict[str, Path]:
    """Weights of the perceptual measures that are asked for, and of the network that they share."""
    if not (asked := [score for score in evaluation.scores if score in PERCEPTUAL]):
        return {}
    found = {"vgg16": _file(evaluation.vgg_weights, "vgg_weights", asked[0], "vgg16")}
    given = {"lpips": evaluation.lpips_weights, "dists": evaluation.dists_weights}
    return found | {score: _file(given[score], f"{score}_weights", score, score) for score in asked}


def _file(path: str | None, setting: str, needs: str, name: str) -> Path:
    found = cached(DOWNLOADS[name].url) if path is None else Path(path).expanduser()
    if found is None or not found.is_file():
        entry = DOWNLOADS[name]
        where = f"there is no file {path}" if path else f"`{setting}` is not set"
        target = path or entry.path
        raise EdadmError(
            f"{needs} needs weights, and {where}: put {entry.what} there with `edadm download {name} "
            f"--output {target}`" + ("" if path else f" and set `{setting}: {target}`")
        )
    return found


def _reference(source: str, resolution: int | None, any_size: bool) -> Path:
    if not source.strip():
        raise EdadmError("no real images are named; set `reference` to statistics, or to a folder of images")
    images = Path(source).expanduser()
    if images.exists() and holds_images(images):
        if resolution is None and not any_size:
            raise EdadmError(
                f"{source} holds images of any size; set `resolution` to the side they are to be compared at"
            )
        if kind_of(images) == "folder" and not has_images(images):
            list_images(images)
        return images
    try:
        return locate(source, ".h5")
    except EdadmError as error:
        raise EdadmError(
            f"{error}, or a folder or archive of real images, or an .npz with their mu and sigma"
        ) from None
