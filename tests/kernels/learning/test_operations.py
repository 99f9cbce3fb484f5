"""Each kernel against its plain meaning, forward and backward; interpreted on the CPU without a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edadm.kernels.learning import operations
from edadm.kernels.learning.fake_quantize import FakeQuantize
from edadm.kernels.learning.geometry import is_dense, memory_like
from edadm.kernels.learning.rows import RowsError, mixed_rows
from edadm.kernels.learning.soft_weight import SoftWeight
from edadm.offload.cache import Memory
from edadm.offload.limits import Limits
from edadm.offload.paused import PausedMemory
from edadm.quant.affine import qmin_qmax
from edadm.quant.streams import Stream

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
RAGGED = [(3, 5, 7, 9), (2, 6, 8, 8), (5, 33), (2, 7, 12), (4, 1, 1, 1)]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dispatch` is the plain meaning in these tests, on a GPU too."""
    monkeypatch.setattr(operations, "has_kernels", lambda *tensors: False)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def stream(step: int = 3) -> Stream:
    return Stream.of("test", step=torch.tensor(step, dtype=torch.int32, device=DEVICE))


def layouts(x: Tensor) -> list[Tensor]:
    return [x, x.to(memory_format=torch.channels_last)] if x.dim() == 4 else [x]


def with_gradients(function, inputs: list[Tensor], upstream: Tensor) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    output = function(*leaves)
    return [output.detach(), *torch.autograd.grad(output, leaves, upstream)]


@pytest.mark.parametrize("shape", RAGGED)
@pytest.mark.parametrize("drop", [0.0, 0.5])
@pytest.mark.parametrize("bits", [4, 8])
def test_fake_quantization(shape: tuple[int, ...], drop: float, bits: int) -> None:
    for x in layouts(3 * random(*shape)):
        for segments in (
            [(shape[1],), (2, shape[1] - 2)] if shape[1] > 2 and len(shape) == 4 else [(shape[1],)]
        ):
            scale = torch.tensor([0.31, 0.17][: len(segments)], device=DEVICE) / (1 if bits == 4 else 9)
            zero_point = torch.tensor([2.0 ** (bits - 1), 3.0][: len(segments)], device=DEVICE)
            ends, upstream = qmin_qmax(zero_point, bits), random(*shape, seed=1)
            arguments = (zero_point, bits, segments)
            kernel = with_gradients(
                lambda x, s, a=arguments: FakeQuantize.apply(x, s, *a, drop, stream()),
                [x, scale],
                upstream,
            )
            meaning = with_gradients(
                lambda x, s, a=arguments, e=ends: operations.fake_quantize(
                    x, s, *a, e, drop, stream() if drop else None
                ),
                [x, scale],
                upstream,
            )
            for one, other in zip(kernel, meaning, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
            assert kernel[0].stride() == x.stride()


def test_fake_quantization_of_values_far_outside_the_grid_and_between_its_points() -> None:
    scale, zero_point = torch.tensor([0.5], device=DEVICE), torch.tensor([8.0], device=DEVICE)
    x = torch.tensor([[-1e30, 1e30, 0.25, 0.75, -0.25, 3.7, 0.0, 1e-30]], device=DEVICE)
    y = FakeQuantize.apply(x, scale, zero_point, 4, (8,), 0.0, None)
    assert y.tolist() == [[-4.0, 3.5, 0.0, 1.0, 0.0, 3.5, 0.0, 0.0]]


@pytest.mark.parametrize("shape", [(6, 5, 3, 3), (4, 9), (8, 16, 1, 1)])
def test_soft_weights(shape: tuple[int, ...]) -> None:
    for weight in layouts(random(*shape)):
        for segments in [(shape[1],), (2, shape[1] - 2)]:
            generator = torch.Generator().manual_seed(2)
            scale = (0.1 + torch.rand(shape[0], len(segments), generator=generator)).to(DEVICE)
            zero_point = torch.full_like(scale, 8.0)
            base, alpha = (4 * weight).floor() + 8, 3 * weight
            arguments = (scale, zero_point, 4, segments)
            kernel = with_gradients(
                lambda a, b=base, rest=arguments: SoftWeight.apply(b, a, *rest),
                [alpha],
                random(*shape, seed=3),
            )
            meaning = with_gradients(
                lambda a, b=base, rest=arguments: operations.soft_weight(b, a, *rest),
                [alpha],
                random(*shape, seed=3),
            )
            for one, other in zip(kernel, meaning, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(9, 5, 7, 6), (9, 33), (9, 4, 3)])
@pytest.mark.parametrize("probability", [0.5, 0.1, 1.0])
def test_mixed_rows(shape: tuple[int, ...], probability: float) -> None:
    rows = torch.tensor([8, 0, 3], device=DEVICE)
    for a, b in zip(layouts(random(*shape)), layouts(random(*shape, seed=1)), strict=True):
        kernel = mixed_rows(a, b, rows, probability, stream())
        assert torch.equal(kernel, operations.mixed_rows(a, b, rows, probability, stream()))
        share = (kernel == a[rows]).float().mean().item()
        assert abs(share - probability) < 0.15


@pytest.mark.parametrize("shape", [(9, 5, 7, 6), (9, 33), (9, 4, 3)])
def test_errors_against_rows(shape: tuple[int, ...]) -> None:
    rows = torch.tensor([8, 0, 3], device=DEVICE)
    for output in layouts(random(3, *shape[1:])):
        for target in layouts(random(*shape, seed=1)):
            upstream = torch.tensor(0.7, device=DEVICE)
            kernel = with_gradients(lambda o, t=target, r=rows: RowsError.apply(o, t, r), [output], upstream)
            meaning = with_gradients(
                lambda o, t=target, r=rows: operations.rows_error(o, t, r), [output], upstream
            )
            for one, other in zip(kernel, meaning, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_masks_differ_from_step_to_step_and_from_consumer_to_consumer() -> None:
    x = torch.ones(4, 8, 16, 16, device=DEVICE)
    masks = [
        mixed_rows(x, 0 * x, torch.arange(4, device=DEVICE), 0.5, s)
        for s in (stream(), stream(4), stream().child("other"))
    ]
    for i in range(3):
        assert abs(masks[i].mean().item() - 0.5) < 0.02
        for j in range(i):
            assert abs((masks[i] == masks[j]).float().mean().item() - 0.5) < 0.02


def test_density_of_memory() -> None:
    x = torch.zeros(2, 3, 4, 5)
    assert is_dense(x)
    assert is_dense(x.to(memory_format=torch.channels_last))
    assert not is_dense(x[:, :2])
    assert not is_dense(x[:, :, ::2])
    assert not is_dense(x.expand(2, 3, 4, 5)[:1].expand(2, 3, 4, 5))
    assert not is_dense(torch.zeros(3, 4).T)  # rows are not outermost
    assert is_dense(memory_like(x[:, :2]))
    assert (
        memory_like(x, x.to(memory_format=torch.channels_last)).stride()
        == x.to(memory_format=torch.channels_last).stride()
    )


def test_a_kernel_finds_an_input_that_waited_elsewhere() -> None:
    scale, zero_point = torch.tensor([0.3], device=DEVICE), torch.tensor([8.0], device=DEVICE)
    expected = FakeQuantize.apply(random(3, 5), scale, zero_point, 4, (5,), 0.0, None)
    waiting = PausedMemory(Memory(torch.device(DEVICE), Limits(device=0)))
    with waiting:
        x = random(3, 5) + 0
    waiting.settle()
    assert x.untyped_storage().nbytes() == 0
    with waiting, torch.no_grad():
        found = FakeQuantize.apply(x, scale, zero_point, 4, (5,), 0.0, None)
    assert torch.equal(found, expected)
