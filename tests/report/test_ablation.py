"""The table of selection, reconstruction and bits."""

from __future__ import annotations

import csv
import dataclasses
import io
import re

import pytest

from edadm.config.layout import Variant
from edadm.report.ablation import (
    ablation_csv,
    ablation_figure,
    ablation_markdown,
    ablation_of,
    findings,
    is_ablation,
)
from edadm.report.page import write_page
from edadm.report.results.read import read_run
from edadm.report.results.records import RunResult

from .fakes import MODEL, PRESETS, Fake, write, write_variant
from .test_figures import texts

CELLS = {  # fid, psnr
    "tdac/w4a8/none": (61.0, 14.0),
    "uniform/w4a8/none": (60.0, 15.5),
    "tdac/w4a8/fbr_w4": (27.0, 22.0),
    "uniform/w4a8/fbr_w4": (28.0, 21.25),
    "tdac/w8a8/fbr_w8": (24.5, 35.0),
    "tdac/w8a8/none": (24.75, None),
}


@pytest.fixture
def run(fake: Fake) -> RunResult:
    """A run of six quantized variants."""
    run = read_run(fake.results, fake.runs[0])
    full, learned = run.variants[0], run.variants[1]
    made = [
        dataclasses.replace(
            learned, variant=Variant(name), label=name, scores=learned.scores | {"fid": fid, "psnr": psnr}
        )
        for name, (fid, psnr) in CELLS.items()
    ]
    return dataclasses.replace(run, variants=[full, *made])


def test_rows_are_grouped_by_bits_and_columns_are_selectors(run: RunResult) -> None:
    table = ablation_of(run)
    assert table.selections == ["tdac", "uniform"]
    assert [(row.bits, row.reconstruction) for row in table.rows] == [
        ("w4a8", "none"),
        ("w4a8", "fbr_w4"),
        ("w8a8", "fbr_w8"),
        ("w8a8", "none"),
    ]
    assert sorted(result.variant.name for _, _, result in table.variants) == sorted(CELLS)
    assert [row.best for row in table.rows] == ["uniform", "tdac", None, None]


def test_more_than_a_few_quantized_variants_make_an_ablation(run: RunResult) -> None:
    assert is_ablation(run)
    assert not is_ablation(dataclasses.replace(run, variants=run.variants[:5]))
    assert ablation_of(dataclasses.replace(run, variants=run.variants[:1])).rows == []


def test_csv_parses_back_to_the_numbers(run: RunResult) -> None:
    rows = list(csv.DictReader(io.StringIO(ablation_csv([run]))))
    found = {
        f"{row['selection']}/{row['bits']}/{row['reconstruction']}": (
            float(row["fid"]),
            float(row["psnr_db"]) if row["psnr_db"] else None,
        )
        for row in rows
    }
    assert found == CELLS
    assert {(row["model"], row["images"], row["extractor"]) for row in rows} == {
        (MODEL, "256", "cifar10_classifier")
    }


def test_markdown_is_a_table_with_empty_cells_where_nothing_was_run(run: RunResult) -> None:
    lines = ablation_markdown([run]).splitlines()
    assert lines[0] == f"## {MODEL}"
    assert "| Bits | Reconstruction | tdac | uniform |" in lines
    assert "| w4a8 | fbr_w4 | 22.0 dB · FID 27.00 | 21.2 dB · FID 28.00 |" in lines
    assert "| w8a8 | none | – · FID 24.75 | – |" in lines
    assert "256 images" in lines[2]


def test_scores_of_another_kind_say_so_or_leave_their_cells_empty(run: RunResult) -> None:
    inception = [
        dataclasses.replace(v, conditions=v.conditions | {"extractor": "inception"}) for v in run.variants
    ]
    assert "FID (torch-fidelity), over 256 images" in ablation_markdown(
        [dataclasses.replace(run, variants=inception)]
    )
    clip = [
        dataclasses.replace(v, scores=v.scores | {"fid": None}, conditions={"images": 256})
        for v in run.variants
    ]
    rows = list(csv.DictReader(io.StringIO(ablation_csv([dataclasses.replace(run, variants=clip)]))))
    assert {(row["fid"], row["extractor"], row["reference_set"]) for row in rows} == {("", "", "")}


def test_findings_compare_the_selectors_of_a_row(run: RunResult) -> None:
    assert findings(ablation_of(run)) == [
        "w4a8, none: of 2 selectors uniform stays nearest to full precision (15.5 dB), tdac least (14.0 dB).",
        "w4a8, fbr_w4: of 2 selectors tdac stays nearest to full precision (22.0 dB), uniform least (21.2 "
        "dB).",
    ]


def test_the_figure_has_every_cell_and_is_darker_where_psnr_is_higher(run: RunResult) -> None:
    svg = ablation_figure(ablation_of(run), "ablation")
    shown = texts(svg)
    assert {
        "tdac",
        "uniform",
        "w4a8 · none",
        "w8a8 · fbr_w8",
        "22.0 dB",
        "FID 27.00",
        "–",
        "FID 24.75",
    } <= set(shown)
    tints = [float(opacity) for opacity in re.findall(r"fill: var\(--first\); opacity: ([\d.]+)", svg)]
    # In the order of rows 15.5, 22.0, 21.25 and 35.0 dB, a half at the highest; the lowest (14.0) and the
    # unknown have no tint.
    assert tints == pytest.approx([0.0357, 0.1905, 0.1726, 0.5], abs=1e-3)
    assert svg.count("stroke: var(--second)") == 2


@pytest.mark.parametrize("psnr", [None, 20.0])
def test_equal_or_absent_scores_do_not_break_the_figure(run: RunResult, psnr: float | None) -> None:
    variants = [dataclasses.replace(result, scores=result.scores | {"psnr": psnr}) for result in run.variants]
    assert "FID 27.00" in texts(
        ablation_figure(ablation_of(dataclasses.replace(run, variants=variants)), "ablation")
    )


def test_the_page_of_a_large_run_shows_the_table_and_files_lie_beside_it(fake: Fake) -> None:
    images = read_run(fake.results, fake.runs[0]).variants[0].images
    more = [f"tdac_lambda{index}/w4a8/none" for index in range(3)]
    for name in more:
        write_variant(fake.file(name), "uniform/w4a8/none", images.repeat(2, axis=0)[:20])
        write(
            fake.file(name.split("/")[0], "selection.json"),
            {"counts": [8] * 8, "timesteps": list(range(8)), "curves": {}},
        )
    calibrations = PRESETS["calibrations"] | {name.split("/")[0]: {"selector": "tdac"} for name in more}
    large = fake.runs[0] | {
        "variants": fake.runs[0]["variants"] + more,
        "presets": PRESETS | {"calibrations": calibrations},
    }
    output = fake.results / "report" / "index.html"
    write_page(fake.results, fake.runs, output)
    assert "Bits, reconstruction and selection" not in output.read_text()
    assert len(output.with_name("ablation.csv").read_text().splitlines()) == 4
    write_page(fake.results, [large], output)
    html = output.read_text()
    assert "Bits, reconstruction and selection" in html
    assert "w4a8, none: of 4 selectors" in html
    assert all(f">{name.split('/')[0]}<" in html for name in more)
    assert len(output.with_name("ablation.csv").read_text().splitlines()) == 7
    assert "tdac_lambda2" in output.with_name("ablation.md").read_text()
