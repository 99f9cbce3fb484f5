"""What is kept for the next process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

from edadm.deploy.backends import kept
from edadm.nn.insert import activation_quantizers, quantized_layers


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDADM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_it_lies_with_the_user_unless_told_otherwise(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept.place() == place
    monkeypatch.delenv("EDADM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert kept.place() == Path("/caches/edadm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/users/one")
    assert kept.place() == Path("/users/one/.cache/edadm")


def test_a_finding_is_found_out_once_and_the_first_one_counts(place: Path) -> None:
    def found_meanwhile() -> dict[str, int]:
        assert kept.remembered("kind", "digest", lambda: {"of": 1}) == {"of": 1}  # another process
        return {"of": 2}

    assert kept.remembered("kind", "digest", found_meanwhile) == {"of": 1}
    assert kept.remembered("kind", "digest", lambda: {"of": 3}) == {"of": 1}
    assert kept.remembered("kind", "other", lambda: {"of": 4}) == {"of": 4}
    assert sorted(file.name for file in (place / "kind").iterdir()) == ["digest.json", "other.json"]


@pytest.mark.parametrize("damaged", ["", '{"of": ', "[1]", "null"])
def test_a_damaged_finding_is_found_out_again_and_replaced(place: Path, damaged: str) -> None:
    kept.remembered("kind", "digest", lambda: {"of": 1})
    (place / "kind" / "digest.json").write_text(damaged)
    assert kept.remembered("kind", "digest", lambda: {"of": 2}) == {"of": 2}
    assert kept.remembered("kind", "digest", lambda: {"of": 3}) == {"of": 2}


def test_a_folder_is_filled_once_and_those_used_longest_ago_go(place: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "file").write_text("content")

    first = kept.folder_for("kind", "0", fill)
    assert first is not None
    assert (first / "file").read_text() == "content"
    assert kept.folder_for("kind", "0", lambda folder: pytest.fail("it is there")) == first
    for number in range(1, kept.MOST_FOLDERS + 1):
        folder = kept.folder_for("kind", str(number), fill)
        assert folder is not None
        os.utime(folder, (number, number))
    os.utime(first)
    kept.folder_for("kind", "new", fill)
    names = {folder.name for folder in (place / "kind").iterdir()}
    assert names == {"0", *map(str, range(3, kept.MOST_FOLDERS + 1)), "new"}


def test_where_nothing_can_be_kept_it_is_found_out_each_time(place: Path) -> None:
    place.write_text("a file where the folder should be")
    assert kept.remembered("kind", "digest", lambda: {"of": 1}) == {"of": 1}
    assert kept.remembered("kind", "digest", lambda: {"of": 2}) == {"of": 2}
    assert kept.folder_for("kind", "digest", lambda folder: None) is None


def test_a_fill_that_fails_leaves_nothing(place: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_text("")
        raise ValueError("no graph")

    with pytest.raises(ValueError, match="no graph"):
        kept.folder_for("kind", "digest", fill)
    assert list((place / "kind").iterdir()) == []


def test_a_digest_is_of_all_that_a_network_computes_with(gridded: Callable[[], nn.Module]) -> None:
    networks = [gridded() for _ in range(4)]
    for network in networks:
        for layer in quantized_layers(network).values():
            layer.set_codes(layer.nearest_codes())
    same, _, grid, code = networks
    quantizer = next(iter(activation_quantizers(grid).values()))
    quantizer.set_grid(quantizer.scale * 2, quantizer.zero_point)
    layer = next(iter(quantized_layers(code).values()))
    layer.set_codes(layer.codes ^ 1)
    digests = [kept.digest_of(network, ["of"]) for network in networks]
    assert digests[0] == digests[1]
    assert len({*digests, kept.digest_of(same, ["of another"])}) == 4
