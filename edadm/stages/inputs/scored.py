"""Images that are scored, the parts of them that jobs look at, and what was found of each part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edadm.config.files.scoring import Scoring, extractor_weights, paired_of
from edadm.config.schema import Evaluation
from edadm.config.sharding.scored import BATCH
from edadm.errors import EdadmError
from edadm.stages.inputs.provenance import digests

if TYPE_CHECKING:
    from edadm.metrics.images.datasets import SomeImages

STAGE = "extract-features"


@dataclass(frozen=True)
class Images:
    """Files of images, those of all shards in order.

    Attributes:
        samples: that are scored.
        references: of full precision, from the same noise.
        simulated: of the simulated network, where the samples were computed with integers.
    """

    samples: Sequence[Path]
    references: Sequence[Path] = ()
    simulated: Sequence[Path] = ()

    @property
    def by_role(self) -> dict[str, Sequence[Path]]:
        """Those that there are."""
        return {role: files for role, files in asdict(self).items() if files}


def prompts_of(settings: Evaluation) -> Path | None:
    """The file with the prompts that images are compared with, if they are."""
    named = settings.prompts if "clip_score" in settings.scores else None
    return Path(named).expanduser() if named else None


def made_from(
    part: range,
    total: int,
    settings: Evaluation,
    files: Scoring,
    pixels: Mapping[str, Mapping[int, str]],
    scoring: Mapping[str, Any],
) -> dict[str, Any]:
    """What is found of a part of the images is made from.

    Args:
        part: which of `total` images.
        settings, files: of the evaluation.
        pixels: digests of the files with these images, by role and number.
        scoring: digests of the networks that score, and of prompts.
    """
    from edadm.metrics.measure import layers_of

    told: dict[str, Any] = {"paired": paired_of(settings)} if paired_of(settings) else {}
    if layers_of(settings):
        told |= {"extractor": files.extractor, "resolution": files.resolution}
        told |= {"crop": files.crop} if files.crop != "square" else {}  # as before there were others
        told |= {} if settings.scored_at_once == BATCH else {"scored_at_once": settings.scored_at_once}
    if "clip_weights" in scoring:
        told["clip_model"] = settings.clip_model
    rows = {"begin": part.start, "end": part.stop, "of": total}
    inputs = {role: {str(number): digest for number, digest in of.items()} for role, of in pixels.items()}
    return {"features": told, "images": rows, "inputs": inputs | dict(scoring)}


def scoring_digests(settings: Evaluation, files: Scoring) -> dict[str, Any]:
    """Digests of the networks that score, and of the prompts."""
    weights = extractor_weights(settings, files)
    shared = digests(weights=weights, clip_weights=files.clip_weights, prompts=prompts_of(settings))
    return shared | digests(**files.perceptual)


def joined(
    found: Sequence[Path],
    settings: Evaluation,
    files: Scoring,
    lengths: Mapping[str, Sequence[int]],
    contents: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """What jobs found of the parts of all images, put together.

    Args:
        found: the files of all jobs, in order.
        settings, files: of the evaluation.
        lengths: how many images each file of a role holds.
        contents: the digests of these.

    Raises:
        DamagedError: a file is damaged.
        StaleError: one was made from other images, settings or networks, or is of another part.
    """
    import torch

    from edadm.artifacts import StaleError, describe, read_tensors, refuse_other
    from edadm.config.sharding.scored import holding, part_of

    scoring, total = scoring_digests(settings, files), sum(lengths["samples"])
    parts = []
    for job, file in enumerate(found):
        part = part_of(total, len(found), job)
        numbers = {role: holding(part, ranges(of)) for role, of in lengths.items()}
        pixels = {role: {number: contents[role][number] for number in of} for role, of in numbers.items()}
        wanted = made_from(part, total, settings, files, pixels, scoring)
        parts.append(read_tensors(file, STAGE, kind="features"))
        said = describe(file) or {}
        refuse_other(file, wanted, STAGE, said)
        if said.get("made_from") != wanted:
            raise StaleError(
                f"{file} was made from other images or for other scores; make it again with `edadm {STAGE}`"
            )
    return {name: torch.cat([each[name] for each in parts]) for name in parts[0]}


def scored_by(found: Sequence[Path]) -> dict[str, str] | None:
    """With which programs and on what all parts were looked at; None if they do not say.

    Raises:
        StaleError: one was by others.
    """
    from edadm.artifacts import StaleError, describe

    said = [(describe(file) or {}).get("scored_by") for file in found]
    for file, by in zip(found, said, strict=True):
        if by != said[0]:
            raise StaleError(
                f"{file} was made by {_in_words(by)}, {found[0]} by {_in_words(said[0])}; make one of them "
                f"again with `edadm {STAGE}`"
            )
    return said[0]


def _in_words(by: dict[str, str] | None) -> str:
    return ", ".join(by.values()) if by else "programs that it does not name"


def ranges(lengths: Sequence[int]) -> list[range]:
    """The numbers of the images in files that hold so many each."""
    ends = list(accumulate(lengths))
    return [range(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def shards_of(settings: Evaluation, shards: int) -> list[range]:
    """The images of all shards, of which there are as many as files."""
    from edadm.config.sharding.shares import shares

    return shares(settings.model_copy(update={"shards": shards}))


def opened_part(files: list[Path], shards: list[range], part: range) -> SomeImages:
    """The images of a part, from the files of the shards that hold it.

    Raises:
        EdadmError: a file holds more or fewer images than its shard.
    """
    from edadm.metrics.images.datasets import ShardedImages, SomeImages

    stored = ShardedImages(files)
    for file, shard, there in zip(files, shards, stored.shards, strict=True):
        if len(there) != len(shard):
            raise EdadmError(
                f"{file} holds {len(there)} images, its shard of the preset has {len(shard)}; name the files "
                "of all shards in order, and the evaluation that they were made for"
            )
    first = shards[0].start
    return SomeImages(stored, range(part.start - first, part.stop - first))
