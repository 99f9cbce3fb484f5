#!/usr/bin/env bash
# FINDING: a Gluon kernel with asynchronous copies of bf16 rows compiles for row lengths of 32 and 48 and not for 24 and 40, though all of them
#   are whole vectors of 16 bytes.
# Seen with: triton==3.7.1 (Python 3.11; compiled for sm_90 on a CPU), and with triton 3.6 of torch 2.11 on an H200, 2026-11-30.
# Guess before running: where rows are whole vectors of 16 bytes, eight bf16 are copied at once; where the compiler cannot know that, the copy
#   falls back to a slower one, as loads do and as the same kernel does in fp32.
# Seen: told "a multiple of 8" the compiler copies 16 bytes at once. But a launch tells of a size only whether it is a multiple of 16 ('D'); of any
#   other one it knows nothing, plans copies of one element, and those of two bytes do not exist: RuntimeError, on such sizes alone. Output:
#     fp32, row length a multiple of 16: ['16']
#     fp32, row length a multiple of 8: ['16']
#     fp32, row length of which nothing is known: ['4']
#     bf16, row length a multiple of 16: ['16']
#     bf16, row length a multiple of 8: ['16']
#     bf16, row length of which nothing is known: RuntimeError: PassManager::run failed
#     what a launch tells: {8: '', 24: '', 40: '', 32: 'D', 48: 'D'}
# Matters because: tests with the sizes of usual networks (multiples of 32) pass, and the first network with skips of 24 channels fails to compile
#   in a user's hands. edadm chooses this kernel for multiples of 16 alone, and another one for the rest (`kernels/int8/norms/launch.py`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "triton==3.7.1" "numpy==2.4.6"
cat > "$folder/copies.py" <<'PY'
import re

import triton
from triton._C.libtriton import native_specialize_impl
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon._runtime import GluonASTSource
from triton.experimental.gluon.language.nvidia.ampere import async_copy

HOPPER = GPUTarget("cuda", 90, 32)


@gluon.jit
def copy_rows(source, target, length):
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [1, 1], [1, 0])
    row = gl.arange(0, 4, gl.SliceLayout(1, layout))
    column = gl.arange(0, 64, gl.SliceLayout(0, layout))
    offsets = row[:, None] * length + column[None, :]
    held = gl.allocate_shared_memory(source.dtype.element_ty, [4, 64], gl.SwizzledSharedLayout(8, 1, 1, [1, 0]))
    async_copy.async_copy_global_to_shared(held, source + offsets)
    async_copy.commit_group()
    async_copy.wait_group(0)
    gl.store(target + offsets, held.load(layout))


def bytes_at_once(element, multiple):
    types = {"source": f"*{element}", "target": f"*{element}", "length": "i32"}
    told = {(0,): [["tt.divisibility", 16]], (1,): [["tt.divisibility", 16]]}
    if multiple:
        told[2,] = [["tt.divisibility", multiple]]
    try:
        made = triton.compile(GluonASTSource(copy_rows, types, {}, told), target=HOPPER, options={"num_warps": 1})
    except RuntimeError as error:
        return f"RuntimeError: {error}"
    return sorted({str(int(size, 16)) for size in re.findall(r"cp\.async\.c[ag][^;]*, (0x\w+), 0x\w+", made.asm["ptx"])})


found = {}
for element in ("fp32", "bf16"):
    for multiple, words in ((16, "a multiple of 16"), (8, "a multiple of 8"), (None, "of which nothing is known")):
        found[element, multiple] = bytes_at_once(element, multiple)
        print(f"{element}, row length {words}: {found[element, multiple]}")
told = {size: native_specialize_impl(type(make_backend(HOPPER)), size, False, True, True)[1] for size in (8, 24, 40, 32, 48)}
print("what a launch tells:", told)
assert found["bf16", 8] == found["bf16", 16] == ["16"] and found["fp32", None] == ["4"]
assert isinstance(found["bf16", None], str)
assert told == {8: "", 24: "", 40: "", 32: "D", 48: "D"}
PY
TRITON_CACHE_DIR="$folder/cache" "$folder/venv/bin/python" "$folder/copies.py" 2> "$folder/errors"
grep -q "cp.async does not support transfers smaller than 4 bytes" "$folder/errors"
