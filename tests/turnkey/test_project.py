"""The output folder: written once, added to, never in the place of something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edadm.config.inputs.settings import ConfigError
from edadm.config.load import load_config, load_runs
from edadm.errors import EdadmError
from edadm.turnkey.project import CONFIG, Wishes, project_in
from edadm.turnkey.source import Source, source_of

SOURCE = Source("cifar10_small", {}, load_config().models["cifar10_small"])
VARIANTS = ["fp32", "quantize/quantize_w8a8/quantize_w8", "quantize/quantize_w4a8/quantize_w4"]


def test_another_recipe_is_added_and_what_was_edited_stays(tmp_path: Path) -> None:
    folder = tmp_path / "out é 1"
    project_in(folder, SOURCE, Wishes("w8a8", images=8)).write()
    file = folder / CONFIG
    file.write_text(f"# mine\n{file.read_text()}".replace("iterations: 50", "iterations: 7"))
    project_in(folder, SOURCE, Wishes("w4a8", steps=5)).write()
    settings = yaml.safe_load(file.read_text())
    assert settings["runs"] == [
        {"model": "cifar10_small", "variants": VARIANTS, "evaluation": "quantize"},
    ]
    config = load_runs(file)
    assert config.reconstructions["quantize_w8"].iterations == 7
    assert config.evaluations["quantize"].images == 8
    assert config.models["cifar10_small"].sampler.steps == 5
    assert file.read_text().startswith("# mine\n# Written by `edadm quantize`.")
    before = file.read_bytes(), file.stat().st_mtime_ns
    project_in(folder, SOURCE, Wishes("w4a8")).write()
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        EdadmError, match=r"holds something else, and no quantize\.yaml; name a new or empty folder"
    ):
        project_in(tmp_path, SOURCE, Wishes("w8a8"))
    with pytest.raises(EdadmError, match=r"notes\.txt is a file; name a folder by --output"):
        project_in(tmp_path / "notes.txt", SOURCE, Wishes("w8a8"))
    other = Source("cifar10_latent", {}, load_config().models["cifar10_latent"])
    project_in(tmp_path / "out", other, Wishes("w8a8")).write()
    with pytest.raises(EdadmError, match="is of another checkpoint; name another folder by --output"):
        project_in(tmp_path / "out", SOURCE, Wishes("w8a8"))
    mine = Source(
        "mine", {"checkpoint": str(tmp_path)}, SOURCE.model.model_copy(update={"checkpoint": str(tmp_path)})
    )
    with pytest.raises(EdadmError, match="lies in what is quantized, which stays as it is"):
        project_in(tmp_path / "inside", mine, Wishes("w8a8"))


@pytest.mark.parametrize(
    "text",
    [
        "models: [1]\nruns: [{model: cifar10_small, variants: [fp32]}]",
        "models: {cifar10_small: 3}\nruns: [{model: cifar10_small, variants: [fp32]}]",
        "runs: [{model: cifar10_small}]",
        "runs: [{model: cifar10_small, variants: null}]",
        "runs: [{model: cifar10_small, variants: fp32}]",
        "runs: [{model: cifar10_small, variants: [fp32]}, 7]",
        "just words",
    ],
)
def test_a_configuration_that_was_edited_to_nonsense_is_refused_as_such(text: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(ConfigError, match=r"runs|models|just words"):
        project_in(tmp_path, SOURCE, Wishes("w8a8"))
    assert (tmp_path / CONFIG).read_text() == text


def test_prompts_of_the_package_are_written_beside_the_configuration(tmp_path: Path) -> None:
    model = load_config().models["sd14_coco"]
    source = Source("sd14_coco", {}, model)
    project = project_in(tmp_path / "out", source, Wishes("w8a8"))
    assert not (tmp_path / "out").exists()
    project.write()
    config = load_runs(tmp_path / "out" / CONFIG)  # which counts the prompts
    told = config.models["sd14_coco"].conditioning
    assert told is not None
    assert told.prompts == str(tmp_path / "out" / "prompts.txt")
    prompts = (tmp_path / "out" / "prompts.txt").read_text().splitlines()
    assert len(set(prompts)) == len(prompts) == 80
    assert config.models["sd14_coco"].trajectories.count == 72


def test_a_model_of_the_package_is_told_its_own_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.txt").write_text("a cat\na dog\na red truck\n")
    monkeypatch.setattr("edadm.config.files.sources.BUNDLED", tmp_path)
    model = load_config().models["sd14_coco"]
    told = model.conditioning.model_copy(update={"prompts": "bundled:own"})
    source = Source("sd14_coco", {}, model.model_copy(update={"conditioning": told}))
    project = project_in(tmp_path / "out", source, Wishes("w8a8"))
    assert project.told.written == ["a cat", "a dog", "a red truck"]


@pytest.mark.parametrize(
    ("name", "wishes", "sentence"),
    [
        ("cifar10_latent", {"prompts": "x.txt"}, "this network is told classes; leave out --prompts"),
        (
            "cifar10_small",
            {"images_from": "x"},
            "this network is told nothing but noise; leave out --images-from",
        ),
        (
            "sd14_coco",
            {"images_from": "x"},
            "this network is given no images, but prompts alone; leave out --images",
        ),
        ("sd14_coco", {"prompts": "x.txt"}, r"x\.txt cannot be read as prompts"),
    ],
)
def test_what_a_network_is_not_told_is_refused(
    name: str, wishes: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    given = {key: tmp_path / value for key, value in wishes.items()}
    with pytest.raises(EdadmError, match=sentence):
        project_in(tmp_path / "out", Source(name, {}, load_config().models[name]), Wishes("w8a8", **given))


def test_a_name_of_nothing_is_refused_with_the_nearest() -> None:
    with pytest.raises(EdadmError, match=r"no file cifar10_smal; did you mean 'cifar10_small'\?"):
        source_of("cifar10_smal")
    assert source_of("cifar10_small").name == "cifar10_small"
