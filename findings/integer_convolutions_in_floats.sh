#!/usr/bin/env bash
# FINDING: a float32 convolution of small integers is exact with oneDNN, and not when oneDNN is off and the batch reaches 16.
# Seen with: torch==2.13.0+cpu, numpy==2.4.6 (Python 3.11, x86-64, with AVX-512 and with AVX2 alone), 2026-11-30.
# Guess before running: sums of integers below 2^24 are exact in float32 in any order, so that every implementation gives the same bits.
# Seen: with `torch.backends.mkldnn` off, as in builds without oneDNN, batches of 15 are exact and batches of 16 are off by up to 5:
#   PyTorch then takes NNPACK, whose transforms (FFT, Winograd) round. With `torch.backends.nnpack` off, too, they are exact again.
#     batch 15 oneDNN 0 neither 0 NNPACK 0
#     batch 16 oneDNN 0 neither 0 NNPACK 5.27
# Matters because: integer inference that is emulated in floats (QDQ graphs, fake quantization, exact accumulators in tests) changes with
#   the batch size. edadm switches NNPACK off around such convolutions (edadm/kernels/cpu).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "torch==2.13.0" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PY'
import warnings

import torch

warnings.simplefilter("ignore")
generator = torch.Generator().manual_seed(0)
weight = torch.randint(-128, 128, (32, 64, 3, 3), generator=generator).float()
images = torch.randint(-128, 128, (16, 64, 16, 16), generator=generator).float()
exact = torch.nn.functional.conv2d(images.double(), weight.double(), padding=1)
assert exact.abs().max() < 2**24


def error(batch, mkldnn, nnpack):
    with torch.backends.mkldnn.flags(enabled=mkldnn), torch.backends.nnpack.flags(enabled=nnpack):
        found = torch.nn.functional.conv2d(images[:batch], weight, padding=1)
    return (found - exact[:batch]).abs().max().item()


rows = {batch: (error(batch, True, True), error(batch, False, False), error(batch, False, True)) for batch in (15, 16)}
for batch, (onednn, neither, nnpack) in rows.items():
    print(f"batch {batch} oneDNN {onednn:.3g} neither {neither:.3g} NNPACK {nnpack:.3g}")
assert rows[15] == (0, 0, 0) and rows[16][:2] == (0, 0) and rows[16][2] > 0
PY
