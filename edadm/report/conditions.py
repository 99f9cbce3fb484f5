"""What the numbers of a run hold under, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edadm.config.backends import DEFAULT, is_exact
from edadm.config.inputs.statistics import SIZES
from edadm.report.results.records import RunResult

_NETWORKS = {"inception": "torch-fidelity", "pytorch_fid": "pytorch-fid", "dinov2": "DINOv2", "clip": "CLIP"}


def extractor_note(held: Mapping[str, Any]) -> str:
    """The library of a column's network, or that another one stood in; empty for the bundled one."""
    if held.get("instead_of"):
        return "bundled classifier"
    return _NETWORKS.get(held.get("extractor", ""), "")


def conditions(run: RunResult) -> list[str]:
    """What the numbers of a run hold under, and what they must not be compared with; a remark each."""
    return [*_scores(run), *_speed(run)]


def _scores(run: RunResult) -> Iterator[str]:
    held, scores = run.variants[0].conditions, run.variants[0].scores
    images, seed = held["images"], run.evaluation_settings["seed"]
    yield f"Every row scores {images:,} images, image i of each from the same noise (seed {seed})."
    yield from _integer_images(run)
    if "extractor" in held:
        yield from _features(held, scores)
        yield (
            "A small number of images biases FID upward, here as everywhere, so only differences at the same "
            f"N\u00a0=\u00a0{images:,} count."
        )
        yield from _few_images(held, images)
    yield from _intervals(run)
    if "versions" in held:
        yield f"Computed by {held['versions']} on {held['scored_on']}."
    if scores["clip_score"] is not None:
        yield (
            f"CLIP score is 100 times the mean cosine between image and prompt by {held['clip_model']} "
            f"(SHA256\u00a0{held['clip_sha256'][:8]}…; prompts {held['prompts_sha256'][:8]}…), on the images "
            "at full size."
        )


def _few_images(held: Mapping[str, Any], images: int) -> Iterator[str]:
    size = SIZES.get(held["extractor"], {}).get("pooled", 0)
    if "reference_set" in held and images < 2 * size:
        yield (
            f"Warning: {images:,} images are fewer than twice the {size:,} features, so that FID is mostly "
            f"bias; generate {2 * size:,} or more."
        )


def _intervals(run: RunResult) -> Iterator[str]:
    """What stands after ±, and what it leaves out."""
    if not any(result.resamples for result in run.variants):
        return
    yield (
        "After ± stands half the 95\u00a0% interval over images of other noise, by a jackknife; that of a "
        "difference is paired, image by image, and where it holds 0 the difference is not distinguishable "
        "from none. "
        + (
            "Rows of several seeds of learning are their means, σ is the standard deviation of one of them, "
            "and the intervals are over seeds as well; images, unit errors, speed and what is compared with "
            "simulated images are of the first."
            if any(result.seeds > 1 for result in run.variants)
            else "No interval says what another seed of learning would change."
        )
    )
    if run.variants[0].floor:
        yield (
            "The row of as many real images is the floor of distances: images held out from the set, or, "
            "where single images of it are not known, draws from its Gaussian, which lie lower."
        )


def _integer_images(run: RunResult) -> Iterator[str]:
    """How near images made with integers are to the simulated ones, and how near they must be."""
    compared: dict[bool, list[str]] = {True: [], False: []}
    for result in run.variants:
        if result.parity:
            apart = f"{result.parity['difference']:.2f} against {result.parity['bound']:.2f}"
            compared[is_exact(result.variant.backend)].append(f"{apart} ({result.label})")
    if compared[True]:
        yield (
            "Images made with integers must be nearer to the simulated ones than these are to full "
            "precision; mean absolute differences in "
            f"grey levels: {', '.join(compared[True])}."
        )
    if compared[False]:
        yield (
            "Images by a backend that leaves out grids are of another network, and may be anywhere; the same "
            f"differences: {', '.join(compared[False])}."
        )


def _features(held: Mapping[str, Any], scores: Mapping[str, float | None]) -> Iterator[str]:
    extractor = f"“{held['extractor']}”" + (
        f" (SHA256\u00a0{held['extractor_sha256'][:8]}…)" if "extractor_sha256" in held else ""
    )
    if "reference_set" in held:
        known = held["reference_images"]
        count = "an unstated number of" if known is None else f"{known:,}"
        yield (
            f"FID and sFID are distances between features of the extractor {extractor} and those of {count} "
            "images of the set "
            f"“{held['reference_set']}” (SHA256\u00a0{held['reference_sha256'][:8]}…)"
            + _inception_score(held, scores)
            + "."
        )
    elif scores["inception_score"] is not None:
        yield f"IS is of the extractor {extractor}, over {_splits(held)}."
    if held.get("preparation", "none") != "none":
        real = held.get("reference_preparation", "none are used")
        yield f"Images were prepared for the extractor: {held['preparation']}; the real ones: {real}."
    elif held.get("reference_preparation", "none") != "none":
        yield f"Images were taken as they are; preparation of the real ones: {held['reference_preparation']}."
    if "reference_features" in held:
        subsets = f"; KID is of {held['kid_subsets']}" if "kid_subsets" in held else ""
        yield f"KID, precision and recall compare with {held['reference_features']:,} of them{subsets}."
    if held.get("instead_of"):
        yield f"The weights of “{held['instead_of']}” were absent; the bundled classifier stood in for it."
    if held["extractor"] not in _NETWORKS:
        yield "These numbers do not compare with published values, which are made with Inception."


def _inception_score(held: Mapping[str, Any], scores: Mapping[str, float | None]) -> str:
    return "" if scores["inception_score"] is None else f"; IS is of the same extractor, over {_splits(held)}"


def _splits(held: Mapping[str, Any]) -> str:
    splits = held["inception_score_splits"]
    return f"{splits} {'split' if splits == 1 else 'splits'}"


def _speed(run: RunResult) -> Iterator[str]:
    speeds = [result.speed for result in run.variants if result.speed]
    if not speeds:
        return
    setups = sorted({(speed.device, speed.batch_size, speed.threads) for speed in speeds})
    described = "; ".join(
        f"{device}, batch of {batch}, {threads} {'thread' if threads == 1 else 'threads'}"
        for device, batch, threads in setups
    )
    yield (
        f"Speed is that of one network evaluation relative to full precision timed beside it ({described}), "
        "below it the median time and "
        "the range over all rounds; 1\u00a0MB is 10⁶ bytes."
    )
    if any(result.variant.backend == DEFAULT for result in run.checkpoints):
        yield (
            "Quantized checkpoints are simulated in floating point unless a row says integers, "
            "so a speed below 1 is expected there."
        )
    if parities := [
        result.integers.parity for result in run.variants if result.integers and result.integers.parity
    ]:
        mean, largest = (max(values) for values in zip(*parities, strict=True))
        yield (
            "One prediction with integers (docs/integer_cpu.md) differs from the "
            f"simulated one by up to {mean:.1%} of its standard deviation on average, and {largest:.0%} at "
            "most."
        )
        half = next((speed for speed in speeds if speed.bf16_seconds and speed.float_seconds), None)
        if half and half.bf16_seconds and half.float_seconds:
            speed = half.float_seconds / half.bf16_seconds
            slower = (
                " and so is slower than in fp32: this processor has no arithmetic for it" if speed < 1 else ""
            )
            yield f"Full precision with bf16 weights has speed {speed:.2f} there{slower}."
