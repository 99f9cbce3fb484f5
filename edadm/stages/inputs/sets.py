"""Sets of images that are scored: opened and compared by their names, and statistics of real ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edadm.config.files.scoring import KEPT_FEATURES, NEED_FEATURES, Scoring
from edadm.config.schema import Evaluation
from edadm.console import progress_bar, say
from edadm.errors import EdadmError
from edadm.stages.inputs.scored import Images

if TYPE_CHECKING:
    import torch

    from edadm.metrics.images.opening import NamedImages


def open_all(images: Images, files: Scoring) -> dict[str, Any]:
    """The sets of images by role; images to compare with are in the order of those that are scored.

    Full-precision images that were given as such must be there for each image; those of a reference set are
    compared with where their names say that they can be.

    Raises:
        EdadmError: a set cannot be read or holds images of several sizes, or names, numbers or sizes of
            images and full-precision images differ.
    """
    from edadm.metrics.images.opening import open_images
    from edadm.metrics.images.pairs import paired

    opened = {role: open_images(of, files.resolution, files.crop) for role, of in images.by_role.items()}
    samples, found = opened["samples"], dict[str, Any](opened)
    if files.real_images is not None and "references" not in opened:
        against = open_images([files.real_images], files.resolution, files.crop)
        found["references"], how = paired(samples, against)
        say(f"{_counted('against', against, files.real_images)}, {how}")
    for role in [role for role in ("references", "simulated") if role in opened]:
        found[role], how = paired(samples, opened[role])
        if found[role] is None:
            named = images.by_role[role][0]
            raise EdadmError(
                f"the images in {named} cannot be compared image by image: {how}; name images "
                "that belong together, or give them as --against"
            )
    if foreign := [path for path in images.samples if path.suffix != ".npy"]:
        say(_counted("scored", samples, foreign[0]))
    return {role: of for role, of in found.items() if of is not None}


def _counted(what: str, images: NamedImages, place: Path) -> str:
    height, width = images.size
    for remark in images.remarks():
        say(remark)
    return f"{what}: {len(images)} images of {width} x {height} in {place}, in the order of their names"


@contextmanager
def with_statistics(
    files: Scoring, settings: Evaluation, device: torch.device, label: str
) -> Iterator[Scoring]:
    """The same files, with statistics of real images in the place of these, while the block lasts."""
    if files.real_images is None:
        yield files
        return
    from edadm.metrics.images.opening import digest_of, open_images
    from edadm.metrics.references import write_reference

    real = open_images([files.real_images], files.resolution, files.crop, as_stored=False)
    facts = {
        "set": files.real_images.name,
        "preparation": files.preparation,
        "files": digest_of([files.real_images]),
    }
    keep = KEPT_FEATURES if NEED_FEATURES & set(settings.scores) else 0
    with TemporaryDirectory() as folder, progress_bar(f"{label} against", len(real), "images") as advance:
        made = Path(folder) / "against.h5"
        weights = (files.extractor, files.weights)
        write_reference(made, real, *weights, facts, keep, advance=advance, device=device)
        yield replace(files, reference=made)
