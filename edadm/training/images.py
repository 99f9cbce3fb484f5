"""A folder per class of small images, as one uint8 tensor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor

from edadm.artifacts import reading
from edadm.errors import EdadmError


def read_image_folder(folder: Path) -> tuple[UInt8[Tensor, "n 3 h w"], Int[Tensor, " n"], list[str]]:
    """Images in [0, 255], their class indices and the class names (sorted folder names).

    Raises:
        EdadmError: the folder holds no class folders with images, or images of different sizes.
    """
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    files = [
        (path, label)
        for label, name in enumerate(classes)
        for path in sorted((folder / name).iterdir())
        if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    ]
    if not files:
        raise EdadmError(
            f"{folder} holds no images; give a folder with one sub-folder of .jpg or .png files per class"
        )

    def read(item: tuple[Path, int]) -> np.ndarray:
        with reading(item[0], "replace or remove it", what="an image"), Image.open(item[0]) as image:
            return np.asarray(image.convert("RGB"))

    with ThreadPoolExecutor() as pool:
        pixels = list(pool.map(read, files))
    if len({p.shape for p in pixels}) > 1:
        raise EdadmError(f"images in {folder} have different sizes; resize them to one size first")
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor([label for _, label in files]), classes
