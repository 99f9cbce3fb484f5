"""The ablation of the docs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edadm.config.layout import Variant
from edadm.config.load import load_config
from edadm.config.schema import Config

from ..config.bundled import for_the_bundled_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def config() -> Config:
    return load_config(ROOT / "docs" / "ablation.yaml")


def test_it_keeps_out_of_the_main_jobs_results(config: Config) -> None:
    assert config.results.startswith("results/")  # which git ignores
    assert config.results != load_config(ROOT / "config.yaml").results


def test_every_selector_and_every_method_is_compared_with_faithful_tdac_and_fbr(config: Config) -> None:
    (run,) = config.runs
    presets = [Variant(name).presets for name in run.variants if name != "fp32"]
    assert len(set(presets)) == len(presets)
    selectors = {name for name in for_the_bundled_model("calibrations") if not name.startswith("tdac_lambda")}
    for reconstruction in ("fbr_w4", "none"):
        assert {
            selection for selection, bits, learned in presets if (bits, learned) == ("w4a8", reconstruction)
        } == selectors
    methods = {
        config.reconstructions[learned].method
        for selection, bits, learned in presets
        if (selection, bits) == ("tdac", "w4a8")
    }
    assert methods == {"none", "layer", "block", "fbr", "fbr_float_inputs", "tfmq", "gac"}
    grids = {
        bits for selection, bits, learned in presets if selection == "tdac" and learned.startswith("fbr")
    }
    assert {"w8a8", "w4a8", "w4a6", "w4a8_asymmetric", "w4a8_conv_in8"} <= grids


def test_rivals_have_the_same_budget_and_seeds(config: Config) -> None:
    used = {Variant(name).presets[2] for name in config.runs[0].variants if name.endswith("_w4")}
    budgets = {
        (preset.iterations, preset.batch_size, preset.seed)
        for preset in (config.reconstructions[name] for name in used)
    }
    assert len(budgets) == 1
    selected = [config.calibrations[name] for name in for_the_bundled_model("calibrations")]
    assert len({(preset.size, preset.held_out, preset.seed) for preset in selected}) == 1
