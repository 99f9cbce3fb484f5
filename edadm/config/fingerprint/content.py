"""Files by what they hold, so that a renamed or moved one is the same."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from edadm.config.files.sources import file_sha256
from edadm.config.inputs.folders import list_images
from edadm.config.inputs.sets import kind_of


def content_digest(path: Path, known: Path | None = None) -> str:
    """A hash of a file's content, or of the names and contents of all files in a folder but hidden ones.

    Args:
        path: of a file or a folder.
        known: a file for digests of files that keep size and times; a checkpoint of gigabytes is then read
            once.
    """
    files = (
        sorted(file for file in path.rglob("*") if file.is_file() and _is_seen(file, path))
        if path.is_dir()
        else [path]
    )
    notes = _read(known)
    stamps = {file: _stamp(file) for file in files}
    digests = {file: notes.get(stamp) or file_sha256(file) for file, stamp in stamps.items()}
    fresh = {stamp: digests[file] for file, stamp in stamps.items() if stamp not in notes}
    if known is not None and fresh:
        write_note(known, notes | fresh)
    if not path.is_dir():
        return digests[path]
    names = "\n".join(f"{file.relative_to(path).as_posix()} {digests[file]}" for file in files)
    return hashlib.sha256(names.encode()).hexdigest()


def images_digest(path: Path, notes: Path | None = None) -> str:
    """A hash of a set of images: of its file, or of the names and contents of the images below a folder.

    Args:
        path: of the set (`edadm.config.inputs.sets`).
        notes: a folder where digests are kept; files that keep size, times and inode are read once, and while
            all of them do, no digest but the folder's is looked at.
    """
    if kind_of(path) == "folder":
        return _folder_digest(path, notes)
    return content_digest(path, notes / "contents.json" if notes else None)


def _folder_digest(folder: Path, notes: Path | None) -> str:
    files = list_images(folder).files
    stamps = {file: _stamp_of(file, folder) for file in files}
    together = hashlib.sha256("\n".join(stamps.values()).encode()).hexdigest()
    place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    whole, each = ((notes / f"pictures/{place}{end}") if notes else None for end in (".json", ".files.json"))
    if (known := _read(whole).get(together)) is not None:
        return known
    by_stamp = _read(each)
    digests = {stamp: by_stamp.get(stamp) or file_sha256(file) for file, stamp in stamps.items()}
    names = "\n".join(f"{file.relative_to(folder).as_posix()} {digests[stamps[file]]}" for file in files)
    found = hashlib.sha256(names.encode()).hexdigest()
    if whole is not None and each is not None:
        write_note(each, digests)
        write_note(whole, {together: found})
    return found


def _stamp_of(file: Path, folder: Path) -> str:
    return f"{file.relative_to(folder)} {_marks(file)}"


def write_note(path: Path, content: object) -> None:
    """Writes JSON that may be lost, whole or not at all; nothing where nothing can be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(content))
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)


def _read(known: Path | None) -> dict[str, str]:
    try:
        notes = json.loads(known.read_text()) if known else {}
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _is_seen(file: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in file.relative_to(folder).parts)


def _stamp(file: Path) -> str:
    return f"{file.resolve()} {_marks(file)}"


def _marks(file: Path) -> str:
    """What changes when a file is written; of both times the second is one that `cp -p` cannot set."""
    found = file.stat()
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"
