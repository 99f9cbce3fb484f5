"""Images of anyone are scored, and compared with others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edadm.config.files.scoring import scoring
from edadm.config.schema import Evaluation
from edadm.errors import EdadmError
from edadm.metrics.images.opening import open_images
from edadm.metrics.scores.psnr import psnr
from edadm.stages.evaluate import reference_statistics, run
from edadm.stages.inputs.scored import Images
from tests.metrics.drawn import random_images
from tests.metrics.images.kinds import in_folder, in_zip, named

CPU = torch.device("cpu")
ONE, OTHER = random_images(24), random_images(24, 1)
SETTINGS = Evaluation(scores=("fid", "kid", "ssim"))


def scored(images: Images, output: Path, against: Path | None = None, **changed: Any) -> dict[str, Any]:
    settings = SETTINGS.model_copy(update=changed)
    run(images, settings, scoring(settings, against=against), output, CPU, "evaluate")
    return json.loads(output.read_text())


def test_two_sets_are_compared_as_sets_and_image_by_image(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = in_folder(tmp_path / "one", named(ONE))
    other = in_zip(tmp_path / "other.zip", named(OTHER, ""))
    found = scored(Images([one]), tmp_path / "a.json", other)
    assert found["psnr"] == pytest.approx(psnr(ONE, OTHER).mean().item(), rel=1e-5)
    assert set(found) > {"fid", "kid", "ssim"}
    assert found["conditions"]["reference_set"] == "other.zip"
    assert found["conditions"]["reference_images"] == 24
    said = capfd.readouterr().err
    assert f"against: 24 images of 32 x 32 in {other}, in the order of their names, paired by name" in said
    assert f"scored: 24 images of 32 x 32 in {one}, in the order of their names" in said
    same = scored(Images([one]), tmp_path / "b.json", one)
    assert abs(same["fid"]) < 1e-3 < found["fid"]
    fewer = in_zip(tmp_path / "fewer.zip", named(OTHER[:20], ""))
    found = scored(Images([one]), tmp_path / "c.json", fewer)
    assert found["psnr"] is None
    assert found["fid"] > 0
    assert "not paired, since there are 24 and 20" in capfd.readouterr().err


def test_scores_do_not_depend_on_what_holds_the_images(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", ONE.numpy())
    np.savez(tmp_path / "other.npz", OTHER.permute(0, 2, 3, 1).numpy(), np.arange(24))
    told = {"scores": ("fid",)}
    first = scored(
        Images([tmp_path / "one.npy"], [tmp_path / "other.npz"]), tmp_path / "a.json", None, **told
    )
    folders = [in_folder(tmp_path / name, named(of)) for name, of in (("one", ONE), ("other", OTHER))]
    second = scored(Images(folders[:1], folders[1:]), tmp_path / "b.json", None, **told)
    assert {**first, "edadm": None} == {**second, "edadm": None}
    assert first["edadm"]["made_from"]["inputs"] != second["edadm"]["made_from"]["inputs"]


def test_full_precision_must_belong_to_the_images(tmp_path: Path) -> None:
    one = in_folder(tmp_path / "one", named(ONE))
    other = in_folder(tmp_path / "other", named(OTHER[1:]))
    with pytest.raises(
        EdadmError, match=r"cannot be compared image by image: not paired, since there are 24"
    ):
        scored(Images([one], [other]), tmp_path / "a.json", scores=("ssim",))
    assert not (tmp_path / "a.json").exists()


def test_a_changed_image_of_one_size_makes_other_statistics(tmp_path: Path) -> None:
    folder = in_folder(tmp_path / "real", {f"{index}.npy": b"" for index in range(2)})
    made = tmp_path / "real.h5"
    told = ("noise", "cifar10_classifier", None, None, "square", 4, made, CPU, "reference-statistics")
    np.save(folder / "0.npy", ONE.numpy())
    reference_statistics(folder / "0.npy", *told)
    before = made.read_bytes()
    np.save(folder / "0.npy", OTHER.numpy())
    reference_statistics(folder / "0.npy", *told)
    assert made.read_bytes() != before
    assert open_images([folder / "0.npy"], None).size == (32, 32)
