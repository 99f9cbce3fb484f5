"""Which files of a folder are images of its set; they are listed, not opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edadm.errors import EdadmError

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".tif", ".tiff")
_OTHER_IMAGES = (
    ".gif",
    ".avif",
    ".heic",
    ".heif",
    ".jp2",
    ".jxl",
    ".ppm",
    ".pgm",
    ".pbm",
    ".tga",
    ".npy",
    ".npz",
    ".svg",
    ".exr",
)
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar")
_SYSTEM = frozenset(
    {"@eadir", "__macosx", "#recycle", "$recycle.bin", "lost+found", "thumbs.db", "desktop.ini"}
)


@dataclass
class Listing:
    """The images below a folder in the order of their paths, and how many files were left out, by reason."""

    files: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def remark(self) -> str | None:
        """One sentence on what was left out; None if that is nothing worth a word."""
        if not self.left_out:
            return None
        return ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items()))


def list_images(folder: Path) -> Listing:
    """The images below a folder, those in folders behind links included.

    Hidden files and folders (`.ipynb_checkpoints`, `._0.png`) and what systems keep beside images (`@eaDir`,
    `__MACOSX`, `Thumbs.db`) are none of them. Files of other kinds are left out, images of kinds that are not
    read are counted.

    Raises:
        EdadmError: no image is left; or a link leads to nothing, or back to a folder above it.
    """
    listing = Listing()
    for path in _walk(folder, listing.left_out, (folder.resolve(),)):
        kind = path.suffix.lower()
        if kind in SUFFIXES:
            listing.files.append(path)
        elif kind in _OTHER_IMAGES:
            listing.left_out[f"{kind} file(s), which are not read"] += 1
        elif kind in _ARCHIVES:
            listing.left_out[f"{kind} archive(s), which are not opened"] += 1
    listing.files.sort()
    if not listing.files:
        rest = f" (left out: {remark})" if (remark := listing.remark()) else ""
        raise EdadmError(
            f"{folder} holds no images{rest}; put the reference images there as {', '.join(SUFFIXES)}"
        )
    return listing


def has_images(folder: Path) -> bool:
    """Whether `list_images` would find any; stops at the first."""
    return any(path.suffix.lower() in SUFFIXES for path in _walk(folder, Counter(), (folder.resolve(),)))


def _walk(folder: Path, left_out: Counter[str], above: tuple[Path, ...]) -> Iterator[Path]:
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        path = Path(entry.path)
        is_folder, system = entry.is_dir(), entry.name.lower() in _SYSTEM
        if entry.name.startswith(".") or system:
            if is_folder or path.suffix.lower() in SUFFIXES:
                left_out["system folder(s) or file(s)" if system else "hidden folder(s) or file(s)"] += 1
        elif is_folder:
            inside = path.resolve()
            if inside in above:
                raise EdadmError(f"{path} leads back to a folder above it; remove this link")
            yield from _walk(path, left_out, (*above, inside))
        elif entry.is_file():
            yield path
        elif entry.is_symlink() and path.suffix.lower() in SUFFIXES:
            raise EdadmError(f"{path} is a link to nothing; mend or remove it")
