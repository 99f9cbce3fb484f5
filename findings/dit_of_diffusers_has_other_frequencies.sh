#!/usr/bin/env bash
# FINDING: diffusers' DiT is not the function of the original DiT with other names: its timesteps are embedded with other frequencies.
# Seen with: diffusers==0.42.1, torch==2.13.0, numpy==2.4.6 (Python 3.11, x86-64), 2026-11-30.
# Source of the original: facebookresearch/DiT, models.py: frequency i of 128 is 10000^(-i / 128), and norms have eps 1e-6.
# Guess before running: weights of the makers' file compute the same in diffusers, since only names and the layout of query, key and value differ, and
#   published folders were converted from those files.
# Seen: diffusers divides by 127 in place of 128, so that the slowest frequency is 7 % lower, and every block's second norm has another eps. Output:
#     slowest frequency: original 1.0746e-04, diffusers 1.0000e-04
#     embedding of t = 999: differs by up to 1.94
#     eps of a block's norms: 1e-06 and 1e-05
# Matters because: a converter that is tested by "the same as diffusers" is right and still not the original's network; whoever compares images or
#   calibrates with one and samples with the other compares two networks. edadm computes DiT as diffusers does, and says so (docs/your_checkpoint.md).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6" "diffusers==0.42.1"
"$folder/venv/bin/python" - <<'PY'
import torch
from diffusers import DiTTransformer2DModel

network = DiTTransformer2DModel(num_attention_heads=2, attention_head_dim=8, num_layers=1, sample_size=8, num_embeds_ada_norm=10)
block = network.transformer_blocks[0]
time = torch.tensor([999.0])
theirs = block.norm1.emb.time_proj(time)
exponents = torch.arange(128) / 128
angles = time[:, None] * 10000.0 ** -exponents
original = torch.cat([angles.cos(), angles.sin()], 1)
slowest = torch.asin(block.norm1.emb.time_proj(torch.tensor([1.0]))[0, -1].double()).item()
print(f"slowest frequency: original {10000.0 ** -exponents[-1].item():.4e}, diffusers {slowest:.4e}")
largest = (theirs - original).abs().max().item()
print(f"embedding of t = 999: differs by up to {largest:.2f}")
eps = (block.norm1.norm.eps, block.norm3.eps)
print(f"eps of a block's norms: {eps[0]:.0e} and {eps[1]:.0e}")
assert abs(slowest - 1e-4) < 1e-8 and largest > 0.1 and eps == (1e-6, 1e-5)
PY
