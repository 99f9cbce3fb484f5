"""What a changed setting or changed code makes Snakemake run again; dry runs after the reference run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edadm.artifacts import save_tensors

from .toy import Toy, copy_package

pytestmark = pytest.mark.workflow

AFTER_GENERATE = {"evaluate": 1, "report": 1}
AFTER_RECONSTRUCT = {"generate": 1, **AFTER_GENERATE, "benchmark": 1}
AFTER_SELECT = {"set_ranges": 1, "reconstruct": 1, **AFTER_RECONSTRUCT}


def setting(**kinds: Any) -> tuple[str, ...]:
    """Options that change presets."""
    return ("--config", *(f"{kind}={json.dumps(presets)}" for kind, presets in kinds.items()))


@pytest.mark.parametrize(
    ("options", "planned"),
    [
        pytest.param((), {}, id="nothing"),
        pytest.param(setting(memory={"device": 20, "host": 24.5}), {}, id="memory"),
        pytest.param(
            setting(models={"toy": {"trajectories": {"seed": 1}}}),
            {"collect_trajectories": 2, "select_calibration": 1, **AFTER_SELECT},
            id="trajectory seed",
        ),
        pytest.param(
            setting(calibrations={"tdac": {"lambda": 0.5}}),
            {"select_calibration": 1, **AFTER_SELECT},
            id="lambda",
        ),
        pytest.param(
            setting(reconstructions={"fbr": {"iterations": 7}}),
            {"reconstruct": 1, **AFTER_RECONSTRUCT},
            id="iterations",
        ),
        pytest.param(
            setting(evaluations={"few": {"scores": ["fid"]}}), {"evaluate": 2, "report": 1}, id="scores"
        ),
        pytest.param(
            setting(evaluations={"few": {"reference": "pictures", "resolution": 32}}),
            {"reference_statistics": 1, "evaluate": 2, "report": 1},
            id="a folder of real images",
        ),
        pytest.param(
            setting(evaluations={"few": {"seed": 1}}),
            {"generate": 2, "evaluate": 2, "report": 1},
            id="evaluation seed",
        ),
        pytest.param(
            setting(
                runs=[
                    {
                        "model": "toy",
                        "variants": ["fp32", "tdac/w4a8/fbr", "tdac/w4a8/none"],
                        "evaluation": "few",
                    }
                ],
                reconstructions={"none": {"method": "none"}},
            ),
            {"reconstruct": 1, **AFTER_RECONSTRUCT},
            id="another variant",
        ),
        pytest.param(
            setting(
                runs=[
                    {"model": "toy", "variants": ["fp32", "tdac/w4a8/fbr"], "evaluation": "few", "seeds": 2}
                ]
            ),
            {"reconstruct": 1, "generate": 1, **AFTER_GENERATE},
            id="another seed of learning",
        ),
        pytest.param(
            setting(
                runs=[
                    {
                        "model": "toy",
                        "variants": ["fp32", "tdac/w4a8/fbr", "tdac/w4a8/fbr/integer"],
                        "evaluation": "few",
                    }
                ]
            ),
            {"generate": 1, **AFTER_GENERATE},
            id="the same with integers",
        ),
    ],
)
def test_a_setting_reruns_what_it_touches(reference: Toy, options: tuple[str, ...], planned: dict[str, int]):
    (reference.folder / "pictures").mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        Image.new("RGB", (32, 32)).save(reference.folder / "pictures" / name)
    assert reference.planned(*options) == planned


def test_a_checkpoint_counts_by_what_it_holds(reference: Toy) -> None:
    moved = setting(models={"toy": {"checkpoint": "elsewhere/other.safetensors"}})
    (reference.folder / "elsewhere").mkdir()
    shutil.copy(reference.folder / "toy.safetensors", reference.folder / "elsewhere/other.safetensors")
    assert reference.planned(*moved) == {}
    weights = load_file(reference.folder / "toy.safetensors")
    save_file(
        {name: tensor + 1 for name, tensor in weights.items()},
        reference.folder / "elsewhere/other.safetensors",
    )
    assert reference.planned(*moved)["convert_checkpoint"] == 1


@pytest.mark.long
def test_a_real_image_counts_by_what_it_holds(reference: Toy, tmp_path: Path) -> None:
    toy = reference.at(Path(shutil.copytree(reference.folder, tmp_path / "toy")))
    (pictures := toy.folder / "real").mkdir()
    for shade in range(4):
        Image.new("RGB", (32, 32), (60 * shade,) * 3).save(pictures / f"{shade}.bmp")
    real = setting(evaluations={"few": {"reference": "real", "resolution": 32}})
    status, said = toy.run(*real)
    assert status == 0, said
    assert toy.planned(*real) == {}
    before = (pictures / "2.bmp").stat()
    Image.new("RGB", (32, 32), (1, 2, 3)).save(tmp_path / "other.bmp")
    os.replace(tmp_path / "other.bmp", pictures / "2.bmp")
    os.utime(pictures / "2.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (pictures / "2.bmp").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert toy.planned(*real) == {"reference_statistics": 1, "evaluate": 2, "report": 1}


def test_the_bundled_classifier_counts_by_what_it_holds(reference: Toy, tmp_path: Path) -> None:
    package = copy_package(tmp_path / "package", reference.package)
    bundled = package / "edadm/bundled"
    originals = bundled.resolve()
    bundled.unlink()
    shutil.copytree(originals, bundled)
    assert reference.planned(package=package) == {}  # where it lies is nothing to them
    classifier = bundled / "cifar10_classifier.safetensors"
    classifier.write_bytes(classifier.read_bytes()[:-1] + b"x")
    assert reference.planned(package=package) == {"evaluate": 2, "report": 1}


def append(file: Path, text: str) -> None:
    """Adds to a source file."""
    file.write_text(f"{file.read_text()}\n{text}\n")


def reword(file: Path, old: str, new: str) -> None:
    """Says something else in a source file."""
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def change_tdac(package: Path) -> None:
    """Changes the code of a selector."""
    append(package / "edadm/calibration/tdac.py", "EXTRA = 1")


def change_a_kernel(package: Path) -> None:
    """Changes code that only GPUs run."""
    for name in ("learning/rows", "int8/products/gemm"):
        append(package / f"edadm/kernels/{name}.py", "EXTRA = 1")


def change_nothing_that_counts(package: Path) -> None:
    """Changes code outside the workflow, and a comment inside."""
    append(package / "edadm/training/diffusion.py", "EXTRA = 1")
    append(package / "edadm/calibration/tdac.py", "# a remark")
    append(package / "edadm/learning/engine.py", "# a remark")
    change_a_kernel(package)  # of GPUs, and this processor made all there is
    reword(package / "edadm/networks/convert.py", "the preset's model has no", "this model is without")
    reword(
        package / "edadm/config/schema/quantization.py", "Adam steps per unit", "steps of Adam for each unit"
    )


@pytest.mark.parametrize(
    ("change", "planned"),
    [(change_tdac, {"select_calibration": 1, **AFTER_SELECT}), (change_nothing_that_counts, {})],
)
def test_code_reruns_the_stages_that_import_it(
    reference: Toy, tmp_path: Path, change: Callable[[Path], None], planned: dict[str, int]
):
    package = copy_package(tmp_path / "package", reference.package)
    change(package)
    assert reference.planned(package=package) == planned


def made_on_a_gpu(file: Path) -> None:
    """Writes into a file of tensors that a GPU made it, at the time at which it was made."""
    times = os.stat(file)
    with safe_open(file, "pt") as opened:
        said = json.loads(opened.metadata()["edadm"])
    said = {name: value for name, value in said.items() if name not in ("content", "sha256")}
    save_tensors(file, load_file(file), said | {"device": "cuda (NVIDIA H100)"})
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_code_of_gpus_reruns_what_a_gpu_made(reference: Toy, tmp_path: Path) -> None:
    folder = shutil.copytree(reference.folder, tmp_path / "toy", symlinks=True)
    made_on_a_gpu(folder / "results/toy/tdac/w4a8/ranges.safetensors")
    package = copy_package(tmp_path / "package", reference.package)
    change_a_kernel(package)
    assert reference.at(folder).planned(package=package) == {
        "set_ranges": 1,
        "reconstruct": 1,
        **AFTER_RECONSTRUCT,
    }


@pytest.mark.parametrize("profile", ["gpu", pytest.param("slurm", marks=pytest.mark.long)])
def test_another_profile_reruns_nothing(reference: Toy, profile: str) -> None:
    assert reference.planned("--workflow-profile", f"workflow/profiles/{profile}") == {}
