"""Which image of one set belongs to which of another, told by their names."""

from __future__ import annotations

from collections.abc import Sequence

from edadm.metrics.images.datasets import Images, SomeImages
from edadm.metrics.images.opening import NamedImages, in_words


def paired(images: NamedImages, others: NamedImages) -> tuple[Images | None, str]:
    """Others in the order of the images that have their names, and half a sentence on that.

    A number is the same name however many zeros it begins with, and images in arrays are called by theirs,
    from 0. None of the others where numbers, sizes or names differ; then the words say why.
    """
    if len(images) != len(others):
        return None, f"not paired, since there are {len(images)} and {len(others)}"
    if images.size != others.size:
        return None, f"not paired, since they are of {in_words(images.size)} and {in_words(others.size)}"
    own, theirs = _keys(images.names), _keys(others.names)
    places = {name: place for place, name in enumerate(theirs)}
    if len(places) < len(theirs) or len(set(own)) < len(own):
        return None, "not paired, since several images of a set have one name"
    if absent := [name for name in own if name not in places]:
        return None, f"not paired, since {len(absent)} names differ, such as '{absent[0]}'"
    order = [places[name] for name in own]
    in_order = order == list(range(len(order)))
    return (others if in_order else SomeImages(others, order)), "paired by name"


def _keys(names: Sequence[str]) -> list[str]:
    return [
        "/".join(str(int(part)) if part.isdecimal() else part for part in name.split("/")) for name in names
    ]
