"""Images of anyone, in whatever holds them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from edadm.errors import EdadmError
from edadm.metrics.images.opening import digest_of, open_images
from edadm.metrics.images.pairs import paired
from tests.metrics.drawn import random_images
from tests.metrics.images.kinds import every_kind, in_folder, in_tar, in_zip, named, png


def stacked(images: Any) -> Tensor:
    return torch.stack([images[index] for index in range(len(images))])


def test_every_form_holds_the_same_images_and_they_belong_together(tmp_path: Path) -> None:
    images = random_images(11)
    opened = {name: open_images([path], None) for name, path in every_kind(tmp_path, images).items()}
    assert len(opened) == 9
    for name, found in opened.items():
        assert torch.equal(stacked(found), images), name
        assert found.size == (32, 32)
        beside, how = paired(opened["folder"], found)
        assert how == "paired by name"
        assert beside is found


def test_several_are_one_after_the_other(tmp_path: Path) -> None:
    images = random_images(5)
    folder = in_folder(tmp_path / "a", named(images[:2]))
    archive = in_zip(tmp_path / "b.zip", named(images[2:]))
    found = open_images([folder, archive], None)
    assert torch.equal(stacked(found), images)
    assert found.names[1:3] == ["0/0001", "1/0000"]
    assert digest_of([folder, archive]) != digest_of([archive, folder])
    other = in_zip(tmp_path / "c.zip", {"0.png": png(random_images(1)[0, :, :16])})
    with pytest.raises(EdadmError, match=r"a holds images of 32 x 32, .*c\.zip of 32 x 16; set `resolution`"):
        open_images([folder, other], None)


def test_an_archive_leaves_out_what_a_folder_does(tmp_path: Path) -> None:
    files = named(random_images(2)) | {"__MACOSX/._0.png": b"", ".x.png": b"", "a.gif": b"", "notes.txt": b""}
    for path in (in_zip(tmp_path / "a.zip", files), in_tar(tmp_path / "a.tar", files)):
        found = open_images([path], None)
        assert len(found) == 2
        assert found.remarks() == [
            f"{path}: 2 images; left out: 1 .gif file(s), which are not read, 2 hidden folder(s) or file(s)"
        ]


@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile says so of what it writes
def test_an_archive_with_two_files_of_one_name_is_refused(tmp_path: Path) -> None:
    """Whoever unpacks it has the last alone, which would be one image fewer than it seems."""
    one, other = (png(image) for image in random_images(2))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped, tarfile.open(tmp_path / "a.tar", "w") as tarred:
        for name, content in (("x/0.png", one), ("x/1.png", one), ("x/1.png", other)):
            zipped.writestr(name, content)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tarred.addfile(member, io.BytesIO(content))
    for name in ("a.zip", "a.tar"):
        with pytest.raises(
            EdadmError, match=rf"{name}/x/1\.png is in the archive 2 times; make the archive again"
        ):
            open_images([tmp_path / name], None)


def test_images_of_several_sizes_come_to_one_and_others_stay(tmp_path: Path) -> None:
    images = random_images(2)
    folder = in_folder(tmp_path / "a", named(images))
    assert torch.equal(stacked(open_images([folder], 8)), images)
    assert open_images([folder], 8, as_stored=False)[1].shape == (3, 8, 8)
    (folder / "wide.png").write_bytes(png(images[0, :, :16]))
    found = open_images([folder], 8)
    assert {image.shape for image in stacked(found)} == {(3, 8, 8)}
    with pytest.raises(EdadmError, match=r"several sizes \(2 of 32 x 32, 1 of 32 x 16\); set `resolution`"):
        open_images([folder], None)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.npy", np.zeros((2, 3, 4, 4)), r"holds float64 \(2, 3, 4, 4\), whose range no file says; save 8"),
        ("a.npy", np.zeros((2, 4, 4, 3), np.uint16), r"holds uint16 .*, 16 bits; save 8, e\.g\. `\(x / 257"),
        ("a.npy", np.zeros((2, 4, 4, 4), np.uint8), "with an alpha channel, whose colours depend"),
        ("a.npy", np.zeros((2, 5, 4, 6), np.uint8), "no colours; give uint8"),
        ("a.npy", np.zeros((4, 4, 3), np.uint8), "no stack of images; give uint8"),
        ("a.npy", np.zeros((0, 4, 4, 3), np.uint8), "holds no images"),
        ("a.npy", b"none", "cannot be read as images"),
        ("a.npy", b"", r"cannot be read as images \(it is empty\)"),
        ("a.npz", b"PK", r"it is cut short, or no \.npz archive"),
        (
            "a.npz",
            {"mu": np.zeros(3), "sigma": np.eye(3)},
            r"no array `arr_0` of images \(it has mu, sigma\)",
        ),
        (
            "a.npz",
            {"arr_0": np.zeros((3, 4, 4, 3), np.uint8), "arr_1": np.arange(2)},
            "3 images and 2 labels",
        ),
        (
            "a.zip",
            b"PK",
            r"cannot be read as a zip archive \(File is not a zip file\); copy or make it again",
        ),
        ("a.zip", {"a.txt": b""}, "holds no images$"),
        ("a.tar", b"", "cannot be read as a tar archive"),
        ("a.tar.gz", b"\x1f\x8b\x08", r"cannot be read as a tar archive \(it ends too early\)"),
        (
            "a.zip",
            {"a.png": b"none"},
            r"a\.zip/a\.png cannot be read as an image to score \(it is no image\)",
        ),
        ("a.pt", b"x", r"a\.pt is no set of images; give a folder of images, a \.zip"),
    ],
)
def test_what_holds_no_images_is_told_in_one_sentence(
    name: str, content: Any, sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if isinstance(content, np.ndarray):
        np.save(path, content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif path.suffix == ".npz":
        np.savez(path, **content)
    else:
        in_zip(path, content)
    with pytest.raises(EdadmError, match=sentence) as caught:
        open_images([path], None)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_grey_arrays_are_three_equal_channels(tmp_path: Path) -> None:
    grey = random_images(2)[:, 0]
    for shape in ((2, 32, 32), (2, 1, 32, 32), (2, 32, 32, 1)):
        np.save(tmp_path / "a.npy", grey.numpy().reshape(shape))
        found = open_images([tmp_path / "a.npy"], None)
        assert torch.equal(stacked(found), grey[:, None].expand(2, 3, 32, 32))


def test_images_are_paired_by_their_names_alone(tmp_path: Path) -> None:
    images = random_images(12)
    one = open_images([in_folder(tmp_path / "one", named(images))], None)
    files = {f"{index}.webp": png(pixels) for index, pixels in enumerate(images)}  # 10 comes before 2
    other = open_images([in_folder(tmp_path / "other", files)], None)
    assert not torch.equal(stacked(other), images)
    beside, how = paired(one, other)
    assert how == "paired by name"
    assert torch.equal(stacked(beside), images)
    (tmp_path / "other" / "0.webp").rename(tmp_path / "other" / "12.webp")
    assert paired(one, open_images([tmp_path / "other"], None)) == (
        None,
        "not paired, since 1 names differ, such as '0'",
    )
    (tmp_path / "other" / "12.webp").unlink()
    assert paired(one, open_images([tmp_path / "other"], None))[1] == (
        "not paired, since there are 12 and 11"
    )
    np.save(tmp_path / "small.npy", images[:, :, :16].numpy())
    small = open_images([tmp_path / "small.npy"], None)
    assert paired(one, small)[1] == "not paired, since they are of 32 x 32 and 32 x 16"


def test_a_member_that_is_cut_is_named(tmp_path: Path) -> None:
    files = named(random_images(3), "")
    files["0001.png"] = files["0001.png"][:-40]
    with pytest.raises(EdadmError, match=r"a\.tar/0001\.png cannot be read as an image to score"):
        open_images([in_tar(tmp_path / "a.tar", files)], None)
    whole = in_tar(tmp_path / "b.tar", named(random_images(3)))
    whole.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(EdadmError, match=r"b\.tar cannot be read as a tar archive"):
        open_images([whole], None)


def test_published_crops(tmp_path: Path) -> None:
    from edadm.metrics.images.pictures import cropped

    wide = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 90, 3), dtype=np.uint8))
    halved = wide.resize((45, 35), Image.Resampling.BOX)
    bicubic = halved.resize((41, 32), Image.Resampling.BICUBIC).crop((4, 0, 36, 32))
    assert np.array_equal(cropped(wide, 32, "adm"), bicubic)
    box = wide.resize((41, 32), Image.Resampling.BOX).crop((4, 0, 36, 32))
    assert np.array_equal(cropped(wide, 32, "box"), box)
