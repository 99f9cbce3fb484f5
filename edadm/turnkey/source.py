"""What is to be quantized: a diffusers folder, a file, or a preset of the package by its name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edadm.config.described.entry import entry_name
from edadm.config.described.folder import PIPELINE
from edadm.config.load import load_config
from edadm.config.rules.wording import nearest
from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.networks.described.checkpoint import checkpoint_at, describe_checkpoint
from edadm.networks.settings.reading import Settings, read_json


@dataclass(frozen=True)
class Source:
    """A model that is to be quantized.

    Attributes:
        name: of its entry under `models`.
        settings: of that entry, as its files say them; none of a preset.
        model: the same, completed.
        left_open: sentences on what no file says.
        pipeline: the diffusers folder with its other parts, if there is one.
    """

    name: str
    settings: Settings
    model: Model
    left_open: list[str] = field(default_factory=list)
    pipeline: Path | None = None


def source_of(named: str, config: Path | None = None) -> Source:
    """The model behind a path, or behind a preset's name where there is no such file.

    Args:
        named: a path or a name.
        config: of the training, for a file in an original layout.

    Raises:
        EdadmError: there is neither, or a network that is not built here.
    """
    presets = load_config().models
    path = Path(named).expanduser()
    if named in presets and not path.exists():
        return Source(named, {}, presets[named])
    if not path.exists():
        bundled = [name for name, preset in presets.items() if preset.checkpoint.startswith("bundled:")]
        raise EdadmError(
            f"there is no file {named}{_meant(named, bundled)}; name a diffusers folder, a file of weights, "
            f"or a bundled model: {', '.join(bundled)}"
        )
    path = checkpoint_at(path)
    found = describe_checkpoint(path, config, presets)
    name = entry_name(path)
    name = f"model_{name}" if name in presets else name
    model = load_config({"models": {name: found.settings}}).models[name]
    pipeline = path if (path / PIPELINE).is_file() else None
    if pipeline:
        read_json(pipeline / PIPELINE)  # it is written again for diffusers, at the end
    return Source(name, found.settings, model, found.left_open, pipeline)


def _meant(named: str, bundled: list[str]) -> str:
    """A bundled model that may have been meant, for a sentence; nothing if none is near."""
    hint = nearest(named, bundled)
    return hint if hint.endswith("?") else ""
