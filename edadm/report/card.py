"""A folder that a hub of models takes: packed weights as diffusers reads them, images, and a card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import UInt8
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from edadm.artifacts import writing
from edadm.config.layout import Layout, Variant
from edadm.deploy.diffusers import WEIGHTS
from edadm.deploy.load import load
from edadm.errors import EdadmError
from edadm.report.results.read import read_run
from edadm.report.results.records import RunResult, VariantResult
from edadm.report.tables.export import metrics_markdown
from edadm.version import __version__

CARD, PICTURE = "README.md", "images.png"
COLUMNS, LARGEST = 8, 256  # images in a row of the picture, and pixels of the longer side of each


@dataclass(frozen=True)
class Origin:
    """What only the publisher of a model knows.

    Attributes:
        licence: of the base model's weights, as hubs abbreviate it, such as `apache-2.0`.
        base_model: the base model's name on the hub; empty if it has none.
    """

    licence: str
    base_model: str = ""


def write_card(
    results: Path, runs: Sequence[Mapping[str, Any]], name: str, origin: Origin, folder: Path
) -> None:
    """Writes the folder of a finished variant: configuration, weights, images, and the card.

    Images are beside full precision's, if that is in the run.

    The card has the variant's scores with their intervals and conditions, its settings and its digest.

    Args:
        results: the results folder.
        runs: as in `edadm.report.page.write_page`; results of the variant's run alone are read.
        name: the variant, with the model before it (`MODEL/CALIBRATION/BITS/RECONSTRUCTION`) where several
            models have it.
        origin: the licence and the base model.
        folder: is made; a card that is there already stays.

    Raises:
        EdadmError: no run or several have the variant, it is not quantized, an artifact is missing, or there
            is a card already.
    """
    if not origin.licence.strip():
        raise EdadmError("a card needs the licence of the base model's weights; give it with --license")
    if (card := folder / CARD).exists():
        raise EdadmError(f"{card} is there already; move it away, or choose another --output")
    model, variant = _chosen(runs, name)
    run = read_run(results, next(run for run in runs if run["model"] == model))
    result = next((result for result in run.variants if result.variant == variant.of_seed(1)), None)
    assert result
    unet = load(Layout(results).weights(model, variant))
    unet.save_pretrained(folder)
    plain = next(kind.__name__ for kind in type(unet).__mro__ if kind.__module__.startswith("diffusers."))
    shown = [result] if run.baseline is None else [run.baseline, result]
    with writing(folder / PICTURE) as partial:
        Image.fromarray(picture([one.images for one in shown])).save(partial, "PNG")
    with writing(card) as partial:
        partial.write_text(_text(run, shown, origin, folder, plain), encoding="utf-8", newline="\n")


def _chosen(runs: Sequence[Mapping[str, Any]], name: str) -> tuple[str, Variant]:
    """The model and the variant of a name.

    Raises:
        EdadmError: no run or several have it, or it is full precision.
    """
    having = [(run["model"], own) for run in runs for own in run["variants"] if Variant(own).is_quantized]
    found = [(model, own) for model, own in having if name in (own, f"{model}/{own}")]
    if not found:  # images of the checkpoint were made with integers alone
        files = [(model, own, Variant(own).checkpoint.name) for model, own in having]
        found = [(model, own) for model, own, file in files if name in (file, f"{model}/{file}")][:1]
    if len(found) != 1:
        known = ", ".join(f"{model}/{own}" for model, own in found or having)
        several = f"several models have the variant '{name}'" if found else f"no run has the variant '{name}'"
        raise EdadmError(f"{several}; name one of {known or 'those that you add under `runs`'}")
    return found[0][0], Variant(found[0][1])


def picture(rows: Sequence[UInt8[np.ndarray, "n 3 h w"]]) -> UInt8[np.ndarray, "height width 3"]:
    """The first images of each variant, a row each, at most `COLUMNS`, and none larger than `LARGEST`."""
    step = max(1, -(-max(rows[0].shape[2:]) // LARGEST))
    columns = min(COLUMNS, *map(len, rows))
    lines = []
    for images in rows:
        tiles = [Image.fromarray(image.transpose(1, 2, 0)).reduce(step) for image in images[:columns]]
        lines.append(np.concatenate([np.asarray(tile) for tile in tiles], axis=1))
    return np.concatenate(lines)


def _text(run: RunResult, shown: Sequence[VariantResult], origin: Origin, folder: Path, network: str) -> str:
    """The card of a folder whose weights were written, which diffusers' class `network` reads."""
    result = shown[-1]
    calibration, bits, reconstruction = result.variant.presets
    widths = "w{weights}a{activations}".format(**run.presets["bits"][bits])
    header: dict[str, Any] = {"license": origin.licence}
    if origin.base_model:
        header |= {"base_model": origin.base_model, "base_model_relation": "quantized"}
    header |= {"library_name": "diffusers", "tags": ["edadm", "quantized", widths]}
    settings = {
        f"{kind}.{name}": run.presets[kind][name]
        for kind, name in (("calibrations", calibration), ("bits", bits), ("reconstructions", reconstruction))
    }
    with open(folder / WEIGHTS, "rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # Markdown
    )
    return environment.get_template("card.md.j2").render(
        header=yaml.safe_dump(header, sort_keys=False, allow_unicode=True),
        title=f"{origin.base_model or run.model}, {widths.upper()}",
        label=result.label,
        base=origin.base_model or f"the model {run.model}",
        version=__version__,
        rows=", then ".join(one.label for one in shown),
        network=network,
        place=folder.name,
        scores=metrics_markdown([replace(run, variants=list(shown))]),
        settings=yaml.safe_dump(settings, sort_keys=False, allow_unicode=True),
        file=WEIGHTS,
        bytes=(folder / WEIGHTS).stat().st_size,
        digest=digest,
    )
