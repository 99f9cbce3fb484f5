"""Off-loading of quantized networks on a GPU; `accelerate` is asked for where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import edadm
from edadm.deploy.diffusers import QuantizedUNet
from edadm.errors import EdadmError

from ..conftest import Made

GPU = torch.device("cuda", 0)
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]


def sequential(unet: Any) -> None:
    pytest.importorskip("accelerate").cpu_offload(unet, GPU)


def as_one(unet: Any) -> None:
    pytest.importorskip("accelerate").cpu_offload_with_hook(unet, GPU)


def in_groups(kind: str) -> Callable[[Any], None]:
    def act(unet: Any) -> None:
        unet.enable_group_offload(GPU, torch.device("cpu"), offload_type=kind, num_blocks_per_group=1)

    return act


WAYS = {
    "sequential": sequential,
    "model": as_one,
    "blocks": in_groups("block_level"),
    "leaves": in_groups("leaf_level"),
}


def predicted(unet: nn.Module, rows: dict[str, Tensor]) -> Tensor:
    given = [rows[name].to(GPU) for name in ("latents", "timesteps", "context")]
    with torch.no_grad():
        return unet(*given).sample.cpu()


def there(made: Made, backend: str) -> QuantizedUNet:
    """The network for a GPU, waiting on the CPU."""
    return edadm.load(made[1], device=GPU, backend=backend).to("cpu")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", ["simulated", "cuda_int8"])
def test_networks_that_wait_on_the_cpu_predict_the_same(backend: str, way: str, made: Made) -> None:
    expected = predicted(edadm.load(made[1], device=GPU, backend=backend), made[2])
    unet = there(made, backend)
    if (backend, way) == ("cuda_int8", "leaves"):
        with pytest.raises(EdadmError, match="take offload_type='block_level'"):
            WAYS[way](unet)
        return
    WAYS[way](unet)
    for _ in range(2):
        torch.testing.assert_close(predicted(unet, made[2]), expected, rtol=1e-3, atol=1e-3)


def test_a_network_on_another_device_than_its_inputs_says_so(made: Made) -> None:
    for backend in ("simulated", "cuda_int8"):
        with pytest.raises(EdadmError, match=r"a part of this network lies on 'cpu' and was given"):
            predicted(there(made, backend), made[2])
    with pytest.raises(EdadmError, match=r"a part of this network lies on 'cpu' and was given"):
        predicted(edadm.load(made[1], backend="onednn"), made[2])
