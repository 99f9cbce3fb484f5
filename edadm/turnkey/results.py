"""What a finished run leaves: the folder for diffusers, the pages, and the lines that say where all is."""

from __future__ import annotations

import filecmp
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

from edadm.artifacts import placing
from edadm.conditions.t5_tokens import SENTENCEPIECE, with_json
from edadm.config.described.folder import PARTS, PIPELINE
from edadm.config.layout import Layout, Variant
from edadm.config.load import described_runs
from edadm.config.schema import Config
from edadm.console import size
from edadm.deploy.diffusers import WEIGHTS
from edadm.deploy.load import load
from edadm.report.results.intervals import estimate
from edadm.report.results.read import read_run
from edadm.stages import report
from edadm.turnkey.project import CONFIG, Project

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx")


def targets_of(project: Project) -> list[str]:
    """The files that Snakemake is asked for, relative to the output folder."""
    config, name = project.config(), project.source.name
    layout, variant = Layout(Path(config.results)), Variant(project.variant)
    run = next(run for run in config.runs if run.model == name)
    made = [layout.variant(name, each) / "metrics.json" for each in map(Variant, run.variants)]
    return [str(file) for file in (*made, layout.weights(name, variant), layout.losses(name, variant))]


def finish(project: Project) -> list[str]:
    """Writes the pages and the folder for diffusers, where results are newer; returns lines on all of it."""
    config, folder, name = project.config(), project.folder, project.source.name
    results, variant = folder / config.results, Variant(project.variant)
    layout, page = Layout(results), folder / config.results / "report" / "index.html"
    runs = described_runs(config)
    scores = [file for run in runs for file in (results / run["model"]).rglob("metrics.json")]
    if not page.exists() or any(file.stat().st_mtime > page.stat().st_mtime for file in scores):
        report.run(results, runs, page)
    packed, made = layout.weights(name, variant), folder / project.recipe
    write_folder(project.source.pipeline, packed, made)
    float_bytes, bytes_now = layout.float_weights(name).stat().st_size, packed.stat().st_size
    return [
        f"{project.recipe}: {_score(config, results, name, variant)}; the network has {size(bytes_now)} "
        f"instead of {size(float_bytes)}",
        f"packed file: {packed}",
        f"for diffusers: {made}, by {_call(project, made)}",
        f"pictures: {page.with_name('gallery.html')}",
        f"scores, unit by unit: {page}",
        f"settings: {folder / CONFIG}; change them and start this again",
    ]


def _score(config: Config, results: Path, name: str, variant: Variant) -> str:
    """How near images are to full precision's, with the interval over images."""
    run = next(run for run in described_runs(config) if run["model"] == name)
    result = next(found for found in read_run(results, run).variants if found.variant == variant)
    images = run["evaluation_settings"]["images"]
    if (found := estimate(result, "psnr")) is None:
        return f"its {images} images are those of full precision, bit for bit"
    said = f"PSNR to full precision's images of the same noise {found.value:.1f}"
    few = f"{images} images, too few for an interval"
    return f"{said} dB ({few})" if found.half is None else f"{said} ± {found.half:.1f} dB ({images} images)"


def _call(project: Project, made: Path) -> str:
    if project.source.pipeline is None:
        name = "transformer" if project.source.model.architecture.patch else "unet"
        return f"`{name} = edadm.load({str(made)!r})`, for `pipeline.{name}` of yours"
    return f"`DiffusionPipeline.from_pretrained({str(made)!r})`, after `import edadm`"


def network_in(pipeline: Path) -> str:
    """The name by which a pipeline knows the network that is quantized."""
    return next(name for name in PARTS["unet"] if (pipeline / name).is_dir())


def parts_of(pipeline: Path | None) -> Iterator[Path]:
    """The files of a pipeline's other parts: of those that `model_index.json` names, and itself.

    Pickles are left out where there is a file of safetensors beside them.
    """
    if pipeline is None:
        return
    yield pipeline / PIPELINE
    named = set(json.loads((pipeline / PIPELINE).read_text(encoding="utf-8"))) - {network_in(pipeline)}
    for part in sorted(folder for folder in pipeline.iterdir() if folder.is_dir() and folder.name in named):
        files = [file for file in sorted(part.rglob("*")) if file.is_file()]
        safe = any(file.suffix == ".safetensors" for file in files)
        yield from (file for file in files if not (safe and file.suffix in _PICKLES))


def write_folder(pipeline: Path | None, packed: Path, made: Path) -> None:
    """Writes the folder that diffusers reads, whole or not at all: the network and all other parts."""
    name = "" if pipeline is None else network_in(pipeline)
    copies = {file: file.relative_to(pipeline or file.parent) for file in parts_of(pipeline)}
    if _is_written(made / name / WEIGHTS, packed) and all(
        copy.name == PIPELINE or _is_written(made / copy, file) for file, copy in copies.items()
    ):
        return
    partial = made.with_name(f".{made.name}.partial")
    with placing(made, partial):
        shutil.rmtree(partial, ignore_errors=True)
        for file, copy in copies.items():
            (partial / copy).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, partial / copy)
        for file in partial.rglob(SENTENCEPIECE):
            with_json(file)
        network = load(packed)
        network.save_pretrained(partial / name)
        if pipeline is not None:
            index = json.loads((partial / PIPELINE).read_text(encoding="utf-8"))
            index[name] = [type(network).__module__, type(network).__name__]
            (partial / PIPELINE).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(made, ignore_errors=True)
        partial.rename(made)


def _is_written(copy: Path, file: Path) -> bool:
    return copy.is_file() and filecmp.cmp(copy, file, shallow=False)
