"""Kernels compiled for an H100, without one: they use its matrix instructions and copy engine, and fit it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton.backends.nvidia")

COMPILED = """
import re
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource
from edadm.kernels.int8.norms import group_norm_parts, group_norm_resident, layer_norm
from edadm.kernels.int8.products import conv_tma, conv_wgmma, geglu, gemm
from edadm.kernels.int8.device import Device
from edadm.kernels.int8.norms.launch import VECTOR, GroupNorm, choose_group_norm
from edadm.kernels.int8.products.launch import stages_beside
from edadm.kernels.int8.search import candidates
from edadm.kernels.int8.tiles import Problem, Tiles

def compiled(kernel, block, stages, constants, blocks, result="bf16"):
    pointers = dict.fromkeys(("scale_ptr", "offset_ptr", "grid_ptr"), "*fp32") | dict.fromkeys(("x_ptr", "weight_ptr"), "*i8")
    pointers |= {"residual_ptr": f"*{result}", "out_ptr": f"*{result}", "low": "fp32", "high": "fp32"}
    types = {name: f"tensordesc<{blocks[name]}>" if name in blocks else pointers.get(name, "i32") for name in kernel.arg_names}
    constants = constants | {"DEPTH": block.depth, "GROUP": 8}
    types |= dict.fromkeys(constants, "constexpr")
    constexprs = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    whole = [types[name][0] == "*" or name in ("columns", "channels") for name in kernel.arg_names]
    attributes = {(index,): [["tt.divisibility", 16]] for index, divisible in enumerate(whole) if divisible}
    source, target = ASTSource(kernel, types, constexprs, attributes), GPUTarget("cuda", 90, 32)
    made = triton.compile(source, target=target, options={"num_warps": block.warps, "num_stages": stages})
    assert "wgmma.mma_async" in made.asm["ptx"], (kernel, block)
    assert not blocks or "cp.async.bulk.tensor" in made.asm["ptx"], (kernel, block)
    assert made.metadata.shared <= 227 * 1024, (kernel, block, made.metadata.shared)
    return made

for block in [Tiles(128, 256, 128, 8, 3), Tiles(64, 256, 128, 4, 2)]:  # what descriptors do not fit comes here with their sizes
    size = {"ROWS": block.rows, "COLUMNS": block.columns, "WHOLE": False, "ADDS": True}
    compiled(gemm.gemm_kernel, block, stages_beside(block, 4), size, {}, "fp32")
for block in [one for one in candidates(Problem(65_536, 1280, 320, 3, 1)) if one.kind == "descriptor"]:
    size, half, depth = {"ROWS": block.rows, "COLUMNS": block.columns}, block.columns // 2, block.depth
    x, weight = f"i8[{block.rows}, {depth}]", f"i8[{block.columns}, {depth}]"
    blocks = {"x": x, "weight": weight, "out": f"bf16[{block.rows}, {half}]"}
    compiled(gemm.gemm_tma_kernel, block, stages_beside(block, 2), {**size, "ADDS": True}, blocks)
    images = {"IMAGES": 1, "HEIGHT": block.rows // 32, "WIDTH": 32, "COLUMNS": block.columns, "SIDE": 3, "ADDS": True}
    blocks |= {"x": f"i8[1, {block.rows // 32}, 32, {depth}]"}
    blocks |= dict.fromkeys(("residual", "out"), f"fp32[{block.rows}, {block.columns}]")
    code = compiled(conv_tma.conv_tma_kernel, block, block.stages, images, blocks).asm["ttgir"]
    assert "memdesc_reshape" in code and code.count("local_load") == 1, block  # the residual goes through registers, operands do not
    blocks = {"x": x, "weight": f"i8[{half}, {depth}]", "out": f"i8[{block.rows}, {half}]"}
    compiled(geglu.geglu_tma_kernel, block, block.stages, {**size, "COLUMNS": half}, blocks)

def pipelined(block, result, adds, splits=1):
    kernel, layout = conv_wgmma.conv_wgmma_kernel, conv_wgmma.layout_of
    shapes = {"x": ("i8", (1, block.rows // 32, 32, block.depth)), "weight": ("i8", (block.columns, block.depth))}
    shapes["out"] = (result, (block.rows, block.columns))
    kinds = {"i8": torch.int8, "bf16": torch.bfloat16, "fp32": torch.float32}
    types = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(("scale_ptr", "offset_ptr"), "*fp32")
    types |= {"residual_ptr": f"*{result}", "sums_ptr": "*i32"}
    types |= {name: f"tensordesc<{kind}{list(shape)},{layout(shape, kinds[kind])!r}>" for name, (kind, shape) in shapes.items()}
    constants = {"SIDE": 3, "ADDS": adds, "IMAGES": 1, "HEIGHT": block.rows // 32, "WIDTH": 32, "COLUMNS": block.columns}
    constants |= {"DEPTH": block.depth, "GROUP": 8, "STAGES": block.stages, "WIDE": min(128, block.columns)}
    constants |= {"SPLITS": splits, "num_warps": block.warps}
    types |= dict.fromkeys(constants, "constexpr")
    source = GluonASTSource(kernel, types, {(kernel.arg_names.index(name),): value for name, value in constants.items()})
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": block.warps})
    assert made.metadata.shared <= 227 * 1024, (kernel, block, made.metadata.shared)
    assert ("atom.global" in made.asm["ptx"] or "red.global" in made.asm["ptx"]) == (splits > 1)
    waits = re.findall(r"wgmma.wait_group.sync.aligned\\s+(\\d)", made.asm["ptx"])
    assert waits == ["1", "0"], (block, waits)  # one product is always on its way until the end

for block in [one for one in candidates(Problem(65_536, 1280, 320, 3, 1)) if one.kind == "pipelined"]:
    pipelined(block, "fp32", True)  # what takes most memory
pipelined(Tiles(64, 128, 128, 4, 4), "bf16", False, 3)

def normalised(kernel, warps, constants):
    types = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(("x_ptr", "skip_ptr", "added_ptr"), "*bf16")
    types |= dict.fromkeys(("out_ptr", "x_out_ptr", "skip_out_ptr"), "*i8")
    types |= dict.fromkeys(("weight_ptr", "bias_ptr", "grids_ptr", "shortcut_grids_ptr", "sums_ptr"), "*fp32") | {"eps": "fp32"}
    types |= dict.fromkeys(("smooth_ptr", "shortcut_smooth_ptr"), "*fp32")
    types |= dict.fromkeys(constants, "constexpr")
    types = {name: types[name] for name in kernel.arg_names}
    whole = [types[name][0] == "*" or name in ("channels", "before") for name in kernel.arg_names]
    attributes = {(index,): [["tt.divisibility", 16]] for index, divisible in enumerate(whole) if divisible}
    constexprs = {(kernel.arg_names.index(name),): value for name, value in constants.items() if name in types}
    source = (GluonASTSource if "VECTOR" in constants else ASTSource)(kernel, types, constexprs, attributes)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    copied = set(re.findall(r"cp.async.c[ag].shared.global \\[[^]]*\\], \\[[^]]*\\], (\\w+)", made.asm["ptx"]))
    assert copied == {"0x10"}, (constants, copied)  # whole 16 bytes, while those before are computed with
    assert made.metadata.shared <= 75 * 1024, made.metadata.shared  # three programs on a processor

for size, pixels, skips, grids in ((4, 1024, False, 1), (12, 1024, True, 1), (8, 256, False, 3), (16, 16, True, 1), (10, 4096, False, 1)):
    what = {"SIZE": size, "SKIPS": skips, "ADDS": True, "SILU": True, "GRIDS": grids, "SHORTCUT": size in (12, 16)}
    if size not in (12, 16):
        what |= dict.fromkeys(("smooth_ptr", "shortcut_smooth_ptr"))
    problem = GroupNorm(500, pixels, 32 * size, 32, 32 * size)
    parts = choose_group_norm(problem, Device(), may_reside=False)
    by_parts = parts.sizes | {"PIXELS": parts.pixels, "STAGES": group_norm_parts.STAGES, "EVEN": True}
    by_parts |= {"GROUP_BLOCK": triton.next_power_of_2(parts.groups), "PARTS": triton.next_power_of_2(parts.grid[1])}
    for kernel in (group_norm_parts.partial_sums_kernel, group_norm_parts.normalise_kernel):
        normalised(kernel, group_norm_parts.WARPS, what | by_parts)
    block = choose_group_norm(problem, Device())
    assert block.kernel == ("group_norm_parts" if size in (10, 12) else "group_norm_resident")
    if block.kernel == "group_norm_resident":
        held = block.sizes | {"GROUP_BLOCK": triton.next_power_of_2(block.groups), "PIXELS": block.pixels}
        held |= {"CHUNKS": block.steps, "VECTOR": VECTOR, "num_warps": block.warps}
        normalised(group_norm_resident.group_norm_resident_kernel, block.warps, what | held)

kernel = layer_norm.layer_norm_kernel
types = {name: "*bf16" if name == "x_ptr" else "*fp32" if name.endswith("_ptr") else "i32" for name in kernel.arg_names}
constants = {"ROWS": 4, "CHANNELS": 512, "GRIDS": 3}
types |= {"out_ptr": "*i8", "eps": "fp32"} | dict.fromkeys(constants, "constexpr")
constexprs = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
whole = [index for index, name in enumerate(kernel.arg_names) if name.endswith("_ptr") or name == "channels"]
attributes = {(index,): [["tt.divisibility", 16]] for index in whole}
made = triton.compile(ASTSource(kernel, types, constexprs, attributes), target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
assert "ld.global.v4" in made.asm["ptx"]
"""


def test_kernels_compile_for_an_h100_with_all_tiles_that_are_searched() -> None:
    """In a process of its own, since here Triton interprets."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-c", COMPILED],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env=environment,
    )
    assert run.returncode == 0, run.stderr[-3000:]
