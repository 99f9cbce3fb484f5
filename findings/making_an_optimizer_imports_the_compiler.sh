#!/usr/bin/env bash
# FINDING: the first optimizer that is made imports torch's compiler, and the first module moved off `meta` by to_empty imports sympy, though nothing is
#   compiled and no size is a symbol.
# Seen with: torch==2.13.0, numpy==2.4.6 (Python 3.11, x86-64), 2026-11-30.
# Guess before running: eager work imports nothing more than `import torch` did; torch._dynamo and sympy come with torch.compile or torch.export.
# Seen: torch.optim.Adam([weight]) wraps its methods by torch._compile, which imports torch._dynamo with all of sympy; to_empty goes through
#   meta kernels written in Python. Output:
#     import torch: no compiler, no sympy
#     a step of plain gradient descent: no compiler, no sympy
#     to_empty of a layer on meta: no compiler, sympy, at least 400 modules more
#     Adam made, no step yet: compiler, sympy, at least 800 modules more
# Matters because: a process that learns for a second starts for two or three more, and one that only loads a network built on meta for one; in
#   pipelines of many short jobs that is most of their time. edadm's descent and its reader of quantized files keep clear of both (`edadm/deferred.py`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6"
cat > "$folder/seen.py" <<'PY'
import sys

import torch

before = len(sys.modules)
weight = torch.nn.Parameter(torch.ones(3))
(weight**2).sum().backward()


def said(what: str) -> tuple[bool, bool, int]:
    compiler, sympy, more = "torch._dynamo" in sys.modules, "sympy" in sys.modules, len(sys.modules) - before
    least = f", at least {more // 100 * 100} modules more" if more >= 100 else ""
    print(f"{what}: {'' if compiler else 'no '}compiler, {'' if sympy else 'no '}sympy{least}")
    return compiler, sympy, more


if sys.argv[1] == "plain":
    assert said("import torch")[:2] == (False, False)
    with torch.no_grad():
        weight -= 0.1 * weight.grad
    assert said("a step of plain gradient descent")[:2] == (False, False)
elif sys.argv[1] == "meta":
    torch.nn.Linear(2, 2, device="meta").to_empty(device="cpu")
    compiler, sympy, more = said("to_empty of a layer on meta")
    assert (compiler, sympy) == (False, True) and more >= 400
else:
    torch.optim.Adam([weight])
    compiler, sympy, more = said("Adam made, no step yet")
    assert (compiler, sympy) == (True, True) and more >= 800
PY
for case in plain meta adam; do "$folder/venv/bin/python" "$folder/seen.py" "$case"; done
