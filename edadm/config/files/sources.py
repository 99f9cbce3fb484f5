"""Files behind `bundled:NAME` and plain paths; imports no torch, so that a dry run can check them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from edadm.artifacts import reading
from edadm.config.files.first_bytes import INDEX, foreign
from edadm.config.inputs.folders import list_images
from edadm.config.schema import Model
from edadm.errors import EdadmError

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
BUNDLED = Path(__file__).parents[2] / "bundled"


def locate(source: str, suffix: str = ".safetensors") -> Path:
    """The file or diffusers folder behind `bundled:NAME` or a path.

    Raises:
        EdadmError: there is no such file.
    """
    name = source.removeprefix("bundled:")
    path = BUNDLED / f"{name}{suffix}" if name != source else Path(source).expanduser()
    if not os.path.exists(path):
        known = ", ".join(f"bundled:{file.stem}" for file in sorted(BUNDLED.glob(f"*{suffix}")))
        raise EdadmError(f"there is no file {path}; put it there, or use one of {known}")
    return path


def file_sha256(path: Path) -> str:
    """The hash of a file's content.

    Raises:
        DamagedError: it cannot be read.
    """
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locate_checkpoint(name: str, model: Model) -> Path:
    """The checkpoint of the model preset `name`.

    Raises:
        EdadmError: there is none; says which key to set, and where to get it if the preset knows. Or it is a
            folder without weights, or a file of another kind.
    """
    where = f"models.{name}.checkpoint"
    if not model.checkpoint.strip():
        raise EdadmError(f"{where}: no file is named; set this key to one")
    try:
        path = locate(model.checkpoint)
    except EdadmError as error:
        if not model.source:
            raise EdadmError(f"{where}: {error}") from None
        raise EdadmError(
            f"{where}: there is no file {model.checkpoint}; get it from {model.source} and set this key to it"
        ) from None
    if path.is_dir() and not _holds_weights(path):
        raise EdadmError(
            f"{where}: the folder {path} holds no weights ({', '.join(WEIGHTS)}); name the file or folder "
            "that does"
        )
    _refuse_foreign(where, path)
    return path


def _refuse_foreign(where: str, path: Path) -> None:
    """Refuses a file that is no checkpoint by its first bytes; an empty one may stand for one in a plan."""
    if not path.is_file() or not path.stat().st_size:
        return
    with reading(path):
        found = foreign(path)
    if found and found != INDEX:
        raise EdadmError(f"{where}: {path} is {found[0]}, and no checkpoint; {found[1]}")


def _holds_weights(folder: Path) -> bool:
    """Whether a folder, or one just below it, has a file of weights."""
    return any(file.suffix.lower() in WEIGHTS for pattern in ("*", "*/*") for file in folder.glob(pattern))


def source_of(model: Model, part: str) -> str:
    """Where a part's weights are: a checkpoint of its own, or the model's."""
    told = dict.fromkeys(("condition", "second_condition"), model.conditioning)
    own = {"autoencoder": model.autoencoder, **told}.get(part)
    return own.checkpoint if own and own.checkpoint else model.checkpoint


def locate_parts(name: str, model: Model) -> dict[str, Path]:
    """The file or folder behind every part of the model preset `name`.

    Raises:
        EdadmError: there is none; says which key to set.
    """
    found = dict.fromkeys(model.parts, locate_checkpoint(name, model))
    for part, key in (("autoencoder", "autoencoder"), ("condition", "conditioning")):
        if part not in found or (source := source_of(model, part)) == model.checkpoint:
            continue
        where = f"models.{name}.{key}.checkpoint"
        found[part] = Path(source).expanduser()
        if not os.path.exists(found[part]):
            raise EdadmError(f"{where}: there is no file {source}; put it there, or mend this key")
        if found[part].is_dir() and not _holds_weights(found[part]):
            raise EdadmError(
                f"{where}: the folder {source} holds no weights ({', '.join(WEIGHTS)}); name the file or "
                "folder that does"
            )
        _refuse_foreign(where, found[part])
    return found


def prompts_file(named: str) -> Path:
    """The file behind `conditioning.prompts`: a path, or `bundled:NAME` for prompts inside the package."""
    inside = named.removeprefix("bundled:")
    return Path(named).expanduser() if inside == named else BUNDLED / f"{inside}.txt"


def locate_prompts(name: str, model: Model) -> Path | None:
    """The prompts of the model preset `name`, if it takes any.

    Raises:
        EdadmError: there is no such file; says which key to set.
    """
    if model.conditioning is None or model.conditioning.prompts is None:
        return None
    path = prompts_file(model.conditioning.prompts)
    if not path.is_file():
        raise EdadmError(
            f"models.{name}.conditioning.prompts: there is no file {path}; get captions_val2014.json from "
            "cocodataset.org (2014 train/val "
            "annotations), or write a text file with a prompt per line, and set this key to it"
        )
    return path


def locate_images(name: str, model: Model) -> list[Path]:
    """The images that the network of the model preset `name` is given, in order; none if it takes none.

    Raises:
        EdadmError: there is no such folder, or no image in it; says which key to set.
    """
    if model.conditioning is None or not model.conditioning.encodes_images:
        return []
    where = f"models.{name}.conditioning.image_folder"
    if model.conditioning.image_folder is None:
        raise EdadmError(f"{where}: no folder is named; set it to one with an image for each prompt")
    folder = Path(model.conditioning.image_folder).expanduser()
    if not folder.is_dir():
        raise EdadmError(f"{where}: there is no folder {folder}; put an image for each prompt into it")
    try:
        return list_images(folder).files
    except EdadmError as error:
        raise EdadmError(f"{where}: {error}") from None
