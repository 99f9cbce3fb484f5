#!/usr/bin/env bash
# FINDING: with timestep_spacing="trailing", diffusers visits one timestep too many, -1, for 62 of the 1,000 possible numbers of steps.
# Seen with: diffusers==0.42.1, torch==2.13.0, numpy==2.4.6 (Python 3.11, x86-64), 2026-11-30.
# Guess before running: set_timesteps(n) gives n timesteps between 0 and 999 for every n, as trailing does for 20, 25, 30 and 50.
# Seen: the list is numpy.arange(1000, 0, -1000 / n), whose length is off by one where 1000 / n is rounded down; 61 is the smallest n, 103
#   and 121 are the next. The last entry rounds to 0 and becomes -1. DDIM reads alphas_cumprod[-1], that of the *noisiest* timestep, so
#   that its last step divides by almost nothing:
#     61 steps: 62 timesteps, the last three [32, 15, -1]
#     perfect denoiser of N(0.3, 0.5^2) with DDIM: 60 steps mean 0.27 std 0.49, 61 steps mean 4.10 std 6.24, 62 steps mean 0.28 std 0.48
#   DPM-Solver++, UniPC and Euler visit -1, too (a network is called with the time embedding of -1), and stay near the right mean.
# Matters because: `trailing` is the advised spacing for models with zero terminal SNR and for few steps, and pipelines take any number; the
#   picture of 61 DDIM steps is noise, without a warning. edadm refuses these numbers of steps and names the nearest that work.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6" "diffusers==0.42.1"
"$folder/venv/bin/python" - <<'PY'
import torch
from diffusers import DDIMScheduler

NOISE = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def scheduler() -> DDIMScheduler:
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    return DDIMScheduler(timestep_spacing="trailing", clip_sample=False, **betas)


def result(steps: int) -> tuple[float, float]:
    """Mean and spread of what a perfect denoiser of N(0.3, 0.5^2) leads to."""
    ddim = scheduler()
    ddim.set_timesteps(steps)
    x = NOISE
    for t in ddim.timesteps:
        alpha = ddim.alphas_cumprod[max(int(t), 0)].double()
        eps = (x - alpha**0.5 * 0.3) * (1 - alpha) ** 0.5 / (alpha * 0.25 + 1 - alpha)
        x = ddim.step(eps, t, x).prev_sample
    return x.mean().item(), x.std().item()


ddim, off = scheduler(), []
for steps in range(1, 1001):
    ddim.set_timesteps(steps)
    if len(ddim.timesteps) != steps:
        off.append(steps)
        assert len(ddim.timesteps) == steps + 1 and ddim.timesteps[-1] == -1
ddim.set_timesteps(61)
print(f"61 steps: {len(ddim.timesteps)} timesteps, the last three {ddim.timesteps[-3:].tolist()}")
print(f"{len(off)} of 1,000 numbers of steps have one timestep too many: {off[:8]} ...")
for steps in (60, 61, 62):
    mean, std = result(steps)
    print(f"perfect denoiser of N(0.3, 0.5^2), {steps} steps: mean {mean:.2f} std {std:.2f}")
assert off[:3] == [61, 103, 121]
assert abs(result(60)[0] - 0.3) < 0.05 and result(61)[0] > 2
PY
