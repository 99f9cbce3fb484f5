"""The table of public files."""

from __future__ import annotations

import re

from edadm.config.downloads import DOWNLOADS, UNKNOWN
from edadm.config.load import load_config


def test_checksums_are_hashes_or_unknown() -> None:
    lengths = {"md5": (32,), "sha256": (8, 64)}  # eight digits stand in file names
    for name, entry in DOWNLOADS.items():
        if entry.checksum != UNKNOWN:
            kind, digits = entry.checksum.split(":")
            assert re.fullmatch("[0-9a-f]+", digits), name
            assert len(digits) in lengths[kind], name
        assert entry.source, name
        assert entry.url.startswith(("https://", "http://images.cocodataset.org/")), name


def test_every_place_is_its_own() -> None:
    paths = [entry.path for entry in DOWNLOADS.values()]
    assert len(set(paths)) == len(paths)


def test_presets_look_where_downloads_go() -> None:
    paths = {entry.path for entry in DOWNLOADS.values()}
    for evaluation in load_config().evaluations.values():
        for file in (evaluation.extractor_weights, evaluation.clip_weights):
            assert file is None or file in paths
