"""Where runs read and write."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

import edadm
from edadm.config.files.sources import locate
from edadm.config.load import ConfigError, load_config
from edadm.config.rules.places import find_inputs, mistakes_in_results


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder below another one, with a file and a home."""
    here = tmp_path / "above" / "here"
    here.mkdir(parents=True)
    (here / "file").touch()
    (here / "dead").symlink_to(here / "nothing")
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return here


@pytest.mark.parametrize(
    "results", ["results", "./results/", "../elsewhere", "a/b/c", "results 2", "/absent/results", "résultats"]
)
def test_folders_of_their_own_are_taken(results: str, place: Path) -> None:
    assert list(mistakes_in_results(results)) == []


@pytest.mark.parametrize(
    ("results", "sentence"),
    [
        ("", "no folder is named"),
        ("  ", "no folder is named"),
        ("/", "is a folder with other things in it"),
        (".", "is a folder with other things in it; name one of its own, for instance ./results"),
        ("..", "is a folder with other things in it"),
        ("../../home", "is a folder with other things in it"),
        ("~/results", "begins with '~'; write the folder's path in full"),
        ("-results", "begins with '-'"),
        ("a{b}", "has the character '{' in it"),
        ("a'b", 'has the character "\'" in it'),
        ("$HOME/x", "has the character '$' in it"),
        ("a\nb", "has the character '\\n' in it"),
        ("file", "file is no folder; remove it, or name another"),
        ("file/results", "file is no folder"),
        ("dead/results", "dead is no folder"),
        (str(Path(edadm.__file__).parent / "results"), "lies inside the installed package"),
    ],
)
def test_other_folders_are_refused(results: str, sentence: str, place: Path) -> None:
    (told,) = mistakes_in_results(results)
    assert told.startswith("results: ")
    assert sentence in told


def test_everything_that_is_absent_gets_a_line(place: Path) -> None:
    (place / "empty").mkdir()
    with (
        h5py.File(locate("bundled:cifar10_train_statistics", ".h5")) as whole,
        h5py.File("few.h5", "w") as few,
    ):
        few.attrs["facts"] = whole.attrs["facts"]
        whole.copy("pooled", few)
    (place / "prompts.txt").write_text("one\n\ntwo\n")
    text = {"kind": "text", "prompts": "absent.txt", "encoder": {"channels": 8, "heads": 1}}
    sizes = {"family": "transformer", "heads": 4, "context_channels": 8}
    models = {
        "a": {"checkpoint": "absent.ckpt"},
        "b": {"checkpoint": "empty"},
        "c": {"checkpoint": " "},
        "d": {"checkpoint": "file", "layout": "compvis", "architecture": sizes, "conditioning": text},
        "e": {"base": "cifar10_small"},
    }
    evaluations = {
        "real": {"images": 4, "reference": "empty", "resolution": 32},
        "kid": {"images": 4, "scores": ["kid"], "reference": "few.h5"},
        "clip": {"images": 3, "scores": ["clip_score"], "prompts": "prompts.txt", "clip_weights": "file"},
    }
    named = {"a": "quick", "b": "real", "c": "quick", "d": "clip", "e": "kid"}
    runs = [
        {"model": model, "variants": ["fp32"], "evaluation": evaluation}
        for model, evaluation in named.items()
    ]
    evaluations["clip"]["resolution"] = 32
    config = load_config({"models": models, "evaluations": evaluations, "runs": runs, "results": "file"})
    with pytest.raises(ConfigError) as caught:
        find_inputs(config)
    lines = str(caught.value).splitlines()
    beginnings = (
        f"results: {place}/file is no folder; remove it, or name another",
        "models.a.checkpoint: there is no file absent.ckpt; put it there, or use one of bundled:",
        "models.b.checkpoint: the folder empty holds no weights (.safetensors, .bin, .pt, .pth, .ckpt); name "
        "the file or folder that does",
        "models.c.checkpoint: no file is named; set this key to one",
        "models.d.conditioning.prompts: there is no file absent.txt",
        "evaluations.real: empty holds no images; put the reference images there as .png",
        "evaluations.clip: prompts.txt: line 2 is blank; write the prompt of its image there, or remove it",
        "evaluations.kid: kid needs features of single real images, and ",
    )
    assert len(lines) == len(beginnings), lines
    for line, beginning in zip(lines, beginnings, strict=True):
        assert line.startswith(beginning), line


def test_the_main_job_has_all_it_needs(place: Path) -> None:
    config = load_config({"runs": [{"model": "cifar10_small", "variants": ["fp32"]}]})
    found = find_inputs(config)
    assert {part: path.name for part, path in found.sources["cifar10_small"].items()} == {
        "unet": "cifar10_small.safetensors"
    }
    assert (found.prompts, found.scoring["quick"].extractor) == (
        {"cifar10_small": None},
        "cifar10_classifier",
    )


def test_a_part_with_a_file_of_its_own_needs_that_file(place: Path) -> None:
    def sources(vae: str) -> dict[str, Path]:
        model = {"base": "ldm4_bedroom", "checkpoint": "file", "autoencoder": {"checkpoint": vae}}
        small = {"base": "quick", "resolution": 32}
        run = {"model": "mine", "variants": ["fp32"], "evaluation": "small"}
        config = load_config({"models": {"mine": model}, "evaluations": {"small": small}, "runs": [run]})
        return find_inputs(config).sources["mine"]

    (place / "vae.safetensors").touch()
    (place / "empty").mkdir()
    assert sources("vae.safetensors") == {"unet": Path("file"), "autoencoder": Path("vae.safetensors")}
    with pytest.raises(
        ConfigError, match=r"models\.mine\.autoencoder\.checkpoint: there is no file absent\.pt"
    ):
        sources("absent.pt")
    with pytest.raises(
        ConfigError, match=r"models\.mine\.autoencoder\.checkpoint: the folder empty holds no weights"
    ):
        sources("empty")
    (place / "README.md").write_text("# A model\n\nMore to come.\n")
    with pytest.raises(
        ConfigError,
        match=r"models\.mine\.autoencoder\.checkpoint: README\.md is a text \('# A model More to come\.'\), "
        "and no checkpoint; name the file with the weights",
    ):
        sources("README.md")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"# A model\n", "is a text ('# A model'), and no checkpoint; name the file with the weights"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git-LFS pointer, which stands for the file"),
        (b"<!DOCTYPE html>", "is a web page (of a login, a licence or an error, most likely)"),
        (b"\x10\0\0\0\0\0\0\0{}", None),
        (b"PK\x03\x04", None),
        (b"\x80\x02}q\0.", None),
        (b'{"weight_map": {}}', None),
        (b"", None),  # stands for a file that is to come, where a run is only planned
    ],
)
def test_a_checkpoint_is_told_by_its_first_bytes(content: bytes, sentence: str | None, place: Path) -> None:
    (place / "model").write_bytes(content)
    run = {"model": "mine", "variants": ["fp32"]}
    config = load_config(
        {"models": {"mine": {"base": "cifar10_small", "checkpoint": "model"}}, "runs": [run]}
    )
    if sentence is None:
        assert find_inputs(config).sources["mine"] == {"unet": Path("model")}
        return
    with pytest.raises(ConfigError) as caught:
        find_inputs(config)
    assert str(caught.value).startswith(f"models.mine.checkpoint: model {sentence}")
