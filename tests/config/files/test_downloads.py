"""The table of public files."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from edadm.config.files.downloads import DOWNLOADS, UNKNOWN
from edadm.config.load import load_config


def test_checksums_are_hashes_or_unknown() -> None:
    lengths = {"md5": 32, "sha256": 64}
    for name, entry in DOWNLOADS.items():
        if entry.checksum != UNKNOWN:
            kind, digits = entry.checksum.split(":")
            assert re.fullmatch("[0-9a-f]+", digits), name
            assert len(digits) == lengths[kind], name
        assert entry.source, name
        assert entry.url.startswith(("https://", "http://images.cocodataset.org/")), name


def source_of(library: str, file: str) -> str:
    """A file of an installed library, which need not be imported for that."""
    spec = find_spec(library)
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / file).read_text()


@pytest.mark.parametrize(
    ("name", "library", "file"),
    [
        ("pytorch_fid_inception", "pytorch_fid", "inception.py"),
        ("torch_fidelity_inception", "torch_fidelity", "feature_extractor_inceptionv3.py"),
    ],
)
def test_scoring_networks_come_from_where_their_libraries_get_them(
    name: str, library: str, file: str
) -> None:
    assert DOWNLOADS[name].url in source_of(library, file)


def test_clip_comes_from_where_open_clip_gets_it() -> None:
    repository, _, file = (
        DOWNLOADS["clip_vit_l_14"].url.removeprefix("https://huggingface.co/").partition("/resolve/main/")
    )
    assert f'hf_hub="{repository}/"' in source_of("open_clip", "pretrained.py")
    assert f'HF_SAFE_WEIGHTS_NAME = "{file}"' in source_of("open_clip", "constants.py")


def test_every_place_is_its_own() -> None:
    paths = [entry.path for entry in DOWNLOADS.values()]
    assert len(set(paths)) == len(paths)


def test_presets_look_where_downloads_go() -> None:
    paths = {entry.path for entry in DOWNLOADS.values()}
    for evaluation in load_config().evaluations.values():
        for file in (evaluation.extractor_weights, evaluation.clip_weights):
            assert file is None or file in paths
