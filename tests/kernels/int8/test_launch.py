"""Which kernel computes what is a function of numbers: for any GPU, without one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from edadm.kernels.int8.device import Device
from edadm.kernels.int8.norms import launch as norms
from edadm.kernels.int8.norms.launch import GroupNorm, choose_group_norm, choose_layer_norm
from edadm.kernels.int8.products.launch import (
    Launch,
    Layout,
    box,
    can_describe,
    choose,
    choose_geglu,
    programs,
    stages_beside,
)
from edadm.kernels.int8.products.operands import is_aligned
from edadm.kernels.int8.tiles import Problem, Tiles

DEVICES = {
    "h100": Device((9, 0), 132, 227 * 1024),
    "a100": Device((8, 0), 108, 163 * 1024),
    "l40": Device((8, 9), 128, 99 * 1024),
    "cpu": Device.of(torch.device("cpu")),
}
HOPPER, OLDER = DEVICES["h100"], DEVICES["a100"]
LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "residual": {},
    "fp32": {"result_bytes": 4},
    "zero": {"pads_zero": False},
    "misaligned": {"is_aligned": False},
    "residual misaligned": {"residual_is_aligned": False},
}


once = cache(norms.groups_of_program)


@cache
def recorded() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("launches.json").read_text())


def joined(numbers: tuple[int, ...]) -> str:
    return "x".join(map(str, numbers))


def outcome(launch: Launch) -> str:
    tile, grid = launch.tiles, f"grid {joined(launch.grid)}"
    fetched = "" if launch.box is None else f" box {joined(launch.box)}"
    return f"{launch.kernel} {joined(tile[:5])} {grid}{fetched}"


def convolutions(device: Device, found: list[list[int]], batch: int) -> Iterator[tuple[str, str]]:
    for numbers in found:
        rows, columns, channels, side, stride, height, width, padding = numbers
        problem = Problem(rows * batch, columns, channels, side, stride)
        for name, facts in LAYOUTS.items():
            layout = Layout(height, width, padding, **facts)
            yield f"{name} {','.join(map(str, numbers))}", outcome(choose(problem, layout, device))


def geglus(device: Device, found: list[list[int]], batch: int) -> Iterator[tuple[str, str]]:
    for rows, columns, channels in found:
        for name in ("aligned", "misaligned"):
            launch = choose_geglu(rows * batch, columns, name == "aligned", device)
            yield f"{name} {rows},{columns},{channels}", outcome(launch)


def group_norms(device: Device, found: list[list[int]], batch: int) -> Iterator[tuple[str, str]]:
    for pixels, before, channels, groups in found:
        for size in (2, 4):
            for name in ("aligned", "misaligned"):
                problem = GroupNorm(batch, pixels, channels, groups, before, size, name == "aligned")
                one = choose_group_norm(problem, device)
                sizes = one.size, one.groups, one.width, one.pixels, one.steps, one.warps
                text = f"{one.kernel} {joined(sizes)} grid {joined(one.grid)}"
                yield f"{size} {name} {pixels},{before},{channels},{groups}", text


def layer_norms(device: Device, found: list[list[int]], batch: int) -> Iterator[tuple[str, str]]:
    for rows, channels in found:
        one = choose_layer_norm(rows * batch, channels)
        text = f"layer_norm {one.rows}x{one.width} grid {joined(one.grid)}"
        yield f"plain {rows},{channels}", text


KINDS = {
    "conv": (convolutions, "convolutions"),
    "geglu": (geglus, "geglus"),
    "gn": (group_norms, "group_norms"),
    "ln": (layer_norms, "layer_norms"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("device", DEVICES)
def test_the_published_networks_launch_what_they_did_before_choices_were_functions(
    device: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every layer at batches of 1, 8, 64 and 500, in all layouts; some by name, all by digest."""
    monkeypatch.setattr(norms, "groups_of_program", once)  # the same for all devices and layouts
    (launches, problems), checked = KINDS[kind], 0
    for name, found in recorded()["problems"].items():
        for batch in (1, 8, 64, 500):
            group, lines = f"{kind} {device} {name} {batch}", []
            for key, text in launches(DEVICES[device], found[problems], batch):
                assert recorded()["rows"].get(f"{group} {key}", text) == text
                lines.append(f"{key}: {text}")
            digest = hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]
            assert recorded()["digests"].get(group) == (digest if lines else None), group
            checked += len(lines)
    assert checked > 20


SMALL = Tiles(32, 16, 32, 4, 2)
IMAGE = Layout(height=4, width=16, padding=1)
WINDOW, MATRIX = Problem(128, 32, 32, 3, 1), Problem(128, 32, 32, 1, 1)


@pytest.mark.parametrize(
    ("kind", "problem", "layout", "kernel"),
    [
        ("window", WINDOW, IMAGE, "implicit_gemm"),
        ("matrix", WINDOW, IMAGE, "implicit_gemm"),
        ("descriptor", WINDOW, IMAGE, "conv_tma"),
        ("pipelined", WINDOW, IMAGE, "conv_wgmma"),
        ("window", MATRIX, Layout(), "implicit_gemm"),
        ("matrix", MATRIX, Layout(), "gemm"),
        ("descriptor", MATRIX, Layout(), "gemm_tma"),
        ("pipelined", MATRIX, Layout(), "conv_wgmma"),
        ("matrix", MATRIX, Layout(padding=1), "implicit_gemm"),
        ("descriptor", MATRIX, Layout(is_aligned=False), "gemm"),
        ("descriptor", MATRIX._replace(columns=24), Layout(), "gemm"),
        ("pipelined", MATRIX._replace(columns=24), Layout(), "implicit_gemm"),
    ],
)
def test_a_kind_of_tiles_names_a_kernel_where_that_can_compute_the_problem(
    kind: str, problem: Problem, layout: Layout, kernel: str
) -> None:
    assert choose(problem, layout, HOPPER, SMALL._replace(kind=kind)).kernel == kernel


@pytest.mark.parametrize("kind", ["descriptor", "pipelined"])
@pytest.mark.parametrize(
    ("problem", "layout"),
    [
        (WINDOW._replace(stride=2), IMAGE),
        (WINDOW, Layout(4, 16, padding=0)),
        (WINDOW, Layout(4, 16, padding=1, pads_zero=False)),
        (WINDOW, Layout(4, 16, padding=1, is_aligned=False)),
        (WINDOW._replace(columns=24), IMAGE),
        (WINDOW, Layout(5, 16, padding=1)),
    ],
)
def test_other_convolutions_go_to_the_kernel_that_computes_any(
    problem: Problem, layout: Layout, kind: str
) -> None:
    for device in DEVICES.values():
        assert choose(problem, layout, device, SMALL._replace(kind=kind)).kernel == "implicit_gemm"


def test_a_residual_out_of_a_descriptors_reach_keeps_from_conv_tma_alone() -> None:
    layout = Layout(4, 16, 1, residual_is_aligned=False)
    kernels = {kind: choose(WINDOW, layout, HOPPER, SMALL._replace(kind=kind)).kernel for kind in KIND_NAMES}
    assert kernels == {"descriptor": "implicit_gemm", "pipelined": "conv_wgmma"}


KIND_NAMES = ("descriptor", "pipelined")


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_older_gpus_have_no_descriptors(kind: str) -> None:
    wanted = SMALL._replace(kind=kind, splits=2)
    launch = choose(WINDOW, IMAGE, OLDER, wanted)
    assert launch == Launch("implicit_gemm", wanted, (4 * 2, 2))
    assert choose_geglu(128, 64, True, OLDER).kernel == "geglu"
    assert choose_geglu(128, 64, True, HOPPER).kernel == "geglu_tma"
    assert choose(MATRIX, Layout(), OLDER, SMALL._replace(kind="descriptor")).kernel == "gemm"


def test_tiles_shrink_to_a_device_s_shared_memory_unless_descriptors_fill_it() -> None:
    large = Tiles(128, 256, 128, 8, 4, kind="matrix")
    problem = Problem(65_536, 1280, 320, 1, 1)
    assert choose(problem, Layout(), DEVICES["l40"], large).tiles.stages == 2
    assert choose(problem, Layout(result_bytes=4), HOPPER, large).tiles.stages == 2
    assert choose(problem, Layout(), HOPPER, large._replace(kind="pipelined")).tiles.stages == 4


def test_boxes_fill_images_row_after_row() -> None:
    assert box(128, 32, 32) == (1, 4, 32)
    assert box(128, 8, 8) == (2, 8, 8)
    assert box(128, 4, 4) == (8, 4, 4)
    assert box(128, 256, 256) == (1, 1, 128)
    assert box(128, 3, 64) is None  # two rows at a time
    assert box(128, 6, 24) is None
    assert box(128, 2, 512) == (1, 1, 128)
    assert box(512, 2, 512) is None  # longer than a box may be


def test_programs_are_as_many_as_run_at_once_and_no_more_than_tiles_of_the_output() -> None:
    assert programs(Tiles(128, 256, 128, 8, 3), 10_000, HOPPER) == 132
    assert programs(Tiles(128, 128, 128, 4, 3), 10_000, HOPPER) == 264
    assert programs(Tiles(128, 128, 128, 4, 3), 5, HOPPER) == 5


def test_steps_that_are_fetched_ahead_leave_room_for_the_result() -> None:
    wide, narrow = Tiles(256, 128, 128, 8, 3), Tiles(64, 64, 128, 4, 4)
    assert [stages_beside(wide, size) for size in (2, 4)] == [3, 2]
    assert [stages_beside(narrow, size) for size in (2, 4)] == [4, 4]


def test_descriptors_need_rows_that_begin_at_multiples_of_16_and_a_hopper() -> None:
    fits = torch.zeros(4, 64, dtype=torch.int8)
    assert is_aligned(fits)
    assert is_aligned(fits.float())
    assert not is_aligned(fits[:, :40].contiguous())
    assert is_aligned(fits.float()[:, :48].contiguous())
    assert not is_aligned(fits.float()[:, :20].contiguous())
    assert not is_aligned(torch.zeros(65 * 64, dtype=torch.int8)[8:-56].reshape(64, 64))
    assert can_describe(48, True, HOPPER)
    assert not can_describe(40, True, HOPPER)
    assert not can_describe(48, True, OLDER)


def test_what_fits_shared_memory_is_normalised_there() -> None:
    def sizes(images: int, pixels: int, groups: int, size: int) -> tuple[int, ...] | None:
        one = choose_group_norm(GroupNorm(images, pixels, groups * size, groups, groups * size), OLDER)
        if one.kernel == "group_norm_parts":
            return None
        return one.groups, one.width, one.pixels, one.steps, one.warps

    assert sizes(500, 1024, 32, 4) == (8, 32, 128, 8, 8)
    assert sizes(500, 1024, 32, 12) is None  # 24 channels
    assert sizes(500, 256, 32, 8) == (8, 64, 32, 8, 4)
    assert sizes(500, 16, 32, 8) == (8, 64, 8, 2, 1)
    assert sizes(16, 4096, 32, 10) is None  # too large
    assert sizes(16, 1024, 32, 30) is None  # a row of 60 bytes
    assert sizes(8, 16, 2, 512) is None  # a row of more channels than threads read at once
    assert sizes(16, 81, 32, 8) is None  # an odd number of pixels makes no boxes


@pytest.mark.parametrize(
    ("device", "changed"),
    [
        (Device((7, 5), 72, 64 * 1024), {}),
        (DEVICES["cpu"], {}),
        (HOPPER, {"element_bytes": 4}),
        (HOPPER, {"is_aligned": False}),
        (HOPPER, {"before": 60}),
        (HOPPER, {"before": 136}),  # whole vectors, but Triton knows of multiples of 16 alone
        (HOPPER, {"channels": 264, "groups": 33, "before": 264}),
    ],
)
def test_what_asynchronous_copies_cannot_read_is_normalised_in_parts(
    device: Device, changed: dict[str, Any]
) -> None:
    facts = {"images": 500, "pixels": 256, "channels": 256, "groups": 32, "before": 256}
    assert choose_group_norm(GroupNorm(**facts), HOPPER).kernel == "group_norm_resident"
    assert choose_group_norm(GroupNorm(**facts), HOPPER, may_reside=False).kernel == "group_norm_parts"
    assert choose_group_norm(GroupNorm(**facts | changed), device).kernel == "group_norm_parts"


def test_a_cpu_is_a_hopper_gpu_without_gluon() -> None:
    cpu = DEVICES["cpu"]
    assert (cpu.has_tma, cpu.has_wgmma, cpu.has_async_copy) == (True, False, False)
    assert (HOPPER.has_tma, HOPPER.has_wgmma, HOPPER.has_async_copy) == (True, True, True)
    blackwell = Device(capability=(10, 0), processors=148)
    assert (blackwell.has_tma, blackwell.has_wgmma, blackwell.has_async_copy) == (True, False, True)
    assert (OLDER.has_tma, OLDER.has_wgmma, OLDER.has_async_copy) == (False, False, True)
