"""What scores say of the images that they are of: what these were made from, their classes, their parity."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edadm.config.backends import INTEGER
from edadm.config.files.scoring import Scoring
from edadm.config.schema import Evaluation
from edadm.config.stated import OF_NOISE, settings_of
from edadm.errors import EdadmError
from edadm.stages.inputs.provenance import digests
from edadm.stages.inputs.scored import Images

EVALUATION = ("scores", "extractor", "resolution", "crop", "clip_model", "scored_at_once")  # settings of it
_OF_IMAGES = ("model", "bits", "reconstruction", "resolved_backend")  # what scores say of their images


def labels_wanted(settings: Evaluation, made: dict[str, Any]) -> list[int]:
    """The classes that images were to be of, if they are scored by them.

    Raises:
        EdadmError: the images' files do not say.
    """
    if "class_accuracy" not in settings.scores:
        return []
    from edadm.conditions.classes import labels_of
    from edadm.networks.settings.parts import Conditioning

    told = made.get("model", {}).get("conditioning")
    if not told or told["kind"] != "classes" or "images" not in made["evaluation"]:
        raise EdadmError(
            "class_accuracy needs images that say of which classes they were to be, as those of `edadm "
            "generate` with such a model do; take it out of `scores`"
        )
    return labels_of(Conditioning.model_validate(told))[: made["evaluation"]["images"]]


def parity_of(rows: dict[str, Any], values: int, exact: bool) -> dict[str, Any]:
    """How near images made with integers are to the simulated ones, where both are there.

    Args:
        rows: of every image, from `parity_rows`, and others.
        values: in an image.
        exact: whether they must be nearer than these are to full precision.

    Raises:
        EdadmError: they are not.
    """
    from dataclasses import asdict

    from edadm.metrics.scores.paired import parity

    found = parity(rows, values)
    if found and not found.holds and exact:
        raise EdadmError(
            f"images made with integers differ by {found.difference:.2f} grey levels from the simulated "
            f"ones, which differ by {found.bound:.2f} from full precision: this machine's integers compute "
            f"something else; take `/{INTEGER}` off the variant"
        )
    return {"parity": asdict(found)} if found else {}


def scores_made_from(
    images: Images, settings: Evaluation, files: Scoring
) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """What scores are made from, whose images must belong together; and the digests of their files.

    Raises:
        DamagedError: a file is damaged.
        StaleError: images were made from other settings or files than those they are compared with.
    """
    from edadm.metrics.images.opening import digest_of
    from edadm.metrics.images.provenance import check_samples

    given = settings.model_fields_set & set(OF_NOISE)
    wanted = settings_of(settings, *given) if given else {}
    said = check_samples(images.samples, images.references, images.simulated, wanted)
    made: dict[str, Any] = {name: said[name] for name in _OF_IMAGES if name in said}
    made["evaluation"] = said.get("evaluation", {}) | settings_of(settings, *EVALUATION)
    ours = {role: of for role, of in images.by_role.items() if all(file.suffix == ".npy" for file in of)}
    contents = digests(**ours)  # refuses what is damaged
    pixels = {role: digest_of(of) for role, of in images.by_role.items()}
    prompts = Path(settings.prompts).expanduser() if settings.prompts else None
    real = files.real_images
    scoring = digests(
        statistics=None if real else files.reference,
        weights=files.weights,
        clip_weights=files.clip_weights,
        prompts=prompts,
    )
    scoring |= digests(**files.perceptual)
    scoring |= {"against": digest_of([real])} if real else {}
    return made | {"inputs": pixels | scoring}, contents
