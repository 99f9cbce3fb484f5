"""Whether the images of a model can be scored as an evaluation says."""

from __future__ import annotations

from collections.abc import Iterator

from edadm.config.inputs.statistics import LAYERS
from edadm.config.rules.sizes import LARGEST_SIDE
from edadm.config.schema import Evaluation, Model

CLASSIFIER = "cifar10_classifier"
CLASSIFIER_SIDE = 32
VECTORS = ("dinov2", "clip")
NEIGHBOURS = 3  # of precision and recall
CLASSES = 10  # that it knows
WINDOW = 11  # pixels of SSIM


def mistakes_in_evaluation(settings: Evaluation) -> Iterator[str]:
    """One sentence per contradiction inside an evaluation."""
    by_features = set(settings.scores) & set(LAYERS)
    if twice := [score for score in dict.fromkeys(settings.scores) if settings.scores.count(score) > 1]:
        yield f"scores names {twice[0]} twice; remove one"
    if "inception_score" in settings.scores and settings.extractor == "pytorch_fid":
        yield (
            "extractor 'pytorch_fid' has no inception_score; set extractor: inception, or take it out of "
            "`scores`"
        )
    lacking = [score for score in settings.scores if LAYERS.get(score, "pooled") != "pooled"]
    if lacking and settings.extractor in VECTORS:
        yield (
            f"extractor '{settings.extractor}' gives one vector an image and has no {lacking[0]}; take it "
            "out of `scores`"
        )
    if "cmmd" in settings.scores and settings.extractor != "clip":
        yield "cmmd is of CLIP's embeddings; set extractor: clip, or take it out of `scores`"
    if "class_accuracy" in settings.scores and settings.extractor != CLASSIFIER:
        yield (
            "class_accuracy is of the classes that the bundled classifier knows; set extractor: "
            f"{CLASSIFIER}, or take it out of `scores`"
        )
    if "precision_recall" in settings.scores and settings.images <= NEIGHBOURS:
        yield (
            f"precision_recall looks at {NEIGHBOURS} neighbours of each image and needs more than "
            f"{settings.images} images; raise images"
        )
    if settings.extractor == CLASSIFIER and settings.extractor_weights:
        yield (
            "extractor_weights are of other networks, and the bundled classifier has its own; remove them, "
            "or set extractor: inception"
        )
    if (
        by_features
        and settings.extractor == CLASSIFIER
        and settings.resolution not in (None, CLASSIFIER_SIDE)
    ):
        yield (
            f"the bundled classifier sees {CLASSIFIER_SIDE} px, not {settings.resolution}; set resolution: "
            f"{CLASSIFIER_SIDE}"
        )
    if settings.resolution and settings.resolution > LARGEST_SIDE:
        yield f"resolution {settings.resolution} is beyond any image's; at most {LARGEST_SIDE} are taken"


def mistakes_in_images(model: Model, settings: Evaluation) -> Iterator[str]:
    """One sentence per reason why the images of this model have no such scores."""
    channels = model.autoencoder.image_channels if model.autoencoder else model.architecture.in_channels
    side = model.architecture.image_size * (model.autoencoder.factor if model.autoencoder else 1)
    if channels != 3:
        fix = (
            "give the autoencoder that turns them into RGB"
            if model.autoencoder is None and channels == 4
            else ("run the stages up to `edadm reconstruct` one by one, which need no images")
        )
        yield (
            f"its images have {channels} channel{'s' if channels > 1 else ''}, and scores, pictures and "
            f"report take RGB; {fix}"
        )
    told = model.conditioning
    is_told = told is not None and told.kind == "classes" and told.classes == CLASSES
    if "class_accuracy" in settings.scores and settings.extractor == CLASSIFIER and not is_told:
        yield (
            f"class_accuracy is of models that are told the {CLASSES} classes of CIFAR-10, and it is not; "
            "take class_accuracy out of `scores`"
        )
    if "ssim" in settings.scores and side < WINDOW:
        yield f"ssim looks at windows of {WINDOW} px, and its images have {side}; take ssim out of `scores`"
    by_features = set(settings.scores) & set(LAYERS)
    if (
        by_features
        and settings.extractor == CLASSIFIER
        and settings.resolution is None
        and side != CLASSIFIER_SIDE
    ):
        yield (
            f"its images have {side} px, and the bundled classifier sees {CLASSIFIER_SIDE}; set resolution: "
            f"{CLASSIFIER_SIDE} in the "
            "evaluation, or extractor: inception"
        )
