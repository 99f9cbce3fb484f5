"""What a network is told beside noise: prompts and images of the user's, or prompts of the package."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edadm.config.files.sources import BUNDLED, prompts_file
from edadm.config.inputs.folders import list_images
from edadm.config.inputs.prompts import prompts_in
from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.networks.settings.reading import Settings

FILE = "prompts.txt"
_SHOWN = "a photograph"
_EDITS = (
    "make it look like a watercolour painting",
    "turn it into a pencil drawing",
    "make it winter",
    "make it night",
    "make it look like an old photograph",
    "make the colours warmer",
    "let it rain",
    "make it autumn",
)
_OWN = {"inpainting": (_SHOWN,), "sdxl_refiner": (_SHOWN,), "instruct_pix2pix": _EDITS}


@dataclass(frozen=True)
class Told:
    """What a network is told.

    Attributes:
        conditioning: settings under `conditioning`, paths in full; none if it is told no text.
        count: prompts, each with its image where there are images; None if there are none.
        written: prompts that are written to `FILE` in the output folder; None where the user has a file.
    """

    conditioning: Settings
    count: int | None = None
    written: list[str] | None = None


def told_of(model: Model, prompts: Path | None, images: Path | None, folder: Path) -> Told:
    """What the network is told: what the user gave, or the prompts of the package.

    Args:
        model: with the network.
        prompts: the user's file.
        images: the user's folder.
        folder: of the output, where prompts of the package are written.

    Raises:
        EdadmError: prompts or images are missing, cannot be read, or are given to a network that takes none.
    """
    kind = model.conditioning.kind if model.conditioning else None
    if kind in (None, "classes"):
        given = {"--prompts": prompts, "--images-from": images}
        if named := next((option for option, value in given.items() if value is not None), None):
            takes = "classes" if kind else "nothing but noise"
            raise EdadmError(f"this network is told {takes}; leave out {named}")
        return Told({})
    files = _images(kind, images)
    if prompts is None:
        named = model.conditioning.prompts if model.conditioning else None
        package = prompts_file(named) if named and named.startswith("bundled:") else BUNDLED / FILE
        own = _OWN.get(str(kind)) or prompts_in(package).texts
        count = len(own) if files is None else len(files)
        texts = [own[index % len(own)] for index in range(count)]
        settings: Settings = {"prompts": str(folder.absolute() / FILE)}
    else:
        file = prompts.expanduser().absolute()
        found = prompts_in(file)
        if found.annotations and files is not None:
            raise EdadmError(
                f"{prompts} holds captions in no order of images; give a text file with a prompt for each "
                "image"
            )
        texts, settings = found.texts, {"prompts": str(file)}
    count = len(texts) if files is None else min(len(texts), len(files))
    if count < 2:
        raise EdadmError(f"{prompts or images} holds {count} of what is to be told; give 2 or more")
    if images is not None:
        settings["image_folder"] = str(images.expanduser().absolute())
    return Told(settings, count, texts if prompts is None else None)


def _images(kind: str | None, images: Path | None) -> list[Path] | None:
    """The images of a network that is given any."""
    if kind not in _OWN:
        if images is not None:
            raise EdadmError("this network is given no images, but prompts alone; leave out --images-from")
        return None
    if images is None:
        does = {"instruct_pix2pix": "changes", "sdxl_refiner": "refines"}.get(str(kind), "fills holes in")
        raise EdadmError(f"this network {does} images; name a folder with some by --images-from FOLDER")
    if not images.expanduser().is_dir():
        raise EdadmError(f"there is no folder {images}; name one with images by --images-from FOLDER")
    return list_images(images.expanduser()).files
