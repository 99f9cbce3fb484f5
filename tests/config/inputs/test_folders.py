"""Which files of a folder are its images."""

from __future__ import annotations

from pathlib import Path

import pytest

from edadm.config.inputs.folders import has_images, list_images
from edadm.errors import EdadmError


def put(folder: Path, *names: str) -> Path:
    """Empty files of these names."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def test_images_come_in_the_order_of_their_paths_whatever_lies_beside_them(tmp_path: Path) -> None:
    images = [
        "a/1.PNG",
        "a/2.jpg",
        "a.png",
        "b/c/0.jpeg",
        "z.JPE",
        "z.jfif",
        "z.webp",
        "z.bmp",
        "z.tif",
        "z.tiff",
    ]
    strays = (
        (
            ".ipynb_checkpoints/0-checkpoint.png",
            "a/.ipynb_checkpoints/1.png",
            ".thumbnails/x.png",
            ".Trash-1000/files/0.png",
        ),
        ("@eaDir/0.png", "__MACOSX/0.png", "#recycle/0.png", "a/@EADIR/0.png"),
        ("._a.png", "a/._1.PNG", ".hidden.jpg"),
        ("Thumbs.db", "desktop.ini", ".DS_Store", "notes.txt", "labels.csv"),
    )
    put(tmp_path, *images, *(name for names in strays for name in names))
    put(tmp_path, "x.gif", "y.gif", "z.heic", "set.zip")
    (tmp_path / "folder.png").mkdir()
    found = list_images(tmp_path)
    assert found.files == sorted(tmp_path / name for name in images)
    assert dict(found.left_out) == {
        ".gif file(s), which are not read": 2,
        ".heic file(s), which are not read": 1,
        ".zip archive(s), which are not opened": 1,
        "hidden folder(s) or file(s)": 7,
        "system folder(s) or file(s)": 4,
    }
    assert str(found.remark()).startswith("2 .gif file(s), which are not read, 1 .heic file(s)")


def test_links_to_files_and_folders_count_as_these(tmp_path: Path) -> None:
    put(tmp_path, "real/0.png", "set/1.png")
    (tmp_path / "set" / "2.png").symlink_to(tmp_path / "real" / "0.png")
    (tmp_path / "set" / "class").symlink_to(tmp_path / "real")
    assert [file.name for file in list_images(tmp_path / "set").files] == ["1.png", "2.png", "0.png"]
    assert list_images(tmp_path / "set" / "class").remark() is None


def test_a_folder_below_a_hidden_one_is_searched(tmp_path: Path) -> None:
    assert len(list_images(put(tmp_path / ".cache" / "set", "0.png")).files) == 1


def test_a_link_to_nothing_and_a_link_in_a_circle_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "a/0.png")
    (tmp_path / "notes").symlink_to(tmp_path / "absent.txt")
    assert len(list_images(tmp_path).files) == 1
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    with pytest.raises(EdadmError, match=r"a/up leads back to a folder above it; remove this link"):
        list_images(tmp_path)
    (tmp_path / "a" / "up").unlink()
    (tmp_path / "dead.png").symlink_to(tmp_path / "absent.png")
    with pytest.raises(EdadmError, match=r"dead\.png is a link to nothing; mend or remove it"):
        list_images(tmp_path)


def test_a_folder_without_images_is_refused_with_what_it_has(tmp_path: Path) -> None:
    put(tmp_path, "a.txt", ".b.png")
    assert not has_images(tmp_path)
    with pytest.raises(
        EdadmError,
        match=r"holds no images \(left out: 1 hidden .*\); put the reference images there as \.png",
    ):
        list_images(tmp_path)
    assert has_images(put(tmp_path, "c/d.png"))
