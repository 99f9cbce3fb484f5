"""Numbers beside how far chance moves them."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from scipy.stats import t

from edadm.config.files import scoring
from edadm.metrics import measure
from edadm.report.ablation import ablation_of, findings
from edadm.report.conditions import conditions
from edadm.report.page import write_page
from edadm.report.results import records
from edadm.report.results.intervals import difference, estimate
from edadm.report.results.read import read_run
from edadm.report.results.records import RunResult
from edadm.report.tables.export import metrics_csv, metrics_markdown
from edadm.report.tables.findings import finding
from edadm.report.tables.scores import floor_row, metric_rows
from tests.report.fakes import SCORES, VARIANTS, Fake

FULL, W8, W4, NONE = VARIANTS
SHARED = np.random.default_rng(0).standard_normal(256)  # what images of one noise have in common


def with_resamples(fake: Fake, own: float = 0.1, **scores: dict[str, float]) -> None:
    """Pseudo-values that variants share but for `own` of them; scores of some variants are others."""
    for index, name in enumerate(VARIANTS):
        path = fake.file(*name.split("/"), "metrics.json")
        metrics = json.loads(path.read_text()) | scores.get(name.replace("/", "_"), {})
        noise = np.random.default_rng(index + 1).standard_normal(256)
        resamples = {
            key: (metrics[key] + 4 * (SHARED + own * noise)).tolist()
            for key in ("fid", "psnr")
            if metrics[key] is not None
        }
        floor = {"fid": {"mean": 0.138, "spread": 0.017, "held_out": False}}
        path.write_text(json.dumps(metrics | {"resamples": resamples, "floor": floor}))


def read(fake: Fake) -> RunResult:
    return read_run(fake.results, fake.runs[0])


def test_intervals_of_differences_leave_out_what_images_share(fake: Fake) -> None:
    with_resamples(fake)
    full, eight, *_ = read(fake).variants
    own = estimate(eight, "fid")
    assert own is not None
    values = np.asarray(eight.resamples["fid"])
    assert own.half == pytest.approx(t.ppf(0.975, 255) * values.std(ddof=1) / 16)
    apart = difference(eight, full, "fid")
    assert apart is not None
    assert apart.half is not None
    assert apart.value == pytest.approx(SCORES[W8][0] - SCORES[FULL][0])
    assert 0.05 < apart.half < 0.1 < own.half
    assert not apart.is_zero
    assert difference(eight, full, "psnr") is None
    assert difference(eight, full, "sfid").half is None


def test_a_difference_whose_interval_holds_0_is_said_to_show_nothing(fake: Fake) -> None:
    with_resamples(fake, own=1.0)
    cells = {result.variant.name: cells for result, cells in metric_rows(read(fake))}
    assert cells[FULL][0].main == "24.31 ± 0.64"
    assert cells[W8][0].note.startswith("+0.18 ± 0.")
    assert cells[W8][0].note.endswith(", not distinguishable")
    assert cells[W4][0].note.startswith("+2.70 ± ")
    assert "not" not in cells[W4][0].note
    assert cells[W8][3].main.startswith("34.8 ± 0.")
    text = " ".join(conditions(read(fake)))
    assert "half the 95\u00a0% interval over images of other noise" in text
    assert "another seed of learning" in text


def test_variants_that_images_cannot_tell_apart_are_not_ranked(fake: Fake) -> None:
    with_resamples(fake, own=1.0, tdac_w4a8_fbr_w4={"psnr": 34.7})
    text = finding(read(fake))
    assert text.startswith(
        "W8A8 · TDAC + fbr_w8 (34.8 dB, FID not distinguishable) and W4A8 · TDAC + fbr_w4 (34.7 dB"
    )
    assert "stay nearest to full precision; their PSNR is not distinguishable; W4A8" in text


def test_selectors_that_images_cannot_tell_apart_have_no_best(fake: Fake) -> None:
    with_resamples(fake, own=1.0, uniform_w4a8_none={"psnr": 34.9})
    run = read(fake)
    rows = ablation_of(run).rows
    row = next(row for row in rows if "uniform" in row.cells)
    other = ablation_of(run).rows[0].cells["tdac"]
    joined = type(row)(row.bits, row.reconstruction, {"tdac": other, "uniform": row.cells["uniform"]})
    assert (joined.best, joined.nearest) == (None, ["tdac", "uniform"])
    table = type(ablation_of(run))(["tdac", "uniform"], [joined])
    assert findings(table) == [
        "w4a8, none: of 2 selectors tdac (34.8 dB), uniform (34.9 dB) stay nearest and are not distinguishable."
    ]


def test_the_floor_has_a_row_of_its_own(fake: Fake) -> None:
    assert floor_row(read(fake)) == []
    with_resamples(fake)
    run = read(fake)
    cells = {cell.column: cell for cell in floor_row(run)}
    assert (cells["FID"].main, cells["FID"].note) == ("0.14 ± 0.03", "Gaussian draws")
    assert cells["PSNR"].main == "–"
    assert "| as many real images | 0.14 ± 0.03 (Gaussian draws) | – |" in metrics_markdown([run])
    write_page(fake.results, fake.runs, fake.results / "index.html")
    page = (fake.results / "index.html").read_text()
    assert '<th scope="row" class="label">as many real images</th>' in page
    assert page.startswith("<!doctype html>")


def test_few_images_for_so_many_features_are_warned_of(fake: Fake) -> None:
    assert "Warning" not in " ".join(conditions(read(fake)))
    for name in VARIANTS:
        path = fake.file(*name.split("/"), "metrics.json")
        metrics = json.loads(path.read_text())
        metrics["conditions"]["images"] = 255
        path.write_text(json.dumps(metrics))
    assert "Warning: 255 images are fewer than twice the 128 features" in " ".join(conditions(read(fake)))


def test_intervals_stand_in_the_csv(fake: Fake) -> None:
    with_resamples(fake)
    rows = list(csv.DictReader(io.StringIO(metrics_csv([read(fake)]))))
    assert float(rows[0]["fid_interval"]) == pytest.approx(0.5, abs=0.06)
    assert rows[0]["fid_difference_interval"] == rows[0]["psnr_interval"] == ""
    assert 0.05 < float(rows[1]["fid_difference_interval"]) < 0.1


def test_every_paired_measure_has_a_function_and_a_column() -> None:
    assert set(measure.PAIRED) | scoring.PERCEPTUAL == set(records.PAIRED) == scoring.PAIRED
