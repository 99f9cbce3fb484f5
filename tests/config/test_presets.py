"""The package's presets."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edadm.config import load
from edadm.config.inputs.settings import read_settings
from edadm.config.load import load_config
from edadm.config.schema import Bits
from edadm.quant.policy import layer_bits

from .bundled import for_the_bundled_model

PRESETS = load_config()
FILES = sorted((Path(load.__file__).parent / "presets").glob("*.yaml"))


def widths(bits: Bits, layer: str) -> tuple[int | None, int | None]:
    found = layer_bits(layer, bits)
    return found.weights, found.activations


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_presets_mean_the_same_to_whoever_reads_them(file: Path) -> None:
    """OmegaConf, which reads users' files, takes 1e-4 for a number and 2026-01-31 for a text; plain YAML does not."""
    assert yaml.safe_load(file.read_bytes()) == read_settings(file)


@pytest.mark.parametrize("name", for_the_bundled_model("bits"))
def test_a_name_says_what_the_preset_does(name: str) -> None:
    bits = PRESETS.bits[name]
    activations = bits.activations
    assert f"w{bits.weights}a{activations}" in name.split("_")
    assert ("asymmetric" in name) == (bits.activation_grid == "asymmetric")
    assert (bits.weights == 4 and "conv_in8" not in name) == (widths(bits, "conv_in")[0] == 4)
    assert widths(bits, "conv_out") == ((8, None) if name.startswith("official") else (None, None))
    assert widths(bits, "time_embedding.linear_1") == (8, activations)
    assert widths(bits, "mid_block.resnets.0.conv1") == (bits.weights, activations)
    assert bits.softmax == 8


@pytest.mark.parametrize("name", yaml.safe_load((FILES[0].parent / "schemes.yaml").read_bytes())["bits"])
def test_a_name_of_a_scheme_says_what_becomes_of_linear_layers(name: str) -> None:
    bits, kind = PRESETS.bits[name], name.split("_")[0]
    found = layer_bits("mid_block.attentions.0.transformer_blocks.0.attn1.to_q", bits, is_linear=True)
    assert name == f"{kind}_w{found.weights}a{found.activations}"
    assert widths(bits, "mid_block.resnets.0.conv1") == (bits.weights, 8)
    assert widths(bits, "conv_out") == (None, None)
    assert bits.linear is not None
    assert bits.linear.inputs == "dynamic"
    rotation = {"quarot": "hadamard", "convrot": "regular_hadamard"}.get(kind)
    assert (bits.linear.rotation, bits.linear.rank) == (rotation, 16 if kind == "svdquant" else None)


@pytest.mark.parametrize("name", for_the_bundled_model("calibrations"))
def test_the_bundled_model_has_recorded_enough_for_every_selector(name: str) -> None:
    calibration = PRESETS.calibrations[name]
    assert calibration.size + calibration.held_out == PRESETS.models["cifar10_small"].trajectories.count
    assert calibration.held_out == 16
