"""Bytes and errors by unit."""

from __future__ import annotations

from edadm.report.gallery.layers import GRIDS, HEADER, bytes_by_unit, layer_rows, read_file, units_of
from edadm.report.results.read import read_run

from ..fakes import UNITS, Fake
from .conftest import NAMES, add_weights


def test_bytes_of_units_add_up_to_the_file(fake: Fake):
    add_weights(fake)
    path = fake.file("tdac", "w8a8", "fbr_w8", "quantized.safetensors")
    found = bytes_by_unit(read_file(path), list(UNITS))
    assert found == {
        "conv_in": 25,
        "conv_out": 100,
        "down_blocks.0.resnets.0": 50,
        GRIDS: 36,
        HEADER: path.stat().st_size - 211,
    }
    assert bytes_by_unit(read_file(path), [])["down_blocks.0.resnets.0.conv2"] == 25


def test_units_begin_as_the_network_runs_them_and_have_the_errors_measured(fake: Fake):
    add_weights(fake)
    results = [result for result in read_run(fake.results, fake.runs[0]).variants if result.is_quantized]
    files = {
        result.variant.name: read_file(fake.file(result.variant.name, "quantized.safetensors"))
        for result in results
    }
    full = read_file(fake.file("fp32", "unet.safetensors"))
    units = units_of(results)
    assert units == list(UNITS)
    rows = layer_rows(full, files, results, units)
    assert [row["unit"] for row in rows] == [*UNITS, GRIDS, HEADER]
    block = rows[1]
    assert (block["unit"], block["full"]) == ("down_blocks.0.resnets.0", "0.2 kB")
    eight, four, rounded = block["cells"]
    assert (eight["formats"], four["formats"]) == ("int8", "int4")
    assert (four["error"], four["before"], four["part"]) == ("0.04", "0.16 before", "100.00")
    assert rounded["error"] == "–"
    missing = rows[2]  # an attention of which the files hold nothing
    assert (missing["full"], missing["cells"][0]["size"]) == ("–", "–")
    assert [row["unit"] for row in layer_rows(full, files, results, [])] == [*sorted(NAMES), GRIDS, HEADER]
