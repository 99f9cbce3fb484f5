"""An entry under `models:`, and what a file leaves open of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from edadm.config.rules.names import RESERVED
from edadm.networks.settings.reading import Settings

_LONGEST_NAME = 60


@dataclass(frozen=True)
class Description:
    """Settings of one model, and a sentence for each that its file does not decide."""

    settings: Settings
    left_open: list[str] = field(default_factory=list)

    def as_yaml(self, name: str) -> str:
        """The entry, ready to paste into a configuration file.

        What is left open stands above it as comments.
        """
        dumped = yaml.safe_dump(
            {name: self.settings}, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True
        )
        comments = [f"# {sentence}\n" for sentence in self.left_open]
        return "models:\n" + "".join(f"  {line}" for line in comments + dumped.splitlines(keepends=True))


def entry_name(path: Path) -> str:
    """A name for the entry of a checkpoint, from its file's or folder's."""
    stem = path.name if path.is_dir() else path.stem
    stem = (
        path.parent.name
        if stem in ("model", "unet", "diffusion_pytorch_model", "last") and path.parent.name
        else stem
    )
    name = re.sub(r"[^A-Za-z0-9_+-]+", "_", stem)[:_LONGEST_NAME].strip("_+-") or "mine"
    taken = name.lower() in RESERVED or not name[0].isalpha()  # readers of YAML differ on what is a number
    return f"model_{name}" if taken else name
