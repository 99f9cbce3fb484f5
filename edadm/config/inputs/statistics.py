"""Statistics of real images: what a file's head says of them, and whether they fit; imports no torch."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from edadm.artifacts import reading
from edadm.errors import EdadmError

FEATURES, HELD_OUT = "features", "held_out"  # of single images: of the set, and of others of its distribution
OF_OTHERS = {"pooled": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}  # names in an .npz
LAYERS = {
    "fid": "pooled",
    "sfid": "spatial",
    "inception_score": "logits",
    "kid": "pooled",
    "precision_recall": "pooled",
    "cmmd": "pooled",
    "class_accuracy": "logits",
}
SIZES = {  # features of an image
    "cifar10_classifier": {"pooled": 128, "spatial": 128, "logits": 10},
    "inception": {"pooled": 2048, "spatial": 2023, "logits": 1008},
    "pytorch_fid": {"pooled": 2048, "spatial": 2023},
    "dinov2": {"pooled": 1024},
    "clip": {"pooled": 768},
}
Crop = Literal["square", "adm", "box"]  # see `edadm.metrics.images.pictures.cropped`
_CROPS: dict[Crop, str] = {
    "square": "centre crop to a square, bicubic to {side} px",
    "adm": "halved while twice {side} px or more, bicubic to it, centre crop",
    "box": "box filter to {side} px, centre crop",
}
_NEED_FEATURES = ("kid", "precision_recall", "cmmd")


def preparation(resolution: int | None, crop: Crop = "square") -> str:
    """What `resolution` and `crop` do to an image, in words for the conditions of a number."""
    return "none" if resolution is None else _CROPS[crop].format(side=resolution)


@dataclass(frozen=True)
class Head:
    """A file of statistics without its numbers.

    Attributes:
        shapes: of the mean and the covariance of each layer.
        features: shape of the pooled features of single images; None if it has none.
        facts: what it says about itself; of others' files no more than that no extractor is named.
    """

    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    features: tuple[int, ...] | None
    facts: dict[str, Any]


def statistics_head(path: Path) -> Head:
    """The head of an `.h5` of `edadm reference-statistics`, or of an `.npz` with `mu` and `sigma`.

    Raises:
        EdadmError: neither of these.
    """
    return _head_of_others(path) if path.suffix == ".npz" else _own_head(path)


def _own_head(path: Path) -> Head:
    import h5py

    again = "make them with `edadm reference-statistics`"
    with reading(path, again, EdadmError, "reference statistics"), h5py.File(path) as file:
        groups = {name: group for name, group in file.items() if name not in (FEATURES, HELD_OUT)}
        shapes = {name: (group["mu"].shape, group["sigma"].shape) for name, group in groups.items()}
        features = file[FEATURES].shape if FEATURES in file else None
        facts = json.loads(file.attrs["facts"])
        known = {"extractor", "images", "set"} <= set(facts)
    if not known or not shapes:
        raise EdadmError(f"{path} holds no reference statistics; {again}")
    return Head(shapes, features, facts)


def _head_of_others(path: Path) -> Head:
    shapes = {layer: (mu.shape, sigma.shape) for layer, (mu, sigma) in arrays_of_others(path).items()}
    if "pooled" not in shapes:
        raise EdadmError(
            f"{path} has no arrays `mu` and `sigma`; give statistics as of pytorch-fid, or a folder of images"
        )
    return Head(shapes, None, {"extractor": None, "images": None, "set": path.stem})


def arrays_of_others(path: Path) -> dict[str, tuple[Any, Any]]:
    """Mean and covariance of each layer that an `.npz` has, by its name.

    Raises:
        EdadmError: no such archive, or a damaged one.
    """
    import numpy as np

    with reading(path, "fetch it again", EdadmError, "an .npz archive"):
        with open(path, "rb") as file:
            if not zipfile.is_zipfile(file):
                raise ValueError("it is empty, cut short, or a web page or Git-LFS pointer in its place")
        with np.load(path, allow_pickle=False) as archive:
            named = {layer: pair for layer, pair in OF_OTHERS.items() if set(pair) <= set(archive.files)}
            return {layer: (archive[mu], archive[sigma]) for layer, (mu, sigma) in named.items()}


def refuse_unfit(path: Path, head: Head, extractor: str, preparation: str, scores: Iterable[str]) -> None:
    """Statistics of another extractor, of another preparation or size, or that lack what a score needs.

    Raises:
        EdadmError: says which, and the way out.
    """
    made_by, wanted = head.facts["extractor"], list(scores)
    if made_by not in (extractor, None):
        raise EdadmError(
            f"{path} holds features of '{made_by}', the images are scored by '{extractor}'; use one for both"
        )
    if made_by is None and extractor not in ("inception", "pytorch_fid"):
        raise EdadmError(
            f"{path} holds features of Inception, the images are scored by '{extractor}'; use one for both"
        )
    if head.facts.get("preparation", preparation) != preparation:
        raise EdadmError(
            f"{path} was made with the preparation '{head.facts['preparation']}', the images get "
            f"'{preparation}'; "
            "use the same `resolution` for both"
        )
    missing = [score for score in ("fid", "sfid") if score in wanted and LAYERS[score] not in head.shapes]
    if missing:
        raise EdadmError(
            f"{path} holds nothing to compute {missing[0]} from; take it out of `scores`, or give a folder "
            "of images"
        )
    needy = [score for score in _NEED_FEATURES if score in wanted]
    if head.features is None and needy:
        raise EdadmError(
            f"{needy[0]} needs features of single real images, and {path} has none; give a folder as "
            "`reference`, "
            "or make it with `edadm reference-statistics --keep-features 10000`"
        )
    for layer, (mu, sigma) in head.shapes.items():
        size = SIZES.get(extractor, {}).get(layer)
        if size and (mu, sigma) != ((size,), (size, size)):
            raise EdadmError(
                f"{path} holds {layer} statistics {mu} and {sigma}, those of '{extractor}' are ({size},) and "
                f"({size}, {size})"
            )
