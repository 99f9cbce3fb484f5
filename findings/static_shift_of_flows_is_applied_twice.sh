#!/usr/bin/env bash
# FINDING: diffusers' FlowMatchEulerDiscreteScheduler shifts the least level of noise of its own list twice, so that the last step of a flow begins at
#   three times the noise that the shift says, and the same shift said as a dynamic one gives another list.
# Seen with: diffusers==0.42.1, torch==2.13.0, numpy==2.4.6 (Python 3.11, x86-64), 2026-12-01.
# Guess before running: with shift 3 the list leads from 1 to shifted(1/1000) = 0.0030, and a dynamic shift with exp(mu) = 3 gives the same list, as the formulas
#   are equal: 3 s / (1 + 2 s) = 3 / (3 + 1/s - 1).
# Seen: the constructor shifts its table, whose least entry set_timesteps takes as the end of the list, which it shifts again; with dynamic shifting the
#   constructor shifts nothing. Output:
#     static shift 3: last level 0.00893, dynamic one of exp(mu) = 3: 0.00299
#     once: 0.00299, twice: 0.00893
#     of 28 steps the lists differ by up to 0.0059
# Matters because: Stable Diffusion 3's pipeline samples with the static list, so whoever computes levels from the paper's formula (or reads the shift and makes
#   it a dynamic one) is off by 0.006 of noise at the last step. edadm's `flow_euler` has both lists as they are (docs/sampling.md).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6" "diffusers==0.42.1"
"$folder/venv/bin/python" - <<'PY'
import math

from diffusers import FlowMatchEulerDiscreteScheduler

shifted = lambda s: 3 * s / (1 + 2 * s)
static = FlowMatchEulerDiscreteScheduler(shift=3.0)
static.set_timesteps(28)
dynamic = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
dynamic.set_timesteps(28, mu=math.log(3))
ends = static.sigmas[-2].item(), dynamic.sigmas[-2].item()
print(f"static shift 3: last level {ends[0]:.5f}, dynamic one of exp(mu) = 3: {ends[1]:.5f}")
print(f"once: {shifted(1e-3):.5f}, twice: {shifted(shifted(1e-3)):.5f}")
apart = (static.sigmas - dynamic.sigmas).abs().max().item()
print(f"of 28 steps the lists differ by up to {apart:.4f}")
assert abs(ends[0] - shifted(shifted(1e-3))) < 1e-6 and abs(ends[1] - shifted(1e-3)) < 1e-6
PY
