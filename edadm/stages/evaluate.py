"""Evaluate: scores of images; and the statistics of real images that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edadm.config.backends import INTEGER, is_exact
from edadm.config.files.scoring import Scoring
from edadm.config.schema import Evaluation
from edadm.config.stated import OF_NOISE, settings_of
from edadm.console import progress_bar, say
from edadm.errors import EdadmError
from edadm.stages.cost.work import Cost
from edadm.stages.inputs.provenance import code_of, digests, facts_of

if TYPE_CHECKING:
    import torch

EVALUATION = ("scores", "extractor", "resolution", "clip_model")  # settings of it
_OF_IMAGES = ("model", "bits", "reconstruction", "resolved_backend")  # what scores say of their images


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


def run(
    images: Images, settings: Evaluation, files: Scoring, output: Path, device: torch.device, label: str
) -> None:
    """Scores images as the preset says.

    Args:
        images: that are scored, and those they are compared with.
        settings: the evaluation preset.
        files: its feature networks and statistics.
        output: the scores.
        device: where the networks that score compute.
        label: what progress lines call this run.

    Raises:
        EdadmError: images made with integers are farther from the simulated ones than these are from full
            precision.
    """
    from edadm.artifacts import as_json, making

    known = facts_of("metrics", _made_from(images, settings, files), device)
    with making([output], known, code_of("evaluate")) as work:
        if work is None:
            return
        exact = is_exact(known["made_from"].get("resolved_backend", ""))
        scores = _scores(images, settings, files, device, label, exact)
        with work.publishing() as partial:
            partial.write_text(as_json(scores, known))


def _scores(
    images: Images, settings: Evaluation, files: Scoring, device: torch.device, label: str, exact: bool
) -> dict[str, Any]:
    """All scores of images, and how near those made with integers are to the simulated ones.

    They must be nearer than these are to full precision if the backend is exact.
    """
    from dataclasses import asdict

    from edadm.metrics.evaluate import evaluate
    from edadm.metrics.images.datasets import ShardedImages
    from edadm.metrics.scores.paired import image_parity

    samples = ShardedImages(images.samples)
    compared = ShardedImages(images.references) if images.references else None
    simulated = images.simulated
    parity = image_parity(samples, ShardedImages(simulated), compared) if simulated and compared else None
    if parity and not parity.holds and exact:
        raise EdadmError(
            f"images made with integers differ by {parity.difference:.2f} grey levels from the simulated "
            f"ones, which differ by {parity.bound:.2f} from full precision: this machine's integers compute "
            f"something else; take `/{INTEGER}` off the variant"
        )
    with progress_bar(label, len(samples), "images") as advance:
        scores = evaluate(samples, compared, settings, files, advance, device)
    return scores | ({"parity": asdict(parity)} if parity else {})


def _made_from(images: Images, settings: Evaluation, files: Scoring) -> dict[str, Any]:
    """What scores are made from, whose images must belong together.

    Raises:
        DamagedError: a file is damaged.
        StaleError: images were made from other settings or files than those they are compared with.
    """
    from edadm.artifacts.digest import rows_digest
    from edadm.metrics.images.provenance import check_samples

    given = settings.model_fields_set & set(OF_NOISE)
    wanted = settings_of(settings, *given) if given else {}
    said = check_samples(images.samples, images.references, images.simulated, wanted)
    made_from: dict[str, Any] = {name: said[name] for name in _OF_IMAGES if name in said}
    made_from["evaluation"] = said.get("evaluation", {}) | settings_of(settings, *EVALUATION)
    compared = {"samples": images.samples, "references": images.references, "simulated": images.simulated}
    digests(**compared)  # refuses what is damaged
    pixels = {role: rows_digest(files) for role, files in compared.items() if files}
    prompts = Path(settings.prompts).expanduser() if settings.prompts else None
    scoring = digests(
        statistics=files.reference, weights=files.weights, clip_weights=files.clip_weights, prompts=prompts
    )
    return made_from | {"inputs": pixels | scoring}


def reference_statistics(
    images: Path,
    name: str,
    extractor: str,
    weights: Path | None,
    resolution: int | None,
    keep_features: int,
    output: Path,
    device: torch.device,
    threads: int,
    label: str,
) -> None:
    """Computes statistics of real images, against which generated ones are scored.

    Args:
        images: a folder of them, sub-folders included.
        name: what reports call this set.
        extractor, weights: the feature network, and its weights if they are not bundled.
        resolution: the side to which images are cropped and resized; as they are where it is None.
        keep_features: of so many images features are kept, for KID, precision and recall.
        output: the statistics.
        device: where features are computed.
        threads: of the CPU.
        label: what progress lines call this run.
    """
    from edadm.artifacts import making
    from edadm.config.inputs.statistics import preparation
    from edadm.metrics.images.datasets import FolderImages
    from edadm.metrics.references import write_reference

    real = FolderImages(images, resolution)
    for remark in real.remarks():
        say(remark)
    facts = {"set": name, "preparation": preparation(resolution), "files": real.digest()}
    settings = {"extractor": extractor, "keep_features": keep_features, **facts}
    made = facts_of("statistics", {"references": settings, "inputs": digests(weights=weights)}, device)
    with making([output], made, code_of("evaluate.reference_statistics")) as work:
        if work is None:
            return
        with work.publishing(beside=made) as partial, progress_bar(label, len(real), "images") as advance:
            kept = (keep_features, threads - 1)
            write_reference(partial, real, extractor, weights, facts, *kept, advance=advance, device=device)


def cost(name: str, settings: Evaluation) -> Cost:
    """The cost of a variant's scores."""
    return Cost("evaluate", name, scored=settings.images)
