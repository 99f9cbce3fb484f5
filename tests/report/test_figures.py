"""Figures and strips of images."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from edadm.report.figures import calibration_figure, reconstruction_figure, selection_figure
from edadm.report.results.read import read_run
from edadm.report.results.records import CalibrationResult, UnitErrors
from edadm.report.strips import difference, strips_of

from .fakes import UNITS, Fake

UNIT_ERRORS = [UnitErrors(name, *errors) for name, errors in UNITS.items()]


def texts(svg: str) -> list[str]:
    """What stands in a figure; it must be well-formed once its namespaces, which HTML implies, are named."""
    root = ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))
    return ["".join(node.itertext()).strip() for node in root.iter("text")]


def pixels(uri: str) -> np.ndarray:
    """The image inside an address, (h, w, 4)."""
    assert uri.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_calibration_figure_shows_steps_timesteps_and_curves():
    curves = [0.0, 0.5, 1.0]
    shown = texts(
        calibration_figure(CalibrationResult("tdac", [3, 2, 1], [991, 377, 12], curves, curves[::-1]))
    )
    assert {"0", "991", "377", "12", "samples", "density (normalised)", "variety (normalised)"} <= set(shown)
    assert "density (normalised)" not in texts(
        calibration_figure(CalibrationResult("uniform", [2, 2, 2], [991, 377, 12], None, None))
    )


def test_many_steps_are_labelled_sparsely():
    shown = texts(
        calibration_figure(CalibrationResult("uniform", [1] * 100, list(range(5000, 4900, -1)), None, None))
    )
    timesteps = [int(text) for text in shown if text.isdigit() and int(text) > 4000]
    assert timesteps == list(range(5000, 4900, -4))


def test_reconstruction_figure_names_every_unit_in_order():
    shown = texts(reconstruction_figure(UNIT_ERRORS, "errors"))
    assert [text for text in shown if text in UNITS] == list(UNITS)
    assert "learned, and grew" in shown
    assert "learned, and grew" not in texts(reconstruction_figure(UNIT_ERRORS[:2], "errors"))


def test_held_out_errors_are_diamonds_where_there_are_any():
    held_out = UnitErrors("a", 1.0, 0.5, 0.5, 0.1, 0.0, 1.2, 0.7)
    svg = reconstruction_figure([*UNIT_ERRORS, held_out], "errors")
    assert "learned, held out" in texts(svg)
    assert "var(--third)" in svg
    assert "learned, held out" not in texts(reconstruction_figure(UNIT_ERRORS, "errors"))
    assert "10" in texts(
        reconstruction_figure([dataclasses.replace(held_out, held_out_after=9.0)], "errors")
    ), "the axis reaches them"


@pytest.mark.parametrize("count", [2, 4, 7])
def test_selectors_stand_side_by_side_on_one_scale(count: int):
    selectors = [
        CalibrationResult(f"selector{index}", [index + 1] * 20, list(range(20)), None, None)
        for index in range(count)
    ]
    svg = selection_figure(selectors)
    shown = texts(svg)
    assert [text for text in shown if text.startswith("selector")] == [
        selector.name for selector in selectors
    ]
    assert svg.count("fill: var(--soft)") == 20 * count
    assert "sampler step" in shown


@pytest.mark.parametrize(("error", "labels"), [(3e-2, {"0.01", "0.1"}), (3e-8, {"10⁻⁸", "10⁻⁷"})])
def test_errors_of_one_decade_still_have_an_axis(error: float, labels: set[str]):
    assert labels <= set(
        texts(reconstruction_figure([UnitErrors("a", error, error, 0.8 * error, 0.1, 0.0)], "errors"))
    )


def test_one_large_price_of_hardening_does_not_hide_the_others():
    small, large = UnitErrors("a", 1.0, 1.0, 1.02, 0.1, 0.0), UnitErrors("b", 1.0, 0.01, 0.5, 0.1, 0.0)
    assert {"+10", "+100", "+1000"} <= set(texts(reconstruction_figure([small, large], "errors")))
    assert "+10" not in texts(reconstruction_figure([small], "errors"))


def test_errors_that_are_no_numbers_do_not_break_the_figure():
    bad = [UnitErrors("zero", 0.0, 0.0, 0.0, 0.0, 0.0), UnitErrors("nan", 1.0, 0.0, float("nan"), 0.1, 0.0)]
    assert {"zero", "nan", "conv_in"} <= set(texts(reconstruction_figure(bad + UNIT_ERRORS, "errors")))
    assert "zero" in texts(reconstruction_figure(bad[:1], "errors"))


def test_figures_leave_colours_and_fonts_to_the_page():
    svg = reconstruction_figure(UNIT_ERRORS, 'errors of "a" & b')
    assert not re.findall(r"#[0-9a-f]{6}\b", svg)
    assert {"currentColor", "var(--muted)", "var(--first)", "var(--second)"} <= set(
        re.findall(r"currentColor|var\(--\w+\)", svg)
    )
    assert "http" not in svg
    assert "<style" not in svg
    assert "font-family" not in svg
    assert 'aria-label="errors of &quot;a&quot; &amp; b"' in svg


def test_no_identifier_stands_twice():
    calibration = CalibrationResult("tdac", [3, 2, 1], [991, 377, 12], None, None)
    page = calibration_figure(calibration) + reconstruction_figure(UNIT_ERRORS, "a")
    identifiers = re.findall(r'\bid="([^"]+)"', page)
    assert identifiers
    assert len(identifiers) == len(set(identifiers))
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(identifiers)
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(identifiers)


def test_difference_is_amplified_around_mid_grey():
    images, references = np.array([10, 0, 200, 7], np.uint8), np.array([7, 5, 0, 7], np.uint8)
    assert difference(images, references, 4).tolist() == [140, 108, 255, 128]


def test_gallery_has_a_strip_per_variant_and_a_difference_per_quantized_one(fake: Fake):
    run = read_run(fake.results, fake.runs[0])
    strips = strips_of(run.variants)
    assert [strip.is_difference for strip in strips] == [False, False, True, False, True, False, True]
    assert [strip.label for strip in strips if not strip.is_difference] == [
        result.label for result in run.variants
    ]
    # The images of 8 pixels stand side by side with a transparent gap of one.
    shown = pixels(strips[1].uri)
    assert shown.shape == (8, 16 * 9 - 1, 4)
    np.testing.assert_array_equal(shown[:, 9:17, :3], run.variants[1].images[1].transpose(1, 2, 0))
    assert not shown[:, 8, 3].any()
    # The fake adds 1, 2 and 3 to the full-precision images.
    assert [set(pixels(strip.uri)[:, :8, :3].flat) for strip in strips if strip.is_difference] == [
        {132},
        {136},
        {140},
    ]
    assert strips[0].width == 7 * (16 * 9 - 1)


def test_without_full_precision_there_are_no_differences(fake: Fake):
    run = read_run(fake.results, fake.runs[0] | {"variants": ["tdac/w8a8/fbr_w8"]})
    assert [strip.is_difference for strip in strips_of(run.variants)] == [False]


@pytest.mark.parametrize(
    ("size", "tile", "columns"), [(32, 32, 16), (64, 64, 16), (128, 128, 8), (256, 128, 8), (512, 128, 8)]
)
def test_large_images_are_fewer_and_smaller(fake: Fake, size: int, tile: int, columns: int):
    result = read_run(fake.results, fake.runs[0] | {"variants": ["fp32"]}).variants[0]
    large = result.__class__(**(result.__dict__ | {"images": np.zeros((16, 3, size, size), np.uint8)}))
    gap = max(1, tile // 32)
    assert pixels(strips_of([large])[0].uri).shape == (tile, columns * (tile + gap) - gap, 4)
