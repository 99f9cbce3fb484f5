"""The output folder: its configuration, which is written once, added to, and the user's from then on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edadm.artifacts import writing
from edadm.config.files.sources import locate_images, locate_parts
from edadm.config.inputs.settings import merged, read_settings
from edadm.config.layout import Layout, Variant
from edadm.config.load import load_runs
from edadm.config.schema import Config
from edadm.errors import EdadmError
from edadm.networks.settings.reading import Settings
from edadm.turnkey.recipes import OWN, settings_of, variant_of, work_of
from edadm.turnkey.source import Source
from edadm.turnkey.told import FILE, Told, told_of

CONFIG = "quantize.yaml"
_GIVEN = ("conditioning.prompts", "conditioning.image_folder")  # sentences on what is known by then


@dataclass(frozen=True)
class Wishes:
    """What the user asks for; None leaves it to the network, or to the configuration that is there.

    Attributes:
        recipe: by name.
        images: that are compared with full precision.
        steps: of the sampler.
        prompts: a file of them.
        images_from: a folder of images that the network is given.
    """

    recipe: str
    images: int | None = None
    steps: int | None = None
    prompts: Path | None = None
    images_from: Path | None = None


@dataclass(frozen=True)
class Project:
    """An output folder, as it is to be.

    Attributes:
        folder: absolute.
        source: what is quantized.
        settings: of the configuration file.
        told: what the network is told.
        comments: lines above the settings.
        recipe: by name.
    """

    folder: Path
    source: Source
    settings: Settings
    told: Told
    comments: str
    recipe: str

    @property
    def variant(self) -> str:
        """The variant of the recipe."""
        return variant_of(self.recipe)

    @property
    def is_made(self) -> bool:
        """Whether the variant has been scored already, under whatever settings."""
        config = self.config()
        folder = Layout(self.folder / config.results).variant(self.source.name, Variant(self.variant))
        return (folder / "metrics.json").is_file()

    @property
    def text(self) -> str:
        """The content of the configuration file."""
        dumped = yaml.safe_dump(
            self.settings, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True
        )
        return self.comments + dumped

    def config(self) -> Config:
        """The whole configuration.

        Raises:
            ConfigError: one line per mistake.
        """
        return load_runs(self.settings)

    def check(self) -> None:
        """Looks for the weights of every part, and images where the network is given any.

        Raises:
            EdadmError: one is absent.
        """
        model = self.config().models[self.source.name]
        locate_parts(self.source.name, model)
        locate_images(self.source.name, model)

    def write(self) -> None:
        """Writes the configuration and the prompts, as far as they are not there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / CONFIG
        if not file.exists() or read_settings(file) != self.settings:
            _write(file, self.text)
        if self.told.written is not None and not (self.folder / FILE).exists():
            _write(self.folder / FILE, "".join(f"{prompt}\n" for prompt in self.told.written))


def project_in(folder: Path, source: Source, wishes: Wishes) -> Project:
    """The output folder for a recipe, with what its configuration says already.

    Settings that stand there stay, but for what the user asks for now.

    Args:
        folder: the output.
        source: what is quantized.
        wishes: the user's.

    Raises:
        EdadmError: the folder holds something else, lies in the input, or cannot be written.
    """
    folder = folder.expanduser().absolute()
    before = _settings_in(folder, source)
    told = told_of(source.model, wishes.prompts, wishes.images_from, folder)
    name, work = source.name, work_of(source.model, wishes.images, told.count)
    own = {"models": {name: source.settings}} if source.settings else {}
    fresh = merged(own, settings_of(wishes.recipe, name, source.model, work))
    asked: dict[str, Any] = {}
    if told.conditioning:
        given = told.conditioning if wishes.prompts or wishes.images_from or not before else {}
        asked = {"models": {name: {"conditioning": given}}} if given else {}
    if wishes.steps is not None:
        asked = merged(asked, {"models": {name: {"sampler": {"steps": wishes.steps}}}})
    if wishes.images is not None:
        asked = merged(asked, {"evaluations": {OWN: {"images": wishes.images}}})
    runs = _with_variant(before["runs"], name, wishes.recipe) if before else fresh["runs"]
    settings = merged(merged(fresh, before or {}), asked) | {"runs": runs}
    comments = _comments_of(folder / CONFIG) if before else _comments(source)
    return Project(folder, source, settings, told, comments, wishes.recipe)


def _settings_in(folder: Path, source: Source) -> Settings | None:
    """What the configuration in the folder says; None where nothing is there yet."""
    if folder.is_file():
        raise EdadmError(f"{folder} is a file; name a folder by --output")
    own = source.pipeline or Path(source.model.checkpoint)
    if source.settings and folder.resolve().is_relative_to(own.resolve()):
        raise EdadmError(
            f"{folder} lies in what is quantized, which stays as it is; name another folder by --output"
        )
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not os.access(there, os.W_OK | os.X_OK):
        raise EdadmError(f"{there} is not writable; name a folder that you may write to by --output")
    if not (folder / CONFIG).is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise EdadmError(
                f"{folder} holds something else, and no {CONFIG}; name a new or empty folder by --output"
            )
        return None
    settings = read_settings(folder / CONFIG)
    models = [run.model for run in load_runs(settings).runs]
    entry = (settings.get("models") or {}).get(source.name) or {}
    if source.name not in models or entry.get("checkpoint") != source.settings.get("checkpoint"):
        raise EdadmError(f"{folder / CONFIG} is of another checkpoint; name another folder by --output")
    return settings


def _with_variant(runs: list[Any], model: str, recipe: str) -> list[Any]:
    """The runs, of which that of the model has the recipe's variant."""
    variant = variant_of(recipe)
    return [
        run | {"variants": [*run["variants"], variant]}
        if run.get("model") == model and variant not in run.get("variants", ())
        else run
        for run in runs
    ]


def _comments(source: Source) -> str:
    """Lines above the settings: what the file is, and what no file of the checkpoint says."""
    lines = [
        "Written by `edadm quantize`. What stands here counts: change it, then start `edadm quantize` again,",
        f"or `edadm run {CONFIG}` in this folder. Every setting: docs/configuration.md of edadm.",
        *(
            f"of {source.name}: {sentence}"
            for sentence in source.left_open
            if not sentence.startswith(_GIVEN)
        ),
    ]
    return "".join(f"# {line}\n" for line in lines)


def _comments_of(file: Path) -> str:
    """The comments at the top of a file."""
    lines = []
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.startswith("#"):
            break
        lines.append(line)
    return "".join(lines)


def _write(file: Path, text: str) -> None:
    with writing(file) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
