"""Sums of integers are exact by either route, and below 2^24 their bits are the same on every processor."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edadm.errors import EdadmError
from edadm.kernels.cpu import choice, onednn
from edadm.kernels.cpu.choice import ExactConvolution
from edadm.kernels.cpu.floats import FloatConvolution, exact_parts
from edadm.kernels.cpu.geometry import Geometry, Problem
from edadm.kernels.cpu.onednn import PackedConvolution

OLDER = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(Path(onednn.__file__).parents[3])}
x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets of x86")

SHAPES = {
    "3x3": ((24, 40, 3), Geometry(padding=(1, 1))),
    "one channel": ((1, 1, 3), Geometry(padding=(1, 1))),
    "1x1 of odd numbers": ((63, 7, 1), Geometry()),
    "stride 2, ragged": ((5, 9, 3), Geometry((2, 2))),
    "wide": ((300, 16, 3), Geometry(padding=(1, 1))),
    "groups": ((24, 8, 3), Geometry((1, 1), (1, 1), (1, 1), 4)),
}


def problem(case: str, largest: int, zero_point: int, seed: int = 0) -> tuple[Problem, Tensor, Tensor]:
    """Random weights with rows of extremes, random codes with an image of each extreme, and a bias."""
    (channels, rows, size), geometry = SHAPES[case]
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(
        -largest, largest + 1, (rows, channels // geometry.groups, size, size), generator=generator
    )
    weight[0] = largest
    weight[-1] = -largest
    scale = (torch.rand(rows, generator=generator) - 0.3) * 0.01
    integers = torch.randint(0, 256, (3, channels, 6, 5), generator=generator).float()
    integers[1], integers[2] = 255, 0
    integers = (integers - zero_point).contiguous(memory_format=torch.channels_last)
    return (
        Problem(weight.to(torch.int8), scale, 0.0317, zero_point, geometry),
        integers,
        torch.randn(rows, generator=generator),
    )


def expected(given: Problem, integers: Tensor, bias: Tensor) -> Tensor:
    """The exact sum, rounded to fp32, times the scale, plus the bias: three roundings."""
    sums = F.conv2d(integers.double(), given.weight.double(), None, *given.geometry).float()
    return sums * (given.weight_scale * given.scale)[:, None, None] + bias[:, None, None]


@pytest.mark.parametrize("zero_point", [0, 37, 128, 255])
@pytest.mark.parametrize("largest", [7, 64, 127])
@pytest.mark.parametrize("case", SHAPES)
def test_both_routes_compute_the_same_bits(case: str, largest: int, zero_point: int) -> None:
    given, integers, bias = problem(case, largest, zero_point)
    right = expected(given, integers, bias)
    assert torch.equal(FloatConvolution(given)(integers.clone(), bias), right)
    convolution = ExactConvolution(given)
    if convolution.interchangeable or not convolution.packed:
        assert torch.equal(convolution(integers.clone(), bias), right)
    if convolution.packed and convolution.interchangeable:
        assert torch.equal(convolution.packed(integers.clone(), bias), right)
    elif convolution.packed:
        torch.testing.assert_close(
            convolution(integers, bias), right, rtol=0, atol=2**-21 * right.abs().max().item()
        )
        assert not convolution.fastest


def test_the_route_in_floats_keeps_channels_last() -> None:
    """In one column of points, too, as rows of a linear layer come; all that follows would be slower."""
    given, integers, bias = problem("1x1 of odd numbers", 127, 128)
    for shape in ((3, 63, 6, 5), (1, 63, 90, 1)):
        rows = integers.permute(0, 2, 3, 1).reshape(shape[0], shape[2], shape[3], 63).permute(0, 3, 1, 2)
        assert FloatConvolution(given)(rows, bias).permute(0, 2, 3, 1).is_contiguous()


@pytest.mark.parametrize("zero_point", [0, 100, 255])
def test_sums_beyond_what_floating_point_numbers_hold_are_rounded_once(zero_point: int) -> None:
    weight = torch.full((4, 3001, 1, 1), 127, dtype=torch.int8)
    weight[1], weight[2, ::2] = -128, -128
    weight[3] = torch.randint(-128, 128, (3001, 1, 1), generator=torch.Generator().manual_seed(0))
    integers = torch.full((2, 3001, 2, 1), 255.0 - zero_point).contiguous(memory_format=torch.channels_last)
    integers[1] = torch.randint(
        -zero_point, 256 - zero_point, (3001, 2, 1), generator=torch.Generator().manual_seed(1)
    ).float()
    given = Problem(weight, torch.ones(4), 1.0, zero_point)
    sums = (weight.flatten(1).long() @ integers.flatten(2).long()).unsqueeze(-1)
    assert zero_point == 255 or sums.abs().max() > 2**24
    convolution = FloatConvolution(given)
    assert len(convolution.slices) > 2
    assert torch.equal(convolution(integers), sums.float())


@pytest.mark.parametrize("zero_point", [0, 90, 255])
def test_parts_are_as_large_as_their_largest_sums_allow(zero_point: int) -> None:
    weight = torch.randint(
        -128, 128, (5, 900, 3, 3), generator=torch.Generator().manual_seed(0), dtype=torch.int8
    )
    ends = exact_parts(weight, zero_point)
    assert ends[0] == 0
    assert ends[-1] == 900

    def largest(first: int, last: int) -> int:
        part = weight[:, first:last].flatten(1).long()
        positive, negative = (
            torch.where((part > 0) == up, 255 - zero_point, zero_point) * part.abs() for up in (True, False)
        )
        return int(torch.maximum(positive.sum(1), negative.sum(1)).max())

    for first, last in pairwise(ends):
        assert largest(first, last) < 2**24
        assert last == 900 or largest(first, last + 1) >= 2**24


def test_a_kernel_too_large_for_exact_sums_is_refused() -> None:
    with pytest.raises(
        EdadmError, match="a kernel of 529 positions is too large for exact sums; use backend 'simulated'"
    ):
        exact_parts(torch.full((1, 1, 23, 23), 127, dtype=torch.int8), 0)


@pytest.mark.parametrize("preferred", [PackedConvolution, FloatConvolution])
def test_the_faster_route_is_kept_for_each_shape_and_changes_no_bit(
    preferred: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, integers, bias = problem("3x3", 64, 128)
    if not onednn.packed_is_exact(given.weight):
        pytest.skip("there is one route on this processor")
    timed: list[torch.Size] = []
    monkeypatch.setattr(
        choice, "_seconds", lambda route, x, bias: timed.append(x.shape) or not isinstance(route, preferred)
    )
    convolution = ExactConvolution(given)
    right = expected(given, integers, bias)
    for rows in (3, 1, 3):
        assert torch.equal(convolution(integers[:rows].clone(), bias), right[:rows])
    assert [shape[0] for shape in timed] == [3, 3, 1, 1]
    assert {type(route) for route in convolution.fastest.values()} == {preferred}
    assert (convolution.floating is not None) == (preferred is FloatConvolution)


def test_without_onednn_sums_are_exact_too_in_large_batches() -> None:
    """NNPACK, which takes its place from 16 images on, transforms convolutions so that sums are rounded."""
    given, integers, bias = problem("3x3", 127, 128)
    images = integers[:1].expand(20, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    right = expected(given, integers[:1], bias).expand(20, -1, -1, -1)
    with torch.backends.mkldnn.flags(enabled=False):
        convolution = ExactConvolution(given)
        assert convolution.packed is None
        assert torch.equal(convolution(images, bias), right)


@pytest.mark.parametrize("case", [case for case in SHAPES if case != "wide"])
def test_sums_below_the_bound_make_routes_interchangeable(case: str) -> None:
    assert ExactConvolution(problem(case, 127, 37)[0]).interchangeable
    wide = problem("wide", 127, 37)[0]
    assert not ExactConvolution(wide).interchangeable
    assert ExactConvolution(
        wide._replace(weight=wide.weight[:, :50])
    ).interchangeable  # 450 * 127 * 255 < 2^24


def bits_of_routes() -> str:
    """A digest of what this processor computes where weights reach the ends."""
    sha256 = hashlib.sha256()
    for case in sorted(SHAPES.keys() - {"wide"}):
        for largest in (64, 127):
            given, integers, bias = problem(case, largest, 101)
            sha256.update(ExactConvolution(given)(integers, bias).contiguous().numpy().tobytes())
    return sha256.hexdigest()


@x86_only
def test_an_older_processor_is_found_out_and_computes_the_same_bits() -> None:
    module = "tests.kernels.cpu.test_choice"
    what = "print(onednn.sums_are_exact(), bits_of_routes())"
    program = f"from {module} import bits_of_routes, onednn; {what}"
    run = subprocess.run(
        [sys.executable, "-c", program], env=OLDER, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["False", bits_of_routes()]
