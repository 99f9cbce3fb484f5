"""Where other programs keep what they downloaded; imports no torch, and fetches nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

_HUB = re.compile(r"^/(?P<owner>[^/]+)/(?P<name>[^/]+)/resolve/(?P<reference>[^/]+)/(?P<file>.+)$")


def cached(url: str) -> Path | None:
    """The file of an address in the cache of Hugging Face or of torch's hub, if it is there."""
    address = urlsplit(url)
    if address.netloc != "huggingface.co":
        file = _torch_hub() / Path(address.path).name
        return file if file.is_file() else None
    if not (found := _HUB.match(address.path)):
        return None
    repository = _hugging_face() / f"models--{found['owner']}--{found['name']}"
    reference = repository / "refs" / found["reference"]
    if not reference.is_file():
        return None
    file = repository / "snapshots" / reference.read_text().strip() / found["file"]
    return file if file.is_file() else None


def _torch_hub() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    return Path(os.environ.get("TORCH_HOME", cache / "torch")).expanduser() / "hub/checkpoints"


def _hugging_face() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    home = Path(os.environ.get("HF_HOME", cache / "huggingface")).expanduser()
    return Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
