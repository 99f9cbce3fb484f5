"""From YAML to a validated configuration."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edadm.config.load import ConfigError, described_runs, find_preset, load_config, validate
from edadm.config.schema import Config, json_schema

ROOT = Path(__file__).parents[2]


def test_the_configuration_at_the_root_loads() -> None:
    config = load_config(ROOT / "config.yaml")
    assert config.runs
    assert {variant.split("/")[-1] for run in config.runs for variant in run.variants} == {
        "fp32",
        "edadm_w4_small",
        "none",
        "integer",
    }


def test_the_schema_for_editors_is_in_step() -> None:
    """If this fails: edadm schema --output workflow/schemas/config.schema.json."""
    assert json.loads((ROOT / "workflow/schemas/config.schema.json").read_text()) == json_schema()


def test_the_packages_presets_are_below_the_users_settings() -> None:
    config = load_config({"models": {"cifar10_small": {"sampler": {"steps": 7}}}, "results": "elsewhere"})
    default = load_config()
    assert config.models["cifar10_small"].sampler.steps == 7
    assert config.models["cifar10_small"].sampler.spacing == default.models["cifar10_small"].sampler.spacing
    assert config.calibrations == default.calibrations
    assert (config.results, default.results) == ("elsewhere", "results")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"runz": []}, "runz: there is no such setting; did you mean 'runs'?"),
        ({"calibrations": {"a": {"lamda": 1}}}, "calibrations.a.lamda: there is no such setting; did you mean 'lambda'?"),
        (
            {"models": {"m": {"checkpoint": "x", "sampler": {"step": 3}}}},
            "models.m.sampler.step: there is no such setting; did you mean 'steps'?",
        ),
        (
            {"bits": {"b": {"layers": {"conv_in": {"weights": 8, "activations": 8, "weihgts": 8}}}}},
            "bits.b.layers.conv_in.weihgts: there is no such setting; did you mean 'weights'?",
        ),
        ({"evaluations": {"e": {"xyzzy": 8}}}, "evaluations.e.xyzzy: there is no such setting; known are batch_size, clip_model"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_refused_and_the_nearest_right_one_named(settings: dict, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(settings)
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"models": {"m": {}}}, "models.m.checkpoint: this setting is required"),
        ({"calibrations": {"a": {"size": 0}}}, "calibrations.a.size: input should be greater than or equal to 1 (got 0)"),
        ({"bits": {"b": {"weights": 9}}}, "bits.b.weights: input should be less than or equal to 8 (got 9)"),
        ({"calibrations": {"a": {"selector": "greedy"}}}, "calibrations.a.selector: input should be 'normal', 'random',"),
        ({"reconstructions": {"r": {"drop_probability": 1.5}}}, "reconstructions.r.drop_probability: input should be less than 1"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_with_its_place_and_value(settings: dict, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(settings)
    assert str(caught.value).startswith(sentence)


def test_every_problem_gets_a_line() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config({"bits": {"b": {"weights": 9, "activations": 1}}, "nonsense": 1})
    assert len(str(caught.value).splitlines()) == 3


def test_a_preset_inherits_what_it_does_not_say() -> None:
    settings = {
        "calibrations": {
            "mine": {"selector": "tdac", "size": 11, "lambda": 0.5, "radius": 2.0},
            "child": {"base": "mine", "lambda": 0.0},
            "grandchild": {"base": "child", "size": 5},
        },
        "bits": {"low": {"base": "w4a8", "layers": {"conv_in": {"weights": 8, "activations": 8}}}},
    }
    config = load_config(settings)
    child, grandchild = config.calibrations["child"], config.calibrations["grandchild"]
    assert (child.size, child.lambda_, child.radius) == (11, 0.0, 2.0)
    assert (grandchild.size, grandchild.lambda_, grandchild.radius) == (5, 0.0, 2.0)
    assert config.bits["low"].weights == config.bits["w4a8"].weights
    assert "conv_in" in config.bits["low"].layers


@pytest.mark.parametrize("names", [("a",), ("a", "b"), ("a", "b", "c")])
def test_bases_in_a_circle_are_refused(names: tuple[str, ...]) -> None:
    presets = {name: {"base": names[(index + 1) % len(names)]} for index, name in enumerate(names)}
    with pytest.raises(
        ConfigError, match=r"calibrations\.[abc]: its bases form a circle; break it by removing one `base`"
    ):
        load_config({"calibrations": presets})


def test_an_absent_base_is_refused_and_the_nearest_named() -> None:
    with pytest.raises(
        ConfigError, match=r"calibrations\.a: there is no preset 'tdca' to build on; did you mean 'tdac'\?"
    ):
        load_config({"calibrations": {"a": {"base": "tdca"}}})


def test_an_absent_file_and_broken_yaml_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"there is no configuration file .*absent\.yaml; give one with --config"
    ):
        load_config(tmp_path / "absent.yaml")
    (tmp_path / "broken.yaml").write_text("runs: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not valid YAML"):
        load_config(tmp_path / "broken.yaml")


def test_a_preset_is_found_by_name_in_a_file_or_given_whole(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("calibrations: {mine: {size: 3}}")
    assert find_preset("calibrations", "mine", tmp_path / "mine.yaml").size == 3
    assert find_preset("calibrations", '{"size": 4, "lambda": 0.25}').lambda_ == 0.25
    assert find_preset("calibrations", "tdac") == load_config().calibrations["tdac"]
    with pytest.raises(
        ConfigError, match=r"there is no preset 'tdak' among calibrations; did you mean 'tdac'\?"
    ):
        find_preset("calibrations", "tdak")
    with pytest.raises(ConfigError, match="calibrations: this is not valid JSON"):
        find_preset("calibrations", "{size: 4")


def test_presets_survive_a_trip_through_json() -> None:
    """Rules hand presets to commands as JSON."""
    config = load_config()
    for kind in ("models", "calibrations", "bits", "reconstructions", "evaluations"):
        for name, preset in getattr(config, kind).items():
            assert find_preset(kind, preset.model_dump_json(by_alias=True)) == preset, name
            assert find_preset(kind, preset.model_dump_json()) == preset, name


def test_described_runs_are_plain_values_with_the_presets_in_use() -> None:
    settings = {
        "runs": [{"model": "cifar10_small", "variants": ["fp32", "tdac/w4a8/none", "tdac/w8a8/none"]}]
    }
    (run,) = described_runs(load_config(settings))
    assert json.loads(json.dumps(run)) == run
    assert set(run["presets"]["calibrations"]) == {"tdac"}
    assert list(run["presets"]["bits"]) == ["w4a8", "w8a8"]
    assert "lambda" in run["presets"]["calibrations"]["tdac"]


def test_a_configuration_cannot_be_changed() -> None:
    config = validate({})
    assert isinstance(config, Config)
    with pytest.raises(ValueError, match="frozen"):
        config.results = "elsewhere"
