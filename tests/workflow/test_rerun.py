"""What a changed setting or changed code makes Snakemake run again; dry runs after the reference run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
        pytest.param(setting(calibrations={"tdac": {"lambda": 0.5}}), {"select_calibration": 1, **AFTER_SELECT}, id="lambda"),
        pytest.param(setting(reconstructions={"fbr": {"iterations": 7}}), {"reconstruct": 1, **AFTER_RECONSTRUCT}, id="iterations"),
        pytest.param(setting(evaluations={"few": {"scores": ["fid"]}}), {"evaluate": 2, "report": 1}, id="scores"),
        pytest.param(
            setting(evaluations={"few": {"reference": "workflow", "resolution": 32}}),
            {"reference_statistics": 1, "evaluate": 2, "report": 1},
            id="a folder of real images",
        ),
        pytest.param(setting(evaluations={"few": {"seed": 1}}), {"generate": 2, "evaluate": 2, "report": 1}, id="evaluation seed"),
        pytest.param(
            setting(
                runs=[{"model": "toy", "variants": ["fp32", "tdac/w4a8/fbr", "tdac/w4a8/none"], "evaluation": "few"}],
                reconstructions={"none": {"method": "none"}},
            ),
            {"reconstruct": 1, **AFTER_RECONSTRUCT},
            id="another variant",
        ),
        pytest.param(
            setting(runs=[{"model": "toy", "variants": ["fp32", "tdac/w4a8/fbr", "tdac/w4a8/fbr/integer"], "evaluation": "few"}]),
            {"generate": 1, **AFTER_GENERATE},
            id="the same with integers",
        ),
    ],
)
def test_a_setting_reruns_what_it_touches(reference: Toy, options: tuple[str, ...], planned: dict[str, int]):
    assert reference.planned(*options) == planned


def append(file: Path, text: str) -> None:
    """Adds to a source file."""
    file.write_text(f"{file.read_text()}\n{text}\n")


def change_tdac(package: Path) -> None:
    """Changes the code of a selector."""
    append(package / "edadm/calibration/tdac.py", "EXTRA = 1")


def change_nothing_that_counts(package: Path) -> None:
    """Changes code outside the workflow, and a comment inside."""
    append(package / "edadm/training/diffusion.py", "EXTRA = 1")
    append(package / "edadm/calibration/tdac.py", "# a remark")
    append(package / "edadm/reconstruction/engine.py", "# a remark")


@pytest.mark.parametrize(
    ("change", "planned"), [(change_tdac, {"select_calibration": 1, **AFTER_SELECT}), (change_nothing_that_counts, {})]
)
def test_code_reruns_the_stages_that_import_it(reference: Toy, tmp_path: Path, change: Callable[[Path], None], planned: dict[str, int]):
    package = copy_package(tmp_path / "package", reference.package)
    change(package)
    assert reference.planned(package=package) == planned
