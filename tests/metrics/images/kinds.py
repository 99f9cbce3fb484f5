"""The same images in every form that holds images."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor


def png(pixels: Tensor) -> bytes:
    """A PNG file of an image (3, h, w)."""
    written = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(written, "PNG")
    return written.getvalue()


def named(images: Tensor, prefix: str = "set/part/") -> dict[str, bytes]:
    """Files of images by their names, numbers with leading zeros."""
    return {f"{prefix}{index:04d}.png": png(pixels) for index, pixels in enumerate(images)}


def in_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def in_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def in_tar(path: Path, files: dict[str, bytes]) -> Path:
    kind = path.suffix.removeprefix(".").replace("tgz", "gz")
    with tarfile.open(path, f"w:{'' if kind == 'tar' else kind}") as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def every_kind(folder: Path, images: Tensor) -> dict[str, Path]:
    """Files and a folder that hold the images, by what they are called."""
    folder.mkdir(exist_ok=True)
    last = images.permute(0, 2, 3, 1).numpy()
    np.save(folder / "first.npy", images.numpy())
    np.save(folder / "last.npy", last)
    np.savez(folder / "batch.npz", last, np.arange(len(last)))
    np.savez_compressed(folder / "packed.npz", last)
    files = named(images)
    made = [in_folder(folder / "folder", files), in_zip(folder / "a.zip", files)]
    made += [in_tar(folder / name, files) for name in ("a.tar", "a.tgz", "a.tar.xz")]
    made += [folder / name for name in ("first.npy", "last.npy", "batch.npz", "packed.npz")]
    return {path.name: path for path in made}
