"""Reading artifacts: what is required, what is optional, and sentences that name the fix."""

from __future__ import annotations

import json

import numpy as np
import pytest

from edadm.artifacts import as_json, facts
from edadm.artifacts.digest import rows_digest
from edadm.artifacts.metadata import remember
from edadm.config.layout import Variant
from edadm.errors import EdadmError
from edadm.report.results.files import SHOWN_IMAGES
from edadm.report.results.read import read_run, variant_label
from edadm.report.results.records import UnitErrors
from tests.report.fakes import PRESETS, SCORES, VARIANTS, Fake, add_integers, write, write_speed


def test_full_precision_comes_first(fake: Fake):
    run = fake.runs[0] | {"variants": ["tdac/w4a8/fbr_w4", "fp32", "tdac/w8a8/fbr_w8"]}
    assert [result.variant.name for result in read_run(fake.results, run).variants] == [
        "fp32",
        "tdac/w4a8/fbr_w4",
        "tdac/w8a8/fbr_w8",
    ]


def test_a_checkpoint_stands_once_for_simulation_and_integers(fake: Fake):
    run = add_integers(fake, "tdac/w4a8/fbr_w4")
    both = read_run(fake.results, run)
    assert [result.variant.name for result in both.checkpoints] == [
        "tdac/w8a8/fbr_w8",
        "tdac/w4a8/fbr_w4",
        "uniform/w4a8/none",
    ]
    alone = read_run(fake.results, run | {"variants": ["fp32", "tdac/w4a8/fbr_w4/integer"]})
    assert [(result.label, len(result.units)) for result in alone.checkpoints] == [
        ("W4A8 · TDAC + fbr_w4, integers", 4)
    ]


def test_a_registered_backend_has_a_row_and_a_speed_of_its_own(fake: Fake, toy_backend: str):
    name = "tdac/w4a8/fbr_w4"
    (fake.file(*name.split("/")) / toy_backend).mkdir()
    run = add_integers(fake, name)
    for part in (fake.file(*name.split("/")) / "integer").iterdir():
        part.rename(part.parents[1] / toy_backend / part.name)
    write_speed(fake.file(), VARIANTS, integer=0.2)
    speed = json.loads(fake.file("speed.json").read_text())
    speed["variants"][name][toy_backend] = speed["variants"][name].pop("integer") | {
        "resolved_backend": "toy"
    }
    write(fake.file("speed.json"), speed)
    found = read_run(fake.results, run | {"variants": ["fp32", name, f"{name}/{toy_backend}"]})
    of_toy = found.variants[2]
    assert of_toy.label == "W4A8 · TDAC + fbr_w4, by a toy"
    assert of_toy.speed is not None
    assert of_toy.speed.relative == pytest.approx(0.4001 / 0.2)
    assert [result.variant.name for result in found.checkpoints] == [name]


def test_a_variant_by_a_backends_own_name_has_the_speed_that_its_alias_was_timed_with(fake: Fake):
    write_speed(fake.file(), VARIANTS, integer=0.2)
    speed = json.loads(fake.file("speed.json").read_text())
    for measured in speed["variants"].values():
        if "integer" in measured:
            measured["integer"]["resolved_backend"] = "onednn"
    write(fake.file("speed.json"), speed)
    name = "tdac/w4a8/fbr_w4"
    run = add_integers(fake, name)
    (fake.file(*name.split("/")) / "integer").rename(fake.file(*name.split("/")) / "onednn")
    found = read_run(fake.results, run | {"variants": ["fp32", f"{name}/onednn"]})
    assert found.variants[1].label == "W4A8 · TDAC + fbr_w4, integers by oneDNN"
    assert found.variants[1].speed == found.variants[1].integers
    assert found.variants[1].speed is not None


@pytest.mark.parametrize(
    "file", ["fp32/metrics.json", "tdac/w4a8/fbr_w4/losses.csv", "tdac/selection.json", "fp32/samples/0.npy"]
)
def test_missing_artifact_is_told_with_its_command(fake: Fake, file: str):
    fake.file(file).unlink()
    with pytest.raises(EdadmError, match=rf"there is no .*{file}; make it with `snakemake .*{file}`"):
        read_run(fake.results, fake.runs[0])


def test_speed_is_optional_and_relative_to_full_precision(fake: Fake):
    write_speed(fake.file(), ["fp32", "tdac/w4a8/fbr_w4"])
    results = {result.variant.name: result.speed for result in read_run(fake.results, fake.runs[0]).variants}
    assert results["tdac/w8a8/fbr_w8"] is None
    speed = results["tdac/w4a8/fbr_w4"]
    assert speed is not None
    assert speed.relative == pytest.approx(0.4001 / 0.625)
    assert speed.smaller == pytest.approx(13.41 / 1.88)


def test_speed_without_full_precision_is_only_seconds(fake: Fake):
    write_speed(fake.file(), ["tdac/w4a8/fbr_w4"])
    speed = read_run(fake.results, fake.runs[0]).variants[2].speed
    assert speed is not None
    assert (speed.seconds, speed.fastest, speed.slowest, speed.relative, speed.smaller) == (
        0.625,
        0.3,
        0.9,
        None,
        None,
    )


def test_damaged_files_are_told(fake: Fake):
    fake.file("fp32", "metrics.json").write_text("{")
    with pytest.raises(EdadmError, match="cannot be read as JSON"):
        read_run(fake.results, fake.runs[0])
    write(fake.file("fp32", "metrics.json"), {"fid": 1.0, "sfid": 2.0, "conditions": {}})
    with pytest.raises(EdadmError, match="lacks psnr; delete it"):
        read_run(fake.results, fake.runs[0])


def test_a_losses_table_of_another_shape_is_told(fake: Fake):
    fake.file("tdac", "w4a8", "fbr_w4", "losses.csv").write_text("unit,before\nconv_in,1\n")
    with pytest.raises(EdadmError, match="cannot be read as a table of unit errors"):
        read_run(fake.results, fake.runs[0])


def test_scores_under_different_conditions_do_not_share_a_table(fake: Fake):
    path = fake.file("tdac", "w4a8", "fbr_w4", "metrics.json")
    metrics = json.loads(path.read_text())
    metrics["conditions"]["images"] = 128
    write(path, metrics)
    with pytest.raises(EdadmError, match="fp32 and tdac/w4a8/fbr_w4 were scored with different images"):
        read_run(fake.results, fake.runs[0])


def test_another_extractor_on_one_side_only_does_not_share_a_table(fake: Fake):
    path = fake.file("tdac", "w8a8", "fbr_w8", "metrics.json")
    metrics = json.loads(path.read_text())
    metrics["conditions"]["instead_of"] = "inception"
    write(path, metrics)
    with pytest.raises(EdadmError, match="were scored with different instead_of"):
        read_run(fake.results, fake.runs[0])


def test_first_images_come_from_as_many_shards_as_needed(fake: Fake):
    run = read_run(fake.results, fake.runs[0])
    folder = fake.file("tdac", "w8a8", "fbr_w8", "samples")
    shards = np.concatenate([np.load(folder / f"{shard}.npy") for shard in (0, 1)])
    assert len(np.load(folder / "0.npy")) < SHOWN_IMAGES < len(shards)
    np.testing.assert_array_equal(run.variants[1].images, shards[:SHOWN_IMAGES])


def test_shards_of_an_earlier_number_are_left_out(fake: Fake):
    whole = fake.file("fp32", "samples", "0.npy")
    remember(whole, facts("samples", {"evaluation": {"images": 10, "batch_size": 2, "shards": 1}}))
    scores = fake.file("fp32", "metrics.json")
    told = facts("metrics", {"inputs": {"samples": rows_digest([whole])}})
    write(scores, as_json(json.loads(scores.read_text()), told))
    settings = fake.runs[0]["evaluation_settings"] | {"shards": "auto"}
    run = fake.runs[0] | {"variants": ["fp32"], "evaluation_settings": settings}
    np.testing.assert_array_equal(read_run(fake.results, run).variants[0].images, np.load(whole))


def test_images_above_a_size_are_not_compared_with_their_scores_which_is_said(
    fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores, image = fake.file("fp32", "metrics.json"), fake.file("fp32", "samples", "0.npy")
    of_others = facts("metrics", {"inputs": {"samples": "another digest"}})
    write(scores, as_json(json.loads(scores.read_text()), of_others))
    run = fake.runs[0] | {"variants": ["fp32"]}
    size = sum(file.stat().st_size for file in image.parent.glob("*.npy"))
    monkeypatch.setattr("edadm.report.results.files.READ_AT_MOST", size - 1)
    assert read_run(fake.results, run).variants[0].scores["fid"] == SCORES["fp32"][0]
    assert f"{scores} was not compared with the images beside it" in capsys.readouterr().err
    monkeypatch.setattr("edadm.report.results.files.READ_AT_MOST", size)
    with pytest.raises(EdadmError, match="has the scores of other images than"):
        read_run(fake.results, run)
    assert capsys.readouterr().err == ""


def test_without_images_the_first_shard_is_asked_for(fake: Fake) -> None:
    for file in fake.file("fp32", "samples").iterdir():
        file.unlink()
    settings = fake.runs[0]["evaluation_settings"] | {"shards": "auto"}
    with pytest.raises(EdadmError, match=r"there is no .*samples/0.npy; make it with `snakemake .*0.npy`"):
        read_run(fake.results, fake.runs[0] | {"evaluation_settings": settings})


def test_images_of_another_kind_are_told(fake: Fake):
    np.save(fake.file("fp32", "samples", "0.npy"), np.zeros((4, 3, 8, 8), np.float32))
    with pytest.raises(EdadmError, match="holds float32"):
        read_run(fake.results, fake.runs[0])


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("fp32", "full precision"),
        ("tdac/w4a8/fbr_w4", "W4A8 · TDAC + fbr_w4"),
        ("uniform/w4a8/none", "W4A8 · uniform, rounded to nearest"),
        ("tdac_lambda0/narrow/fbr_w8", "W3A8 (narrow) · tdac_lambda0 + fbr_w8"),
    ],
)
def test_labels(name: str, label: str):
    presets = PRESETS | {"bits": PRESETS["bits"] | {"narrow": {"weights": 3, "activations": 8}}}
    assert variant_label(Variant(name), presets) == label


def test_an_error_that_is_no_number_counts_as_grown():
    assert UnitErrors("a", 1.0, 1.0, float("nan"), 0.0, 0.0).grew
    assert UnitErrors("a", 1.0, 1.0, float("nan"), 0.0, 0.0).ratio == float("inf")
    assert UnitErrors("a", 1.0, 1.0, 1.5, 0.0, 0.0).grew
    assert not UnitErrors("a", 1.0, 1.0, 1.0, 0.0, 0.0).grew
    assert UnitErrors("a", 0.0, 0.0, 0.0, 0.0, 0.0).ratio == 1
    assert UnitErrors("a", 0.0, 0.0, 2.0, 0.0, 0.0).ratio == float("inf")


def test_held_out_errors_are_optional_per_file_and_per_unit(fake: Fake):
    _, without, learned, _ = read_run(fake.results, fake.runs[0]).variants
    assert [unit.held_out_ratio for unit in without.units] == [None] * 4
    assert [unit.held_out_ratio for unit in learned.units] == [
        pytest.approx(0.4),
        pytest.approx(0.045 / 0.17),
        pytest.approx(1.4),
        None,
    ]
    fake.file("tdac", "w4a8", "fbr_w4", "losses.csv").write_text(
        "unit,before,soft,after,flipped,scale_drift,held_out_before\nconv_in,1,1,1,0,0,large\n"
    )
    with pytest.raises(EdadmError, match="cannot be read as a table of unit errors"):
        read_run(fake.results, fake.runs[0])
