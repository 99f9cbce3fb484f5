"""Which files of a folder are images of its set; they are listed, not opened."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

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
        return in_words(self.left_out)


def in_words(left_out: Counter[str]) -> str | None:
    """How many files were left out, by reason; None if none was."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()) if count) or None


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
        if _is_image(path, listing.left_out):
            listing.files.append(path)
    listing.files.sort()
    if not listing.files:
        rest = f" (left out: {remark})" if (remark := listing.remark()) else ""
        raise EdadmError(
            f"{folder} holds no images{rest}; put the reference images there as {', '.join(SUFFIXES)}"
        )
    return listing


def _is_image(path: PurePosixPath | Path, left_out: Counter[str]) -> bool:
    kind = path.suffix.lower()
    if kind in _OTHER_IMAGES:
        left_out[f"{kind} file(s), which are not read"] += 1
    elif kind in _ARCHIVES:
        left_out[f"{kind} archive(s), which are not opened"] += 1
    return kind in SUFFIXES


def images_among(names: Iterable[str], left_out: Counter[str]) -> list[str]:
    """The names of an archive's members that a folder would hold as images, in the order of their paths."""
    found = []
    for name in names:
        path = PurePosixPath(name)
        if any(part.startswith(".") and part != "." for part in path.parts):
            left_out["hidden folder(s) or file(s)"] += path.suffix.lower() in SUFFIXES
        elif any(part.lower() in _SYSTEM for part in path.parts):
            left_out["system folder(s) or file(s)"] += path.suffix.lower() in SUFFIXES
        elif _is_image(path, left_out):
            found.append(name)
    return sorted(found, key=lambda name: PurePosixPath(name).parts)


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
