"""The folder for a hub: what its card says is what the results and its files hold."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from edadm.config.layout import Variant
from edadm.errors import EdadmError
from edadm.report.card import CARD, PICTURE, Origin, _chosen, picture, write_card

from .fakes import Fake

NAME = "tdac/w4a8/fbr_w4"
QUANTIZED = Path(__file__).parents[1] / "deploy" / "files" / "format_3.safetensors"
ORIGIN = Origin("apache-2.0", "someone/a model: 1")


@pytest.fixture
def run(fake: Fake) -> Fake:
    """Results of which a variant has weights that can be read."""
    shutil.copy(QUANTIZED, fake.file(NAME, "quantized.safetensors"))
    return fake


def test_a_card_says_licence_scores_settings_and_digest(run: Fake, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    write_card(run.results, run.runs, NAME, ORIGIN, folder)
    weights = folder / "diffusion_pytorch_model.safetensors"
    assert weights.read_bytes() == QUANTIZED.read_bytes()
    assert {path.name for path in folder.iterdir()} >= {CARD, PICTURE, "config.json", weights.name}
    _, header, text = (folder / CARD).read_text().split("---\n", 2)
    assert yaml.safe_load(header) == {
        "license": "apache-2.0",
        "base_model": "someone/a model: 1",
        "base_model_relation": "quantized",
        "library_name": "diffusers",
        "tags": ["edadm", "quantized", "w4a8"],
    }
    assert f"`{hashlib.sha256(QUANTIZED.read_bytes()).hexdigest()}`" in text
    assert f"{QUANTIZED.stat().st_size:,}" in text
    assert "27.01 (+2.70)" in text
    assert "22.5 dB" in text
    assert "61.74" not in text  # another variant's
    assert "from diffusers import UNet2DModel\n" in text
    settings = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert settings["reconstructions.fbr_w4"] == {"method": "fbr", "iterations": 4321}


def test_a_card_is_not_written_over(run: Fake, tmp_path: Path) -> None:
    (tmp_path / CARD).write_text("mine")
    with pytest.raises(EdadmError, match="is there already; move it away"):
        write_card(run.results, run.runs, NAME, ORIGIN, tmp_path)
    assert (tmp_path / CARD).read_text() == "mine"


@pytest.mark.parametrize("name", ["fp32", "tdac/w4a8/other"])
def test_variants_that_no_run_has_are_refused_with_those_there_are(
    run: Fake, name: str, tmp_path: Path
) -> None:
    known = "cifar10_small/tdac/w8a8/fbr_w8, cifar10_small/tdac/w4a8/fbr_w4"
    with pytest.raises(EdadmError, match=f"no run has the variant '{name}'; name one of {known}"):
        write_card(run.results, run.runs, name, ORIGIN, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


def test_a_checkpoint_may_be_named_of_which_images_were_made_with_integers_alone() -> None:
    runs = [{"model": "mine", "variants": ["fp32", f"{NAME}/integer"]}]
    expected = ("mine", Variant(f"{NAME}/integer"))
    assert (
        _chosen(runs, NAME) == _chosen(runs, f"mine/{NAME}") == _chosen(runs, f"{NAME}/integer") == expected
    )


def test_a_licence_is_needed(run: Fake, tmp_path: Path) -> None:
    with pytest.raises(EdadmError, match="give it with --license"):
        write_card(run.results, run.runs, NAME, Origin(" "), tmp_path / "hub")


def test_rows_of_the_picture_are_variants_and_its_columns_noises(tmp_path: Path) -> None:
    """Nine images of 512 pixels: eight are shown, at half their side."""
    one, other = (np.full((9, 3, 512, 512), value, np.uint8) for value in (10, 200))
    one[1] = 60
    found = picture([one, other])
    assert found.shape == (2 * 256, 8 * 256, 3)
    assert [int(found[y, x, 0]) for y, x in ((0, 0), (0, 256), (0, 512), (256, 0))] == [10, 60, 10, 200]
    Image.fromarray(found)
