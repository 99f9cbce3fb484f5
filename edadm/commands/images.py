"""From a checkpoint to images and their scores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edadm.commands.app import app
from edadm.commands.options import (
    BackendOption,
    ConfigOption,
    DeviceOption,
    EvaluationOption,
    GraphsOption,
    LabelOption,
    ModelOption,
    OutputOption,
    PartOption,
    ThreadsOption,
    device_named,
    preset_named,
)
from edadm.config.backends import DEFAULT, FASTEST, device_for_images
from edadm.console import say
from edadm.errors import EdadmError

if TYPE_CHECKING:
    from edadm.config.files.scoring import Scoring
    from edadm.config.schema import Evaluation
    from edadm.stages.inputs.scored import Images


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
    graphs: GraphsOption = True,
) -> None:
    """Generate images, each from the noise of its own index."""
    from edadm.stages import generate as stage

    preset, settings = preset_named("models", model, config), preset_named("evaluations", evaluation, config)
    device = device if backend == FASTEST else device_for_images(backend, device)
    where = device_named(device, threads)
    parts = {"autoencoder": autoencoder, "condition": condition}
    stage.run(preset, settings, weights, parts, backend, shard, output, where, label, graphs)


@app.command()
def write_prompts(
    model: ModelOption,
    evaluation: EvaluationOption,
    output: OutputOption,
    config: ConfigOption = None,
) -> None:
    """Write the prompts of all images of an evaluation in order, as a JSON list.

    CLIP scores compare images with them.
    """
    from edadm.stages import generate as stage

    preset, settings = preset_named("models", model, config), preset_named("evaluations", evaluation, config)
    stage.write_prompts(preset, settings, output)


PromptsOption = Annotated[
    Path | None, typer.Option(exists=True, help="of the images, from write-prompts or the preset's")
]


@app.command()
def extract_features(
    samples: Annotated[list[Path], typer.Argument(help="image files of all shards, in order")],
    evaluation: EvaluationOption,
    output: OutputOption,
    jobs: Annotated[int, typer.Option(help="how many parts the images have")],
    job: Annotated[int, typer.Option(help="which part, from 0")],
    references: Annotated[
        list[Path] | None, typer.Option("--reference", help="full-precision image files, for PSNR")
    ] = None,
    simulated: Annotated[list[Path] | None, typer.Option(help="as of `evaluate`")] = None,
    prompts: PromptsOption = None,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    label: LabelOption = "extract-features",
) -> None:
    """Compute what scores need of every image of a part, for `evaluate --features`.

    Files of shards without an image of the part need not be there yet.
    """
    from edadm.stages import evaluate as stage

    images = _images(samples, references, simulated)
    settings, files = _scoring(evaluation, config, prompts)
    where = device_named(device, threads)
    stage.extract_features(images, settings, files, job, jobs, output, where, label)


@app.command()
def evaluate(
    samples: Annotated[
        list[Path],
        typer.Argument(exists=True, help="image files of all shards, in order; or a folder, an archive"),
    ],
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
    features: Annotated[
        list[Path] | None,
        typer.Option(exists=True, help="of all parts of the images in order, from extract-features"),
    ] = None,
    statistics: Annotated[
        Path | None, typer.Option(exists=True, help="of the preset's real images, from reference-statistics")
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            exists=True, help="images, or statistics of some, in the place of the preset's real images"
        ),
    ] = None,
    prompts: PromptsOption = None,
    config: ConfigOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    label: LabelOption = "evaluate",
) -> None:
    """Score images as the preset says.

    FID, sFID, IS, KID, precision and recall, CMMD, CLIP score, class accuracy; and, image by image to full
    precision, PSNR, SSIM, FLIP, LPIPS, DISTS.

    Images made with integers must be nearer to the simulated ones than these are to full precision. Images of
    others are folders, .zip or .tar archives, .npz or .npy files; with --against two sets are compared, image
    by image too where their names are the same.
    """
    from dataclasses import replace

    from edadm.stages import evaluate as stage

    images = _images(samples, references, simulated)
    settings, files = _scoring(evaluation, config, prompts, against)
    files = replace(files, reference=statistics) if statistics else files
    if files.real_images and not against:
        raise EdadmError(
            f"{files.reference} holds images; make their statistics with `edadm reference-statistics`, and "
            "name them as --statistics"
        )
    if files.absent:
        say(f"the bundled classifier scores instead of '{files.instead_of}': {files.absent}")
    where = device_named("cpu" if features else device, threads)
    stage.run(images, settings, files, output, where, label, features or [])


def _scoring(
    evaluation: str, config: Path | None, prompts: Path | None, against: Path | None = None
) -> tuple[Evaluation, Scoring]:
    """An evaluation with the file of prompts that was given, and its files."""
    from edadm.config.files.scoring import scoring

    settings: Evaluation = preset_named("evaluations", evaluation, config)
    settings = settings.model_copy(update={"prompts": str(prompts)}) if prompts else settings
    return settings, scoring(settings, against=against)


def _images(samples: list[Path], references: list[Path] | None, simulated: list[Path] | None) -> Images:
    """Files of images by what they are.

    Raises:
        EdadmError: there are simulated ones, and nothing to compare with.
    """
    from edadm.stages.inputs.scored import Images

    if simulated and not references:
        raise EdadmError("--simulated needs full-precision images to compare with; give them as --reference")
    return Images(samples, references or [], simulated or [])


@app.command()
def reference_statistics(
    images: Annotated[
        Path,
        typer.Option(
            exists=True, help="real images: a folder, an archive, .npz or .npy, CIFAR-10's files, LSUN's"
        ),
    ],
    output: OutputOption,
    name: Annotated[str, typer.Option(help="what reports call this set")],
    extractor: Annotated[
        str, typer.Option(help="cifar10_classifier, inception, pytorch_fid, dinov2 or clip")
    ] = "cifar10_classifier",
    weights: Annotated[
        Path | None, typer.Option(exists=True, help="the extractor's weights, if they are not bundled")
    ] = None,
    resolution: Annotated[
        int | None, typer.Option(min=1, help="side to which images are cropped and resized; else as they are")
    ] = None,
    crop: Annotated[
        str, typer.Option(help="how they come to it: square, adm or box, as the setting `crop`")
    ] = "square",
    keep_features: Annotated[
        int, typer.Option(min=0, help="real images whose features are kept, for KID, precision and recall")
    ] = 0,
    statistics: Annotated[
        Path | None,
        typer.Option(exists=True, help="of these images, that are there: they stay, features are added"),
    ] = None,
    held_out: Annotated[
        Path | None,
        typer.Option(exists=True, help="with --statistics: real images that these are not of, for floors"),
    ] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 1,
    label: LabelOption = "reference-statistics",
) -> None:
    """Statistics of real images, against which generated ones are scored."""
    from typing import cast, get_args

    from edadm.config.inputs.statistics import Crop
    from edadm.config.schema import Evaluation, Extractor
    from edadm.stages import evaluate as stage

    if extractor not in (known := Evaluation.model_json_schema()["properties"]["extractor"]["enum"]):
        raise EdadmError(f"there is no extractor '{extractor}'; known are {', '.join(known)}")
    if crop not in get_args(Crop):
        raise EdadmError(f"there is no crop '{crop}'; known are {', '.join(get_args(Crop))}")
    where = device_named(device, threads)
    given, network = cast(Crop, crop), cast(Extractor, extractor)
    if bool(statistics) != bool(held_out):
        raise EdadmError("--statistics and --held-out go together; name both, or neither")
    if statistics and held_out:
        sets, seen_as = (statistics, images, held_out), (resolution, given)
        stage.add_features(*sets, network, weights, *seen_as, keep_features, output, where, label)
        return
    stage.reference_statistics(
        images, name, network, weights, resolution, given, keep_features, output, where, label
    )
