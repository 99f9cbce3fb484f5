"""Files behind `bundled:NAME` and plain paths; imports no torch, so that a dry run can check them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from edadm.config.networks import Conditioning
from edadm.config.schema import Model
from edadm.errors import EdadmError

BUNDLED = Path(__file__).parent.parent / "models" / "bundled"


def locate(source: str, suffix: str = ".safetensors") -> Path:
    """The file or diffusers folder behind `bundled:NAME` or a path.

    Raises:
        EdadmError: there is no such file.
    """
    name = source.removeprefix("bundled:")
    path = BUNDLED / f"{name}{suffix}" if name != source else Path(source).expanduser()
    if not path.exists():
        known = ", ".join(f"bundled:{file.stem}" for file in sorted(BUNDLED.glob(f"*{suffix}")))
        raise EdadmError(f"there is no file {path}; put it there, or use one of {known}")
    return path


def file_sha256(path: Path) -> str:
    """The hash of a file's content."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locate_checkpoint(name: str, model: Model) -> Path:
    """The checkpoint of the model preset `name`.

    Raises:
        EdadmError: there is none; says which key to set, and where to get it if the preset knows.
    """
    try:
        return locate(model.checkpoint)
    except EdadmError:
        if not model.source:
            raise
    raise EdadmError(f"models.{name}.checkpoint: there is no file {model.checkpoint}; get it from {model.source} and set this key to it")


def source_of(model: Model, part: str) -> str:
    """Where a part's weights are: a checkpoint of its own, or the model's."""
    own = {"autoencoder": model.autoencoder, "condition": model.conditioning}.get(part)
    return own.checkpoint if own and own.checkpoint else model.checkpoint


def locate_parts(name: str, model: Model) -> dict[str, Path]:
    """The file or folder behind every part of the model preset `name`.

    Raises:
        EdadmError: there is none; says which key to set.
    """
    whole = locate_checkpoint(name, model)
    found = {}
    for part in model.parts:
        source = source_of(model, part)
        key = {"autoencoder": "autoencoder", "condition": "conditioning"}.get(part)
        try:
            found[part] = whole if source == model.checkpoint else locate(source)
        except EdadmError:
            raise EdadmError(f"models.{name}.{key}.checkpoint: there is no file {source}; put it there, or mend this key") from None
    return found


def locate_prompts(name: str, model: Model) -> Path | None:
    """The prompts of the model preset `name`, if it takes any.

    Raises:
        EdadmError: there is no such file; says which key to set.
    """
    if model.conditioning is None or model.conditioning.prompts is None:
        return None
    path = Path(model.conditioning.prompts).expanduser()
    if not path.is_file():
        raise EdadmError(
            f"models.{name}.conditioning.prompts: there is no file {path}; get captions_val2014.json from cocodataset.org (2014 train/val "
            "annotations), or write a text file with a prompt per line, and set this key to it"
        )
    return path


def prompts_in(path: Path) -> list[str]:
    """The captions of a COCO annotation file, or the lines of a text file that are not empty, in the file's order.

    Raises:
        EdadmError: absent, or neither of the two.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EdadmError(f"{path} cannot be read as prompts ({error}); set conditioning.prompts to a captions or text file") from None
    if path.suffix != ".json":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        annotations = json.loads(text)["annotations"]
        if not isinstance(annotations, list):
            raise TypeError
        return [annotation["caption"].strip() for annotation in annotations]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise EdadmError(f"{path} is no COCO captions file: it needs a list 'annotations' of objects with a 'caption'") from None


def count_prompts(conditioning: Conditioning) -> int | None:
    """How many prompts there are; None where their file cannot be read, which stages say."""
    try:
        return len(prompts_in(Path(conditioning.prompts or "").expanduser()))
    except EdadmError:
        return None
