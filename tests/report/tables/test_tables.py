"""Numbers and sentences."""

from __future__ import annotations

import csv
import io

import pytest

from edadm.report.conditions import conditions
from edadm.report.results.read import read_run
from edadm.report.results.records import RunResult, UnitErrors
from edadm.report.tables.export import metrics_csv, metrics_markdown
from edadm.report.tables.findings import finding, reconstruction_summary
from edadm.report.tables.rows import settings_rows, size_rows
from edadm.report.tables.scores import metric_rows
from edadm.report.tables.words import duration
from tests.report.fakes import SCORES, VARIANTS, Fake, add_integers, write, write_speed


def test_csv_parses_back_to_the_numbers(fake: Fake):
    text = metrics_csv([read_run(fake.results, fake.runs[0])])
    rows = {row["variant"]: row for row in csv.DictReader(io.StringIO(text))}
    assert list(rows) == VARIANTS
    for name, (fid, sfid, inception, psnr, size, seconds) in SCORES.items():
        row = rows[name]
        assert [float(row[key]) for key in ("fid", "sfid", "inception_score", "seconds_per_step")] == [
            fid,
            sfid,
            inception,
            seconds,
        ]
        assert row["psnr_db"] == ("" if psnr is None else str(psnr))
        assert (int(row["bytes"]), int(row["images"])) == (size, 256)
        assert float(row["speed"]) == pytest.approx(0.4001 / seconds)


def test_unmeasured_speed_is_empty_in_csv_and_its_columns_leave_the_table(fake: Fake):
    fake.file("speed.json").unlink()
    run = read_run(fake.results, fake.runs[0])
    row = next(csv.DictReader(io.StringIO(metrics_csv([run]))))
    assert row["bytes"] == row["speed"] == row["device"] == ""
    assert [cell.column for cell in metric_rows(run)[0][1]] == ["FID", "sFID", "IS", "PSNR"]
    assert "simulated" not in " ".join(conditions(run))
    assert size_rows(run) == []


def test_speed_with_integers_is_noted_where_no_row_has_it(fake: Fake):
    write_speed(fake.file(), VARIANTS, integer=0.2)
    run = read_run(fake.results, fake.runs[0])
    full, quantized = (row[1][-1] for row in metric_rows(run)[:2])
    assert (full.column, full.main) == ("Speed", "1.00×")
    assert quantized.main == f"{0.4001 / SCORES[VARIANTS[1]][5]:.2f}×"
    assert quantized.note.endswith(", integers 2.00×")
    rows = list(csv.DictReader(io.StringIO(metrics_csv([run]))))
    assert [row["integer_speed"] for row in rows] == ["", *[str(0.4001 / 0.2)] * (len(rows) - 1)]
    text = " ".join(conditions(run))
    assert "by up to 0.4% of its standard deviation on average, and 10% at most" in text
    assert "bf16 weights has speed 4.00 there" in text


def test_images_made_with_integers_have_a_row_of_their_own(fake: Fake):
    name = "tdac/w4a8/fbr_w4"
    wanted = add_integers(fake, name)
    write_speed(fake.file(), VARIANTS, integer=0.2)
    run = read_run(fake.results, wanted)
    cells = {result.variant.name: {cell.column: cell for cell in cells} for result, cells in metric_rows(run)}
    own, other = cells[f"{name}/integer"], cells[name]
    assert (own["FID"].main, own["FID"].note) == ("27.51", "+3.20")
    assert (own["PSNR"].main, own["PSNR"].note) == ("22.5 dB", "44.6 dB to simulated")
    assert own["Size"] == other["Size"]
    assert (own["Speed"].main, own["Speed"].note) == ("2.00×", "200 ms, 100–800 ms")
    assert "integers" not in other["Speed"].note
    assert "integers 2.00×" in cells["tdac/w8a8/fbr_w8"]["Speed"].note
    assert "grey levels: 1.25 against 3.50 (W4A8 · TDAC + fbr_w4, integers)." in " ".join(conditions(run))
    assert len(size_rows(run)) == len(VARIANTS)
    record = list(csv.DictReader(io.StringIO(metrics_csv([run]))))[-1]
    assert (record["variant"], record["psnr_to_simulated_db"]) == (f"{name}/integer", "44.56")


def test_without_integers_nothing_is_said_of_them(fake: Fake):
    assert "made with integers" not in " ".join(conditions(read_run(fake.results, fake.runs[0])))


def test_one_unmeasured_variant_has_empty_cells(fake: Fake):
    write_speed(fake.file(), ["fp32", "tdac/w4a8/fbr_w4"])
    cells = metric_rows(read_run(fake.results, fake.runs[0]))[1][1]
    assert [cell.main for cell in cells] == ["24.50", "31.51", "7.41", "34.8 dB", "–", "–"]


def test_without_full_precision_nothing_is_relative(fake: Fake):
    names = ["tdac/w8a8/fbr_w8", "tdac/w4a8/fbr_w4"]
    write_speed(fake.file(), names)
    run = read_run(fake.results, fake.runs[0] | {"variants": names})
    cells = metric_rows(run)[0][1]
    assert [cell.main for cell in cells] == ["24.50", "31.51", "7.41", "34.8 dB", "3.53 MB", "615 ms"]
    assert [cell.note for cell in cells] == ["", "", "", "", "", "300–900 ms"]
    assert finding(run) == "W8A8 · TDAC + fbr_w8 stays nearest to full precision (34.8 dB)."
    assert [row["share"] for row in size_rows(run)] == ["100.00", "53.26"]


def test_markdown_has_a_line_per_variant_and_the_conditions(fake: Fake):
    text = metrics_markdown([read_run(fake.results, fake.runs[0])])
    lines = text.splitlines()
    assert "| Variant | FID | sFID | IS | PSNR | Size | Speed |" in lines
    assert (
        "| full precision (`fp32`) | 24.31 | 31.27 | 7.42 | – | 13.41 MB | 1.00× (400 ms, 300–900 ms) |"
        in lines
    )
    assert any(
        line.startswith(
            "| W4A8 · TDAC + fbr_w4 (`tdac/w4a8/fbr_w4`) | 27.01 (+2.70) | 34.88 (+3.61) | 7.15 (−0.27) |"
        )
        for line in lines
    )
    assert "Every row scores 256 images" in text


def test_conditions_name_what_the_numbers_hold_under(fake: Fake):
    text = " ".join(conditions(read_run(fake.results, fake.runs[0])))
    for part in (
        "256 images",
        "seed 7",
        "cifar10_classifier",
        "50,000 images",
        "cifar10_train",
        "1a2b3c4d…",
        "1 split.",
        "Inception",
    ):
        assert part in text
    assert "simulated in floating point" in text
    assert "cpu, batch of 32, 2 threads" in text


def rescored(fake: Fake, scores: dict, conditions: dict) -> RunResult:
    """The run with other scores and conditions of all variants."""
    for name in VARIANTS:
        write(
            fake.file(*name.split("/"), "metrics.json"),
            {"psnr": None} | scores | {"conditions": {"images": 256} | conditions},
        )
    return read_run(fake.results, fake.runs[0])


INCEPTION = {
    "extractor": "pytorch_fid",
    "extractor_sha256": "6726825d" + "0" * 56,
    "preparation": "centre crop to a square, bicubic to 300 px",
    "reference_set": "coco_val2014",
    "reference_images": None,
    "reference_sha256": "9f" * 32,
    "reference_preparation": "not stated",
}
CLIP = {"clip_model": "ViT-L-14-quickgelu", "clip_sha256": "ab" * 32, "prompts_sha256": "cd" * 32}


def test_columns_are_those_of_computed_scores_and_name_the_network(fake: Fake):
    run = rescored(fake, {"fid": 13.3, "clip_score": 30.641}, INCEPTION | CLIP)
    (_, cells), *_ = metric_rows(run)
    assert [(cell.column, cell.main) for cell in cells[:2]] == [
        ("FID (pytorch-fid)", "13.30"),
        ("CLIP score", "30.64"),
    ]
    assert not {"IS", "IS (pytorch-fid)", "sFID (pytorch-fid)", "KID"} & {cell.column for cell in cells}
    text = " ".join(conditions(run))
    for part in (
        "“pytorch_fid” (SHA256\u00a06726825d…)",
        "an unstated number of images",
        "bicubic to 300 px; the real ones: not stated",
    ):
        assert part in text
    assert "ViT-L-14-quickgelu (SHA256\u00a0abababab…; prompts cdcdcdcd…)" in text
    assert "do not compare with published" not in text
    assert "split" not in text
    record = next(csv.DictReader(io.StringIO(metrics_csv([run]))))
    assert (record["extractor"], record["clip_score"], record["sfid"], record["kid"]) == (
        "pytorch_fid",
        "30.641",
        "",
        "",
    )
    assert record["clip_sha256"] == "ab" * 32


def test_the_stand_in_is_named_in_its_column(fake: Fake):
    run = rescored(
        fake, {"fid": 1.0}, INCEPTION | {"extractor": "cifar10_classifier", "instead_of": "inception"}
    )
    assert metric_rows(run)[0][1][0].column == "FID (bundled classifier)"
    assert "The weights of “inception” were absent; the bundled classifier stood in" in " ".join(
        conditions(run)
    )
    assert "do not compare with published" in " ".join(conditions(run))


def test_a_clip_score_alone_says_nothing_of_features(fake: Fake):
    text = " ".join(conditions(rescored(fake, {"clip_score": 30.0}, CLIP)))
    assert "CLIP score is 100 times the mean cosine" in text
    assert "FID" not in text


def test_kid_precision_and_recall_have_digits_enough(fake: Fake):
    scores = {"kid": 0.00123, "precision": 0.6466, "recall": 0.4761}
    run = rescored(fake, scores, INCEPTION | {"extractor": "inception", "reference_features": 10_000})
    cells = {cell.column: cell.main for cell in metric_rows(run)[0][1]}
    assert cells["KID (torch-fidelity)"] == "0.00123"
    assert cells["Precision (torch-fidelity)"] == "0.647"
    assert "KID, precision and recall compare with 10,000 of them." in " ".join(conditions(run))


def test_spreads_stand_in_the_csv(fake: Fake):
    scores = {"kid": 0.00123, "kid_spread": 0.00045, "inception_score": 9.5, "inception_score_spread": 0.125}
    run = rescored(
        fake,
        scores,
        INCEPTION | {"extractor": "inception", "reference_features": 10_000, "inception_score_splits": 10},
    )
    cells = {cell.column: cell.main for cell in metric_rows(run)[0][1]}
    assert (cells["KID (torch-fidelity)"], cells["IS (torch-fidelity)"]) == ("0.00123", "9.50")
    record = next(csv.DictReader(io.StringIO(metrics_csv([run]))))
    assert (record["kid_spread"], record["inception_score_spread"]) == ("0.00045", "0.125")


def test_finding_names_the_nearest_and_the_better_of_equally_small_files(fake: Fake):
    text = finding(read_run(fake.results, fake.runs[0]))
    assert text.startswith("W8A8 · TDAC + fbr_w8 stays nearest to full precision (34.8 dB, FID +0.18)")
    assert "; W4A8 · TDAC + fbr_w4 has the smallest file, 7.1 times smaller (22.5 dB, FID +2.70)." in text


def test_finding_when_one_variant_is_both(fake: Fake):
    text = finding(read_run(fake.results, fake.runs[0] | {"variants": ["fp32", "tdac/w4a8/fbr_w4"]}))
    assert text.endswith("and has the smallest file, 7.1 times smaller than the float one.")
    assert finding(read_run(fake.results, fake.runs[0] | {"variants": ["fp32"]})) == ""


def test_reconstruction_summary(fake: Fake):
    units = read_run(fake.results, fake.runs[0]).variants[1].units
    text = reconstruction_summary(units)
    # Ratios are 0.275, 0.25, 1.25 and 0.4, flipped shares 5, 8, 2 and 11 %, after over soft 1.1, 1.026, 1.136
    # and 1.2.
    assert (
        "Over 4 units learning multiplied the error by 0.34 (median), at best by 0.25 in "
        "down_blocks.0.resnets.0." in text
    )
    assert "It grew in 1 of them: mid_block.attentions.0 (×1.25)." in text
    assert "6.5% of the weights" in text
    assert "+11.8%" in text
    assert "moved by 2.5%" in text


def test_reconstruction_summary_names_only_the_worst():
    units = [UnitErrors(f"unit{index}", 1.0, 1.0, 1.1 + index, 0.1, 0.0) for index in range(9)]
    text = reconstruction_summary(units)
    assert "It grew in 9 of them, most: unit8 (×9.10), unit7" in text
    assert "unit3" not in text
    assert "It grew in none." in reconstruction_summary([UnitErrors("a", 2.0, 1.0, 1.0, 0.1, 0.0)])


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, "–"),
        (3.24, "3.2 s"),
        (59.96, "1 min 00 s"),
        (252.0, "4 min 12 s"),
        (3599.7, "1 h 00 min"),
        (3780.0, "1 h 03 min"),
    ],
)
def test_durations(seconds: float | None, words: str):
    assert duration(seconds) == words


def test_settings_are_flat_and_readable():
    preset = {
        "lambda_": 1.2,
        "sampler": {"steps": 20},
        "multipliers": [1, 2],
        "split": True,
        "bins": None,
        "layers": {},
    }
    assert dict(settings_rows(preset)) == {
        "lambda": "1.2",
        "sampler.steps": "20",
        "multipliers": "1, 2",
        "split": "yes",
        "bins": "none",
        "layers": "none",
    }
