"""Files behind `bundled:NAME` and plain paths; imports no torch, so that a dry run can check them."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edadm.errors import EdadmError

BUNDLED = Path(__file__).parent.parent / "models" / "bundled"


def locate(source: str, suffix: str = ".safetensors") -> Path:
    """The file behind `bundled:NAME` or a path.

    Raises:
        EdadmError: there is no such file.
    """
    name = source.removeprefix("bundled:")
    path = BUNDLED / f"{name}{suffix}" if name != source else Path(source).expanduser()
    if not path.is_file():
        known = ", ".join(f"bundled:{file.stem}" for file in sorted(BUNDLED.glob(f"*{suffix}")))
        raise EdadmError(f"there is no file {path}; put it there, or use one of {known}")
    return path


def file_sha256(path: Path) -> str:
    """The hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
