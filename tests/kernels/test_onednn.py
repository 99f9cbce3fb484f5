"""Whether oneDNN's sums are exact is found out, not assumed."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from edadm.kernels import onednn
from edadm.kernels.onednn import Geometry, PackedConvolution, sums_are_exact


@pytest.mark.skipif(not sums_are_exact(), reason="this processor has neither VNNI nor AMX")
@pytest.mark.parametrize("channels", [1, 63, 64, 300])
def test_extreme_codes_do_not_overflow(channels: int) -> None:
    weight = torch.full((20, channels, 3, 3), 127, dtype=torch.int8)
    weight[1::2] = -128
    codes = torch.full((2, channels, 6, 5), 255, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    codes[1] = 0
    scale = torch.where(torch.arange(20) % 3 == 0, -0.5, 0.25)
    for zero_point in (0, 7, 255):
        output = PackedConvolution(weight, scale, 2.0, zero_point, Geometry(padding=(1, 1)))(codes)
        exact = F.conv2d(codes.double() - zero_point, weight.double(), padding=1) * 2 * scale.double().reshape(-1, 1, 1)
        assert torch.equal(output, exact.float())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets of x86")
def test_an_older_processor_is_found_out() -> None:
    program = "from edadm.kernels.onednn import sums_are_exact; print(sums_are_exact())"
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(Path(onednn.__file__).parents[2])}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
