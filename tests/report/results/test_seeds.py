"""Several learnings of a variant in one row."""

from __future__ import annotations

import csv
import io
import json
import shutil

import numpy as np
import pytest
from scipy.stats import t

from edadm.report.conditions import conditions
from edadm.report.page import write_page
from edadm.report.results.intervals import difference, estimate
from edadm.report.results.read import read_run
from edadm.report.results.records import RunResult
from edadm.report.tables.export import metrics_csv
from edadm.report.tables.scores import metric_rows
from tests.report.fakes import VARIANTS, Fake

FULL, W8, W4, NONE = VARIANTS
DECIBELS = [22.4567, 23.5, 24.1]


@pytest.fixture
def run(fake: Fake) -> RunResult:
    """Three seeds of W4A8, each with pseudo-values of its own."""
    names = [W4, f"{W4}@2", f"{W4}@3"]
    for seed, (name, decibel) in enumerate(zip(names, DECIBELS, strict=True)):
        folder = fake.file(*name.split("/"))
        if seed:
            shutil.copytree(fake.file(*W4.split("/")), folder)
        metrics = json.loads((folder / "metrics.json").read_text()) | {"psnr": decibel}
        values = decibel + np.random.default_rng(seed).standard_normal(256)
        (folder / "metrics.json").write_text(json.dumps(metrics | {"resamples": {"psnr": values.tolist()}}))
    fake.runs[0] = fake.runs[0] | {"variants": [*VARIANTS, *names[1:]], "seeds": 3}
    return read_run(fake.results, fake.runs[0])


def test_seeds_are_one_row_with_their_mean_and_spread(run: RunResult) -> None:
    assert [result.variant.name for result in run.variants] == VARIANTS
    result = run.variants[2]
    assert result.label == "W4A8 · TDAC + fbr_w4, 3 seeds"
    assert (result.seeds, run.variants[1].seeds) == (3, 1)
    assert result.scores["psnr"] == pytest.approx(np.mean(DECIBELS))
    assert result.seed_spreads["psnr"] == pytest.approx(np.std(DECIBELS, ddof=1))
    assert result.seed_spreads["fid"] == 0
    cell = next(cell for cell in metric_rows(run)[2][1] if cell.column == "PSNR")
    assert cell.main.startswith("23.4 ± 2.1 dB")
    assert cell.note.startswith("seeds σ 0.8")
    assert "σ is the standard deviation of one of them" in " ".join(conditions(run))


def test_intervals_are_over_images_and_over_seeds(run: RunResult) -> None:
    result = run.variants[2]
    values = np.mean([one.resamples["psnr"] for one in result.learnings], axis=0)
    images = t.ppf(0.975, 255) * values.std(ddof=1) / 16
    seeds = t.ppf(0.975, 2) * np.std(DECIBELS, ddof=1) / 3**0.5
    found = estimate(result, "psnr")
    assert found is not None
    assert found.half == pytest.approx(np.hypot(images, seeds))
    apart = difference(result, result, "psnr")
    assert apart is not None
    assert apart.half == pytest.approx(2**0.5 * seeds)


def test_seeds_stand_in_the_csv_and_on_the_page(run: RunResult, fake: Fake) -> None:
    rows = list(csv.DictReader(io.StringIO(metrics_csv([run]))))
    assert [row["seeds"] for row in rows] == ["1", "1", "3", "1"]
    assert float(rows[2]["psnr_seed_spread"]) == pytest.approx(np.std(DECIBELS, ddof=1))
    assert rows[1]["psnr_seed_spread"] == ""
    write_page(fake.results, fake.runs, fake.results / "index.html")
    page = (fake.results / "index.html").read_text()
    assert "W4A8 · TDAC + fbr_w4, 3 seeds" in page
    assert "@2" not in page
