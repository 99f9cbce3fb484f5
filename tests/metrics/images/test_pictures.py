"""As which pixels files are seen, and which are refused before anything is computed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edadm.errors import EdadmError
from edadm.metrics.images.sets import FolderImages

RAMP = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
COLOURS = np.stack([RAMP, RAMP.T, 255 - RAMP], axis=2)


def seen(folder: Path, resolution: int | None = 32) -> np.ndarray:
    """The pixels of the first image of a folder, (32, 32, 3)."""
    return FolderImages(folder, resolution)[0].permute(1, 2, 0).numpy()


def rgba(alpha: int) -> Image.Image:
    """Colours with one opacity."""
    return Image.fromarray(np.dstack([COLOURS, np.full((32, 32), alpha, np.uint8)]))


def rgb16(path: Path) -> None:
    """A PNG of 16 bits for each of red, green and blue, which Pillow reads and does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in COLOURS.astype(np.uint16) * 257)
    head = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def palette(**options: object) -> Callable[[Path], None]:
    """A picture of one colour out of a palette."""
    image = Image.new("P", (32, 32), 0)
    image.putpalette([10, 20, 30] + [255] * 765)
    return lambda path: image.save(path, **options)


def rotated(path: Path) -> None:
    """A JPEG whose EXIF says that it lies on its side."""
    exif = Image.Exif()
    exif[0x112] = 6
    Image.fromarray(COLOURS).save(path, exif=exif, quality=100, subsampling=0)


@pytest.mark.parametrize(
    ("name", "save", "pixels"),
    [
        ("a.png", lambda path: Image.fromarray(COLOURS).save(path), COLOURS),
        ("a.bmp", lambda path: Image.fromarray(COLOURS).save(path), COLOURS),
        ("a.tif", lambda path: Image.fromarray(COLOURS).save(path), COLOURS),
        ("a.webp", lambda path: Image.fromarray(COLOURS).save(path, lossless=True), COLOURS),
        ("a.png", lambda path: Image.fromarray(RAMP).save(path), np.dstack([RAMP] * 3)),
        (
            "a.png",
            lambda path: Image.fromarray(RAMP.astype(np.uint16) * 257).save(path),
            np.dstack([RAMP] * 3),
        ),
        (
            "a.tiff",
            lambda path: Image.fromarray(RAMP.astype(np.uint16) * 257).save(path),
            np.dstack([RAMP] * 3),
        ),
        (
            "a.png",
            lambda path: Image.fromarray(RAMP > 100).save(path),
            np.dstack([np.where(RAMP > 100, 255, 0)] * 3),
        ),
        ("a.png", rgb16, COLOURS),
        ("a.png", palette(), np.full((32, 32, 3), (10, 20, 30))),
        ("a.png", palette(transparency=1), np.full((32, 32, 3), (10, 20, 30))),
        ("a.png", lambda path: rgba(255).save(path), COLOURS),
        ("a.png", lambda path: Image.fromarray(RAMP).convert("LA").save(path), np.dstack([RAMP] * 3)),
    ],
)
def test_pixels_are_those_of_the_file(
    name: str, save: Callable[[Path], None], pixels: np.ndarray, tmp_path: Path
) -> None:
    save(tmp_path / name)
    assert np.array_equal(seen(tmp_path), pixels)


def test_ordinary_files_are_seen_as_by_torch_fidelity(tmp_path: Path) -> None:
    """It opens with Pillow, converts to RGB and leaves rotations alone."""
    Image.new("RGB", (32, 32), (200, 100, 50)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    rotated(tmp_path / "b.jpg")
    found = FolderImages(tmp_path, None)
    for file, pixels in zip(found.files, found, strict=True):
        expected = np.asarray(Image.open(file).convert("RGB"))
        assert torch.equal(pixels, torch.from_numpy(expected.copy()).permute(2, 0, 1))
    assert found.remarks() == [
        f"{tmp_path}: 1 images carry a rotation (EXIF); pixels are taken as they are stored"
    ]


def frames(path: Path) -> None:
    """An animation of two pictures."""
    first, second = (Image.new("RGB", (32, 32), colour) for colour in ("red", "blue"))
    first.save(path, save_all=True, append_images=[second], duration=100, lossless=True)


def cut(path: Path, form: str = "PNG") -> None:
    """A picture whose second half is not there."""
    Image.fromarray(COLOURS).save(path, form, **({"lossless": True} if form == "WEBP" else {}))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    """A PNG with one wrong byte in the middle."""
    Image.fromarray(COLOURS).save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("name", "save", "sentence"),
    [
        (
            "a.png",
            lambda path: rgba(128).save(path),
            "some of its pixels are transparent, whose colour depends on what lies behind them",
        ),
        ("a.png", palette(transparency=0), "some of its pixels are transparent"),
        (
            "a.png",
            lambda path: Image.new("RGB", (32, 32)).save(path, transparency=(0, 0, 0)),
            "some of its pixels are transparent",
        ),
        ("a.webp", frames, "it holds 2 frames, of which one would have to be chosen"),
        ("a.tiff", frames, "it holds 2 frames"),
        (
            "a.tiff",
            lambda path: Image.fromarray(np.ones((32, 32), np.float32)).save(path),
            "its pixels are of the kind 'F', whose range",
        ),
        (
            "a.tiff",
            lambda path: Image.fromarray(np.ones((32, 32), np.int32)).save(path),
            "its pixels are of the kind 'I', whose range",
        ),
        ("a.png", lambda path: path.write_bytes(b""), "it is no image"),
        ("a.png", lambda path: path.write_bytes(b"\0\5\x16\7" + bytes(200)), "it is no image"),
        ("a.png", cut, ""),
        ("a.jpg", lambda path: cut(path, "JPEG"), ""),
        ("a.webp", lambda path: cut(path, "WEBP"), ""),
        ("a.bmp", lambda path: cut(path, "BMP"), "image file is truncated"),
        ("a.png", flipped, ""),
    ],
)
def test_what_cannot_be_scored_is_named_before_anything_is(
    name: str, save: Callable[[Path], None], sentence: str, tmp_path: Path
) -> None:
    save(tmp_path / name)
    Image.fromarray(COLOURS).save(tmp_path / "good.png")
    with pytest.raises(EdadmError) as caught:
        FolderImages(tmp_path, 32)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / name} cannot be read as an image to score ({sentence}")
    assert said.endswith("); replace or remove it")
    assert len(said.splitlines()) == 1


def test_several_are_counted_and_several_sizes_need_one(tmp_path: Path) -> None:
    for index, side in enumerate((32, 32, 16)):
        Image.new("RGB", (side, 32)).save(tmp_path / f"{index}.png")
    with pytest.raises(
        EdadmError,
        match=r"holds images of several sizes \(2 of 32 x 32, 1 of 16 x 32\); set `resolution` to bring all",
    ):
        FolderImages(tmp_path, None)
    assert FolderImages(tmp_path, 8)[2].shape == (3, 8, 8)
    for name in ("x.png", "y.png"):
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        EdadmError,
        match=r"x\.png cannot be read as an image to score \(it is no image\); .* \(and 1 more of 5 files\)$",
    ):
        FolderImages(tmp_path, 32)
