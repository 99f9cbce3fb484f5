"""Several learnings of a variant, as presets and variants of their own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edadm.config.layout import Variant
from edadm.config.load import ConfigError, described_runs, load_config, load_runs
from edadm.config.seeds import first_seeds, without_seeds
from edadm.planning.plan import stages_of

VARIANTS = ["fp32", "tdac/w4a8/fbr_w4", "tdac/w4a8/fbr_w4/integer", "tdac/w4a8/none"]


def runs(**settings: Any) -> dict[str, Any]:
    return {"runs": [{"model": "cifar10_small", "variants": VARIANTS} | settings]}


def test_every_seed_is_a_variant_that_shares_all_above_its_reconstruction() -> None:
    config = load_runs(runs(seeds=3))
    assert config.runs[0].variants == (
        "fp32",
        "tdac/w4a8/fbr_w4",
        "tdac/w4a8/fbr_w4@2",
        "tdac/w4a8/fbr_w4@3",
        "tdac/w4a8/fbr_w4/integer",
        "tdac/w4a8/fbr_w4@2/integer",
        "tdac/w4a8/fbr_w4@3/integer",
        "tdac/w4a8/none",
    )
    first = config.reconstructions["fbr_w4"]
    assert config.reconstructions["fbr_w4@3"] == first.model_copy(update={"seed": first.seed + 2})
    assert "none@2" not in config.reconstructions
    stages = [(stage.name, stage.of) for stage in stages_of(config.runs[0], config)]
    assert sum(name == "reconstruct" for name, _ in stages) == 4
    assert sum(name == "set-ranges" for name, _ in stages) == 1
    assert sum(name == "generate" for name, _ in stages) == 8


def test_one_seed_changes_nothing() -> None:
    config = load_runs(runs())
    assert config.runs[0].variants == tuple(VARIANTS)
    assert config.reconstructions == load_config().reconstructions
    assert load_runs(runs(seeds=1)) == config


def test_a_configuration_is_read_again_as_it_was_written() -> None:
    config = load_runs(runs(seeds=2))
    written = json.loads(without_seeds(config).model_dump_json(by_alias=True))
    assert "@" not in json.dumps(written)
    assert load_runs(written) == config


def test_the_report_is_told_of_presets_as_the_user_wrote_them() -> None:
    run = described_runs(load_runs(runs(seeds=2)))[0]
    assert run["seeds"] == 2
    assert len(run["variants"]) == 6
    assert set(run["presets"]["reconstructions"]) == {"fbr_w4", "none"}


@pytest.mark.parametrize(
    ("name", "seed", "other"),
    [
        ("fp32", 1, "fp32"),
        ("a/b/c", 1, "a/b/c@4"),
        ("a/b/c@2", 2, "a/b/c@4"),
        ("a/b/c@12/integer", 12, "a/b/c@4/integer"),
    ],
)
def test_a_variant_knows_its_seed(name: str, seed: int, other: str) -> None:
    variant = Variant(name)
    assert variant.seed == seed
    assert variant.of_seed(4) == Variant(other)
    assert variant.of_seed(4).of_seed(seed) == variant
    assert first_seeds([name]) == ([name] if seed == 1 else [])


@pytest.mark.parametrize("seeds", [0, 101, "two"])
def test_numbers_of_seeds_that_mean_nothing_are_refused(seeds: Any) -> None:
    with pytest.raises(ConfigError, match=r"runs\.0\.seeds"):
        load_runs(runs(seeds=seeds))


def test_names_of_seeds_are_not_for_users() -> None:
    with pytest.raises(ConfigError, match="cannot be that of a folder everywhere"):
        load_config({"reconstructions": {"mine@2": {"base": "fbr_w4"}}})
    with pytest.raises(ConfigError, match="there is no preset 'fbr_w4@2' among reconstructions"):
        load_runs({"runs": [{"model": "cifar10_small", "variants": ["tdac/w4a8/fbr_w4@2"], "seeds": 2}]})
