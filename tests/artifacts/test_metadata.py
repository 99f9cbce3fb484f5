"""What artifacts say of themselves, and what their readers do with it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edadm.artifacts import (
    DamagedError,
    StaleError,
    describe,
    facts,
    intact,
    read_tensors,
    refuse_other,
    save_tensors,
    writing_json,
)
from edadm.artifacts.digest import safetensors_digest, tensors_digest
from edadm.artifacts.metadata import beside, remember

RANGES = facts("ranges", {"bits": {"weights": 4, "activations": 8}, "inputs": {"unet": "ab" * 32}})
TENSORS = {
    "b": torch.arange(6.0).reshape(2, 3),
    "a": torch.tensor(3, dtype=torch.uint8),
    "c": torch.zeros(0),
    "d": torch.ones(2).bfloat16(),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_tensors(tmp_path / "ranges.safetensors", TENSORS, RANGES)
    return tmp_path / "ranges.safetensors"


def test_equal_tensors_have_one_digest_in_memory_and_in_any_file(path: Path, tmp_path: Path) -> None:
    digest = intact(path, "ranges")
    save_file(dict(reversed(TENSORS.items())), tmp_path / "bare.safetensors")
    save_tensors(tmp_path / "other.safetensors", TENSORS, facts("unit", {}))
    assert (
        digest
        == tensors_digest(TENSORS)
        == intact(tmp_path / "bare.safetensors")
        == intact(tmp_path / "other.safetensors")
    )
    assert digest != tensors_digest(TENSORS | {"b": TENSORS["b"].reshape(3, 2)})
    assert digest != tensors_digest(TENSORS | {"a": torch.tensor(4, dtype=torch.uint8)})


def test_equal_content_gives_equal_bytes_which_do_not_tell_where_they_were_made(
    path: Path, tmp_path: Path
) -> None:
    save_tensors(tmp_path / "again.safetensors", TENSORS, RANGES)
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    assert str(tmp_path).encode() not in path.read_bytes()


def test_a_file_says_what_it_is(path: Path) -> None:
    found = describe(path)
    assert found is not None
    assert {
        "kind": "ranges",
        "format": 1,
        "device": "cpu",
        "made_from": RANGES["made_from"],
    }.items() <= found.items()
    assert found["content"] == safetensors_digest(path)


def test_files_of_others_say_nothing_and_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "a.safetensors")
    (tmp_path / "a.json").write_text("[1]")
    np.save(tmp_path / "a.npy", np.zeros(3))
    (tmp_path / "folder").mkdir()
    for name in ("a.safetensors", "a.json", "a.npy", "folder", "absent"):
        assert describe(tmp_path / name) is None
    assert read_tensors(tmp_path / "a.safetensors", "set-ranges", ("a",), kind="ranges")["a"] == 3
    refuse_other(tmp_path / "a.safetensors", {"bits": {"weights": 8}}, "set-ranges")


def test_a_file_without_room_has_its_facts_beside_it(tmp_path: Path) -> None:
    images = tmp_path / "0.npy"
    np.save(images, np.arange(12, dtype=np.uint8))
    remember(images, facts("samples", {"shard": 0}))
    assert intact(images, "samples")
    images.write_bytes(images.read_bytes()[:-1] + b"x")
    with pytest.raises(
        DamagedError, match=r"0\.npy is damaged \(its content has another digest than it says\)"
    ):
        intact(images)
    beside(images).unlink()
    assert intact(images)


def test_json_says_what_it_was_made_from_as_its_last_key(tmp_path: Path) -> None:
    path = tmp_path / "selection.json"
    writing_json(path, {"b": 0.1, "a": (1, None)}, facts("selection", {"calibration": {"size": 3}}))
    assert list(json.loads(path.read_text())) == ["b", "a", "edadm"]
    assert path.read_text().endswith("}\n")
    assert intact(path, "selection")
    path.write_text(path.read_text().replace("0.1", "0.2"))
    with pytest.raises(DamagedError, match=r"selection\.json is damaged"):
        intact(path)
    path.write_text("{")
    with pytest.raises(DamagedError, match=r"selection\.json cannot be read"):
        intact(path)


DAMAGES = {
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "empty": lambda data: b"",
    "header": lambda data: data[:12],
    "flipped": lambda data: data[:-3] + bytes([data[-3] ^ 1]) + data[-2:],
    "settings": lambda data: data.replace(b'weights\\":4', b'weights\\":8'),
    "digest": lambda data: data.replace(b'\\"content\\":\\"', b'\\"content\\":\\"0', 1)[:-1],
    "text": lambda data: b"<!DOCTYPE html>" * 100,
    "name": lambda data: data.replace(b'"b":{', b'"e":{'),
    "shape": lambda data: data.replace(b'"shape":[2,3]', b'"shape":[3,2]'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_is_named_with_the_command_that_makes_the_file_again(damage: str, path: Path) -> None:
    data = path.read_bytes()
    changed = DAMAGES[damage](data)
    assert changed != data
    path.write_bytes(changed)
    with pytest.raises(
        DamagedError, match=r"ranges\.safetensors .*; remove it, and make it again with `edadm set-ranges`"
    ):
        read_tensors(path, "set-ranges", kind="ranges")


def test_any_flipped_bit_is_found_or_harmless(path: Path) -> None:
    """Harmless are those of names in the header that nothing reads."""
    data, right = path.read_bytes(), load_file(path)
    for position in range(0, len(data), 7):
        path.write_bytes(data[:position] + bytes([data[position] ^ 4]) + data[position + 1 :])
        try:
            found = read_tensors(path, "set-ranges", kind="ranges")
        except DamagedError:
            continue
        assert found.keys() == right.keys()
        assert all(torch.equal(found[name], right[name]) for name in right)


def test_other_kinds_newer_formats_and_missing_tensors_are_refused(path: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DamagedError, match=r"ranges\.safetensors holds ranges, not calibration; remove it, and make"
    ):
        read_tensors(path, "select-calibration", kind="calibration")
    with pytest.raises(
        DamagedError,
        match=r"has no tensor 'latents', so it is not from `edadm set-ranges`; name the file that is",
    ):
        read_tensors(path, "set-ranges", ("a", "latents"))
    save_tensors(tmp_path / "new.safetensors", TENSORS, RANGES | {"format": 9})
    with pytest.raises(StaleError, match=r"has format 9 of ranges, this edadm reads up to 1; upgrade edadm"):
        read_tensors(tmp_path / "new.safetensors", "set-ranges")


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        (
            {"bits": {"weights": 8}},
            "was made with bits.weights: 4, here it is 8; name the file that fits, or remove it and make it "
            "again",
        ),
        (
            {"inputs": {"unet": "cd" * 32}},
            "was made from another unet (digest abababababab..., here cdcdcdcdcdcd...); name the file",
        ),
        ({"bits": {"weights": 4, "split": 1}, "model": {}, "inputs": {"set": "x"}}, None),
    ],
)
def test_a_reader_compares_what_it_knows_and_names_both(
    wanted: dict, sentence: str | None, path: Path
) -> None:
    if sentence is None:
        refuse_other(path, wanted, "set-ranges")
        return
    with pytest.raises(StaleError, match=re.escape(sentence)):
        refuse_other(path, wanted, "set-ranges")


def test_a_file_that_is_nested_beyond_reading_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    assert describe(tmp_path / "deep.json") is None
