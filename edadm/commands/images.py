"""From a checkpoint to images and their scores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edadm.commands.app import app
from edadm.commands.made import code_of, digests, facts_of, of_scores
from edadm.commands.opening import (
    device_named,
    open_condition,
    open_decoder,
    open_network,
    open_prediction,
    preset_named,
)
from edadm.commands.options import (
    BackendOption,
    ConfigOption,
    DeviceOption,
    EvaluationOption,
    LabelOption,
    ModelOption,
    OutputOption,
    PartOption,
    ThreadsOption,
)
from edadm.config.backends import DEFAULT, INTEGER, device_for_images, resolved
from edadm.config.stated import OF_IMAGES, OF_NOISE, settings_of
from edadm.console import progress_bar, say
from edadm.errors import EdadmError


@app.command()
def generate(
    model: ModelOption,
    evaluation: EvaluationOption,
    weights: Annotated[Path, typer.Option(exists=True, help="float weights or a quantized checkpoint")],
    output: OutputOption,
    autoencoder: PartOption = None,
    condition: PartOption = None,
    backend: BackendOption = DEFAULT,
    shard: Annotated[int, typer.Option(help="which part of the images, from 0")] = 0,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    label: LabelOption = "generate",
) -> None:
    """Generate images, each from the noise of its own index."""
    import numpy as np

    from edadm.artifacts import describe, making
    from edadm.config.sources import locate_prompts
    from edadm.networks.denoiser import Denoiser
    from edadm.sampling.generate import generate_images, shard_range

    preset, settings = preset_named("models", model, config), preset_named("evaluations", evaluation, config)
    where = device_named(device_for_images(backend, device), threads)
    prompts = locate_prompts("given", preset)
    made_from: dict[str, Any] = {"model": settings_of(preset, *OF_IMAGES), "shard": shard, "backend": backend}
    if backend != DEFAULT:
        made_from["resolved_backend"] = resolved(backend, where.type).name
    made_from["evaluation"] = settings_of(settings, *OF_NOISE)
    quantized = (describe(weights) or {}).get("made_from", {})
    made_from |= {name: quantized[name] for name in ("bits", "reconstruction") if name in quantized}
    parts = digests(autoencoder=autoencoder, condition=condition, prompts=prompts)
    made_from["inputs"] = digests(weights=weights) | parts
    known = facts_of("samples", made_from, where)
    with making([output], known, code_of("generate")) as work:
        if work is None:
            return
        contexts = open_condition(preset, condition, settings.images, where)
        decode = open_decoder(preset, autoencoder, where)
        network = open_network(preset.architecture, weights, where, backend)
        if settings.compiled:
            network.compile()
        denoise = Denoiser(network, contexts, preset.guidance, settings.precision, open_prediction(preset))
        indices = shard_range(settings.images, settings.shards, shard)
        sampling = (preset.sampler, preset.schedule, indices, preset.latent_shape)
        run = (*sampling, settings.seed, settings.batch_size, where)
        with progress_bar(label, len(indices), "images") as advance:
            images = generate_images(denoise, *run, advance, decode, preset.pixels)
        with work.publishing(beside=known) as partial, open(partial, "wb") as file:
            np.save(file, images.numpy())


@app.command()
def write_prompts(
    model: ModelOption,
    evaluation: EvaluationOption,
    output: OutputOption,
    config: ConfigOption = None,
) -> None:
    """Write the prompts of all images of an evaluation in order, as a JSON list; CLIP scores compare images with them."""
    from edadm.artifacts import as_json, making
    from edadm.conditions.condition import prompts_of
    from edadm.config.sources import locate_prompts

    preset, settings = preset_named("models", model, config), preset_named("evaluations", evaluation, config)
    if preset.conditioning is None or preset.conditioning.kind != "text":
        raise EdadmError("this model takes no prompts; name one with conditioning.kind: text")
    made_from = {"model": settings_of(preset, "conditioning"), "evaluation": settings_of(settings, "images")}
    made_from["inputs"] = digests(prompts=locate_prompts("given", preset))
    known = facts_of("prompts", made_from)
    with making([output], known, code_of("write-prompts")) as work:
        if work is None:
            return
        with work.publishing(beside=known) as partial:
            partial.write_text(as_json(prompts_of(preset.conditioning, settings.images)))


@app.command()
def evaluate(
    samples: Annotated[list[Path], typer.Argument(exists=True, help="image files of all shards, in order")],
    evaluation: EvaluationOption,
    output: OutputOption,
    references: Annotated[
        list[Path] | None,
        typer.Option("--reference", exists=True, help="full-precision image files, for PSNR"),
    ] = None,
    simulated: Annotated[
        list[Path] | None,
        typer.Option(exists=True, help="image files of the simulated network, for images made with integers"),
    ] = None,
    statistics: Annotated[
        Path | None, typer.Option(exists=True, help="of the preset's real images, from reference-statistics")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option(exists=True, help="of the images, from write-prompts or the preset's")
    ] = None,
    config: ConfigOption = None,
    threads: ThreadsOption = 1,
    label: LabelOption = "evaluate",
) -> None:
    """Score images as the preset says: FID, sFID, IS, KID, precision, recall, CLIP score; and PSNR to full precision.

    Images made with integers must be nearer to the simulated ones than these are to full precision.
    """
    from dataclasses import replace

    from edadm.artifacts import as_json, making
    from edadm.config.scoring import scoring

    if simulated and not references:
        raise EdadmError("--simulated needs full-precision images to compare with; give them as --reference")
    device_named("auto", threads)
    settings = preset_named("evaluations", evaluation, config)
    settings = settings.model_copy(update={"prompts": str(prompts)}) if prompts else settings
    files = scoring(settings)
    files = replace(files, reference=statistics) if statistics else files
    if files.reference and files.reference.is_dir():
        raise EdadmError(
            f"{files.reference} is a folder; make its statistics with `edadm reference-statistics`, and name "
            "them as --statistics"
        )
    if files.absent:
        say(f"the bundled classifier scores instead of '{files.instead_of}': {files.absent}")
    images = (samples, references or [], simulated or [])
    known = facts_of("metrics", of_scores(settings, files, *images))
    with making([output], known, code_of("evaluate")) as work:
        if work is None:
            return
        scores = _scores(settings, files, label, *images)
        with work.publishing() as partial:
            partial.write_text(as_json(scores, known))


def _scores(
    settings: Any, files: Any, label: str, samples: list[Path], references: list[Path], simulated: list[Path]
) -> dict[str, Any]:
    """All scores of images, and how near those made with integers are to the simulated ones."""
    from dataclasses import asdict

    from edadm.metrics.datasets import ShardedImages
    from edadm.metrics.evaluate import evaluate
    from edadm.metrics.paired import image_parity

    images, compared = ShardedImages(samples), ShardedImages(references) if references else None
    parity = image_parity(images, ShardedImages(simulated), compared) if simulated and compared else None
    if parity and not parity.holds:
        raise EdadmError(
            f"images made with integers differ by {parity.difference:.2f} grey levels from the simulated ones, "
            f"which differ by {parity.bound:.2f} from full precision: this machine's integers compute "
            f"something else; take `/{INTEGER}` off the variant"
        )
    with progress_bar(label, len(images), "images") as advance:
        scores = evaluate(images, compared, settings, files, advance)
    return scores | ({"parity": asdict(parity)} if parity else {})


@app.command()
def reference_statistics(
    images: Annotated[
        Path, typer.Option(exists=True, file_okay=False, help="folder of real images, sub-folders included")
    ],
    output: OutputOption,
    name: Annotated[str, typer.Option(help="what reports call this set")],
    extractor: Annotated[
        str, typer.Option(help="cifar10_classifier, inception or pytorch_fid")
    ] = "cifar10_classifier",
    weights: Annotated[
        Path | None, typer.Option(exists=True, help="the extractor's weights, if they are not bundled")
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(min=1, help="side to which images are cropped and resized; else as they are")
    ] = None,
    keep_features: Annotated[
        int, typer.Option(min=0, help="real images whose features are kept, for KID, precision and recall")
    ] = 0,
    threads: ThreadsOption = 1,
    label: LabelOption = "reference-statistics",
) -> None:
    """Statistics of real images, against which generated ones are scored."""
    from edadm.artifacts import making
    from edadm.config.inputs.statistics import preparation
    from edadm.config.schema import Evaluation
    from edadm.metrics.datasets import FolderImages
    from edadm.metrics.references import write_reference

    device_named("auto", threads)
    if extractor not in (known := Evaluation.model_json_schema()["properties"]["extractor"]["enum"]):
        raise EdadmError(f"there is no extractor '{extractor}'; known are {', '.join(known)}")
    real = FolderImages(images, resolution)
    for remark in real.remarks():
        say(remark)
    facts = {"set": name, "preparation": preparation(resolution), "files": real.digest()}
    settings = {"extractor": extractor, "keep_features": keep_features, **facts}
    made = facts_of("statistics", {"references": settings, "inputs": digests(weights=weights)})
    with making([output], made, code_of("reference-statistics")) as work:
        if work is None:
            return
        with work.publishing(beside=made) as partial, progress_bar(label, len(real), "images") as advance:
            kept = (keep_features, threads - 1)
            write_reference(partial, real, extractor, weights, facts, *kept, advance=advance)
