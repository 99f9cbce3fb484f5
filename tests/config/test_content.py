"""What a set of images holds, read once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edadm.config.files.sources import file_sha256
from edadm.config.fingerprint import content, images_digest


def test_a_replaced_image_of_one_size_is_seen_and_others_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, notes = tmp_path / "real", tmp_path / "notes"
    (folder / "a").mkdir(parents=True)
    for index in range(3):
        (folder / "a" / f"{index}.png").write_bytes(bytes([index] * 9))
    (folder / "notes.txt").write_text("no image")
    first = images_digest(folder, notes)
    assert first == images_digest(folder)
    read = []
    monkeypatch.setattr(content, "file_sha256", lambda file: read.append(file) or file_sha256(file))
    assert images_digest(folder, notes) == first
    assert not read
    (folder / "a" / "1.png").write_bytes(bytes([7] * 9))
    os.utime(folder / "a" / "1.png", ns=(1, 1))
    second = images_digest(folder, notes)
    assert second != first
    assert read == [folder / "a" / "1.png"]
    (folder / "a" / "1.png").write_bytes(bytes([1] * 9))
    assert images_digest(folder, notes) == first
    (folder / "a" / "2.png").rename(folder / "a" / "3.png")
    assert images_digest(folder, notes) != first


def test_a_touched_image_and_what_is_none_change_nothing(tmp_path: Path) -> None:
    folder, notes = tmp_path / "real", tmp_path / "notes"
    folder.mkdir()
    (folder / "0.png").write_bytes(b"x")
    first = images_digest(folder, notes)
    os.utime(folder / "0.png", ns=(1, 1))
    (folder / "notes.txt").write_text("no image")
    assert images_digest(folder, notes) == first
    archive = tmp_path / "a.zip"
    archive.write_bytes(b"PK")
    assert images_digest(archive, notes) == images_digest(archive)


def test_an_image_that_is_overwritten_in_place_under_its_old_time_is_seen(tmp_path: Path) -> None:
    image, notes = tmp_path / "images" / "1.png", tmp_path / "notes"
    image.parent.mkdir()
    image.write_bytes(b"one")
    before, known = image.stat(), images_digest(image.parent, notes)
    file = content.content_digest(image, notes / "contents.json")
    while image.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of file systems ticks in milliseconds
        image.write_bytes(b"two")
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert image.stat().st_mtime_ns == before.st_mtime_ns
    assert images_digest(image.parent, notes) != known
    assert content.content_digest(image, notes / "contents.json") != file
