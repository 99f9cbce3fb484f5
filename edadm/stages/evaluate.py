"""Evaluate: scores of images; and the statistics of real images that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edadm.config.backends import is_exact
from edadm.config.files.scoring import Scoring
from edadm.config.inputs.statistics import Crop
from edadm.config.schema import AUTO, Evaluation, Extractor
from edadm.console import progress_bar, say
from edadm.errors import EdadmError
from edadm.stages.cost.work import FP32, Cost
from edadm.stages.inputs.provenance import code_of, digests, facts_of
from edadm.stages.inputs.scored import (
    Images,
    joined,
    made_from,
    opened_part,
    prompts_of,
    scored_by,
    scoring_digests,
    shards_of,
)
from edadm.stages.inputs.scores import labels_wanted, parity_of, scores_made_from
from edadm.stages.inputs.sets import open_all, with_statistics

if TYPE_CHECKING:
    import torch


def run(
    images: Images,
    settings: Evaluation,
    files: Scoring,
    output: Path,
    device: torch.device,
    label: str,
    features: Sequence[Path] = (),
) -> None:
    """Scores images as the preset says.

    Args:
        images: that are scored, and those they are compared with.
        settings: the evaluation preset.
        files: its feature networks and statistics.
        output: the scores.
        device: where the networks that score compute, unless there are features.
        label: what progress lines call this run.
        features: what jobs of `extract-features` found of the images, in order.

    Raises:
        DamagedError: a file is damaged.
        StaleError: images were made from other settings or files than those they are compared with, or
            features from other images.
        EdadmError: images made with integers are farther from the simulated ones than these are from full
            precision.
    """
    from edadm.artifacts import as_json, describe, making
    from edadm.metrics.evaluate import evaluate
    from edadm.metrics.scores.paired import parity_rows

    made, contents = scores_made_from(images, settings, files)
    labels = labels_wanted(settings, made)
    known = facts_of("metrics", made, device)
    if features:
        known["device"] = (describe(features[0]) or known)["device"]
    with making([output], known, code_of("evaluate")) as work:
        if work is None:
            return
        opened = open_all(images, files)
        samples, references = opened["samples"], opened.get("references")
        rows: dict[str, Any] = {}
        if features and (other := [file for file in images.samples if file.suffix != ".npy"]):
            raise EdadmError(
                f"--features are of `.npy` files of images, and {other[0]} is none; leave them out"
            )
        if features:
            lengths = {role: list(map(len, of.shards)) for role, of in opened.items()}
            rows = joined(features, settings, files, lengths, contents)
        elif "simulated" in opened and references:
            rows = parity_rows(samples, opened["simulated"], references)
        beside = parity_of(rows, samples[0].numel(), is_exact(made.get("resolved_backend", "")))
        bar = nullcontext(lambda images: None) if features else progress_bar(label, len(samples), "images")
        with with_statistics(files, settings, device, label) as known_files, bar as advance:
            before, by = (rows, scored_by(features)) if features else (None, None)
            told = (settings, known_files, advance, device, before, by, labels)
            scores = evaluate(samples, references, *told)
        with work.publishing() as partial:
            partial.write_text(as_json(scores | beside, known))


def extract_features(
    images: Images,
    settings: Evaluation,
    files: Scoring,
    job: int,
    jobs: int,
    output: Path,
    device: torch.device,
    label: str,
) -> None:
    """Computes what scores need of every image of a part.

    Args:
        images: files of all shards; of those without an image of the part none need be there yet.
        settings: the evaluation preset.
        files: its feature networks.
        job, jobs: which part of the images, from 0, and how many there are.
        output: a row for each image.
        device: where the networks that score compute.
        label: what progress lines call this run.

    Raises:
        EdadmError: there is no such part; a file holds other images than its shard has.
    """
    from edadm.artifacts import making, save_tensors
    from edadm.config.inputs.prompts import prompts_per_image
    from edadm.config.sharding.scored import holding, part_of
    from edadm.metrics.circumstances import circumstances
    from edadm.metrics.measure import kept_layers, measured

    part = part_of(settings.images, jobs, job)
    shards = {role: shards_of(settings, len(of)) for role, of in images.by_role.items()}
    numbers = {role: holding(part, of) for role, of in shards.items()}
    held = {role: [images.by_role[role][number] for number in of] for role, of in numbers.items()}
    contents = digests(**held)
    pixels = {role: dict(zip(numbers[role], contents[role], strict=True)) for role in held}
    made = made_from(part, settings.images, settings, files, pixels, scoring_digests(settings, files))
    known = facts_of("features", made, device) | {"scored_by": circumstances(device)}
    with making([output], known, code_of("evaluate.extract_features", device)) as work:
        if work is None:
            return
        opened = {
            role: opened_part(of, [shards[role][number] for number in numbers[role]], part)
            for role, of in held.items()
        }
        compared = opened.get("references"), opened.get("simulated")
        prompts = prompts_of(settings)
        every = prompts_per_image(prompts, settings.images) if prompts else None
        told = every and every[part.start : part.stop], kept_layers(settings, files)
        with progress_bar(label, len(part), "images") as advance:
            rows = measured(opened["samples"], *compared, *told, settings, files, advance, device)
        with work.publishing() as partial:
            save_tensors(partial, rows, known)


def reference_statistics(
    images: Path,
    name: str,
    extractor: str,
    weights: Path | None,
    resolution: int | None,
    crop: Crop,
    keep_features: int,
    output: Path,
    device: torch.device,
    label: str,
) -> None:
    """Computes statistics of real images, against which generated ones are scored.

    Args:
        images: a set of them, as `edadm.config.inputs.sets` knows them.
        name: what reports call this set.
        extractor, weights: the feature network, and its weights if they are not bundled.
        resolution, crop: the side to which images are brought, and how; as they are where it is None.
        keep_features: of so many images features are kept, for KID, precision and recall.
        output: the statistics.
        device: where features are computed.
        label: what progress lines call this run.
    """
    from edadm.artifacts import making
    from edadm.config.inputs.statistics import preparation
    from edadm.metrics.images.opening import digest_of, open_images
    from edadm.metrics.references import write_reference

    real = open_images([images], resolution, crop, as_stored=False)
    for remark in real.remarks():
        say(remark)
    facts = {"set": name, "preparation": preparation(resolution, crop), "files": digest_of([images])}
    settings = {"extractor": extractor, "keep_features": keep_features, **facts}
    made = facts_of("statistics", {"references": settings, "inputs": digests(weights=weights)}, device)
    with making([output], made, code_of("evaluate.reference_statistics")) as work:
        if work is None:
            return
        with work.publishing(beside=made) as partial, progress_bar(label, len(real), "images") as advance:
            told = (extractor, weights, facts, keep_features)
            write_reference(partial, real, *told, advance=advance, device=device)


def add_features(
    known: Path,
    images: Path,
    held_out: Path,
    extractor: Extractor,
    weights: Path | None,
    resolution: int | None,
    crop: Crop,
    keep_features: int,
    output: Path,
    device: torch.device,
    label: str,
) -> None:
    """Writes statistics that are there again, with features of single images for KID and floors.

    Args:
        known: statistics of these images, whose numbers stay.
        images, held_out: sets of real images: those, and others of the same distribution.
        extractor, weights: as of `reference_statistics`, as are the rest.
    """
    from edadm.artifacts import placing, writing
    from edadm.metrics.images.opening import open_images
    from edadm.metrics.kept import write_kept

    of, others = (open_images([path], resolution, crop, as_stored=False) for path in (images, held_out))
    total = min(keep_features, len(of)) + min(keep_features, len(others))
    with placing(output), writing(output) as partial, progress_bar(label, total, "images") as advance:
        write_kept(partial, known, of, others, extractor, weights, keep_features, advance, device)


def costs(name: str, settings: Evaluation) -> list[Cost]:
    """The cost of a variant's scores, and before it that of jobs that look at parts of the images, if any."""
    from edadm.config.inputs.statistics import LAYERS, SIZES
    from edadm.config.sharding.scored import MOST_IMAGES, jobs_for

    whole = Cost("evaluate", name, scored=settings.images)
    jobs = -(-settings.images // MOST_IMAGES) if settings.shards == AUTO else jobs_for(settings)
    if jobs == 1:
        return [whole]
    needed = set(settings.scores) & set(LAYERS)
    numbers = settings.images * sum(SIZES[settings.extractor].values()) if needed else 0
    parts = Cost("extract-features", name, scored=settings.images, disk=numbers * FP32, files=1 + 2 * jobs)
    divided = parts.divided(AUTO if settings.shards == AUTO else jobs, jobs)
    return [divided, replace(whole, scored=0, images=settings.images)]
