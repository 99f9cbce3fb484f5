"""Which of the package's presets are for the bundled model."""

from __future__ import annotations

from pathlib import Path

from omegaconf import OmegaConf

import edadm.config.load

_FILES = sorted((Path(edadm.config.load.__file__).parent / "presets").glob("*.yaml"))


def for_the_bundled_model(kind: str) -> list[str]:
    """Names of presets but those of published runs, recipes and schemes, which have files and tests of their own."""
    return sorted(
        str(name)
        for file in _FILES
        if not file.name.startswith(("published_", "recipes", "schemes"))
        for name in OmegaConf.load(file).get(kind, {})
    )
