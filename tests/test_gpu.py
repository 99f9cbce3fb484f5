"""The numeric core on a CUDA device, against the CPU."""

from __future__ import annotations

import copy
from pathlib import Path

import jaxtyping
import pytest
import torch
import zarr
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.benchmark.contest import Replayed
from edadm.benchmark.integer import BESIDE, FLOATS, TORCHAO, compare_with_integers
from edadm.benchmark.kernels import measure
from edadm.calibration.select import statistics_of
from edadm.config.load import load_config
from edadm.config.methods import METHODS
from edadm.config.schema import Bits, Memory, Model, Reconstruction
from edadm.deploy.backends.cuda_int8 import lower_for_cuda
from edadm.deploy.checkpoint import load_quantized, save_quantized
from edadm.deploy.grids import grids, quantized_copy, set_grids
from edadm.kernels.int8 import reference
from edadm.kernels.int8.products.convolution import int8_convolution, triton_convolution
from edadm.kernels.int8.products.geglu import triton_geglu
from edadm.kernels.int8.search import candidates
from edadm.kernels.int8.tiles import Problem
from edadm.learning.capture.arguments import Arguments
from edadm.learning.capture.data import UnitData
from edadm.learning.capture.demand import demand, work_bytes
from edadm.learning.steps.descent import Descent, align_layouts
from edadm.learning.steps.parameters import learning
from edadm.learning.steps.precision import arithmetic
from edadm.learning.steps.replay import stepping
from edadm.learning.task import Task
from edadm.learning.unit_store import FolderUnitStore
from edadm.networks.families import network_call
from edadm.networks.inputs import InputSpec
from edadm.networks.random_weights import random_network
from edadm.networks.units.trace import trace_units
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.offload.limits import GIB, Budget, on_disk, resolved
from edadm.passes.methods import run_method
from edadm.passes.ranges import set_ranges
from edadm.quant.affine import fake_quantize, qmin_qmax, scale_and_zero_point
from edadm.quant.streams import Stream
from edadm.sampling.collect import collect, open_store
from edadm.sampling.denoiser import Denoiser
from edadm.sampling.generate import generate_images
from edadm.sampling.replay import Replay

from .conftest import as_rows
from .kernels.int8.test_geglu import FAR
from .kernels.int8.test_geglu import arguments as feed_forward
from .learning.runs import same, state
from .learning.toys import float_block, quantized_block, unit_data

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device on this machine"),
]
CUDA = torch.device("cuda")
Calibration = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def cuda_unet(float_unet: UNet2DModel) -> UNet2DModel:
    return copy.deepcopy(float_unet).to(CUDA)


@pytest.fixture(scope="module")
def cuda_calibration(calibration: Calibration) -> Calibration:
    return calibration[0].to(CUDA), calibration[1].to(CUDA)


@pytest.fixture(scope="module", autouse=True)
def exact_convolutions() -> None:
    """No TF32, so that the devices agree to rounding."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def test_fake_quantization_and_its_gradients_are_those_of_the_cpu() -> None:
    x = torch.randn(4, 6, 8, 8, generator=torch.Generator().manual_seed(0))
    upstream = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    results = []
    for device in ("cpu", "cuda"):
        values = x.clone().to(device).requires_grad_()
        scale, zero_point = scale_and_zero_point(
            torch.tensor([-1.0], device=device), torch.tensor([1.5], device=device), 4
        )
        scale.requires_grad_()
        y = fake_quantize(values, scale, *qmin_qmax(zero_point, 4))
        y.backward(upstream.to(device))
        results.append([t.detach().cpu() for t in (y, values.grad, scale.grad)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_collected_trajectories_are_those_of_the_cpu(
    float_unet: UNet2DModel, cuda_unet: UNet2DModel, model: Model, tmp_path: Path
) -> None:
    groups = []
    for unet, device in ((float_unet, torch.device("cpu")), (cuda_unet, CUDA)):
        store = open_store(tmp_path / f"{device.type}.zarr", model, 0)
        collect(Denoiser(unet), unet.mid_block.attentions[0], model, store, device)
        groups.append(zarr.open_group(tmp_path / f"{device.type}.zarr", mode="r"))
    latents = [torch.from_numpy(group["latents"][:]) for group in groups]
    torch.testing.assert_close(latents[0], latents[1], rtol=1e-2, atol=1e-2)
    distances = [torch.from_numpy(statistics_of([group]).distance) for group in groups]
    torch.testing.assert_close(distances[0], distances[1], rtol=1e-2, atol=1e-4)


def test_replayed_calls_give_the_bytes_of_calls(cuda_unet: UNet2DModel, model: Model, tmp_path: Path) -> None:
    groups, images, captured = [], [], Replay()
    for name, replay in (("called", None), ("replayed", captured)):
        denoise = Denoiser(cuda_unet, replay=replay)
        store = open_store(tmp_path / f"{name}.zarr", model, 0)
        collect(denoise, cuda_unet.mid_block.attentions[0], model, store, CUDA, replay=replay)
        groups.append(store.content())
        run = (model.sampler, model.schedule, range(7), model.latent_shape, 0, 3, CUDA)
        images.append(generate_images(denoise, *run))
    assert groups[0] == groups[1]
    assert torch.equal(*images)
    assert captured.graphs >= 2  # with the feature of collection, and without


def test_ranges_are_within_a_threshold_of_those_of_the_cpu(
    cuda_unet: UNet2DModel, cuda_calibration: Calibration, ranges: dict[str, Tensor], bits: Bits
) -> None:
    unet = quantized_copy(cuda_unet, bits)
    set_ranges(unet, as_rows(cuda_calibration), bits)
    found = grids(unet)
    assert found.keys() == ranges.keys()
    for name, expected in ranges.items():
        if name.endswith(
            "weight_quantizer.zero_point"
        ):  # of two grids that are as good, either may win (quirk Q14)
            difference = found[name].cpu().int() - expected.int()
            assert difference.abs().max() <= 1, name
        elif name.endswith("zero_point"):
            assert torch.equal(found[name].cpu(), expected), name
        elif "weight_quantizer" in name:
            torch.testing.assert_close(found[name].cpu(), expected, rtol=0.05, atol=0)
        else:
            torch.testing.assert_close(found[name].cpu(), expected, rtol=0.1, atol=0)


def learned_block(kind: str, device: torch.device, graphs: bool, iterations: int) -> tuple[Tensor, Tensor]:
    """The loss of every step and the integer codes of a block that learns on a device, always from the same stream."""

    def there(arguments: Arguments) -> Arguments:
        return Arguments(
            {name: tensor.to(device) for name, tensor in arguments.tensors.items()}, arguments.others
        )

    block = float_block(kind)
    here = unit_data(kind, block, 16, 1)
    unit = quantized_block(block, here).to(device)
    targets = {name: tensor.to(device) for name, tensor in here.layer_targets.items()}
    data = UnitData(there(here.quantized), there(here.exact), here.target.to(device), targets)
    settings = Reconstruction(
        iterations=iterations, batch_size=8, weight_lr=0.05, scale_lr=1e-4, precision="fp32"
    )
    stream = Stream.of("block", step=torch.zeros((), dtype=torch.int32, device=device))
    with arithmetic("fp32"):
        align_layouts(unit, data)
        with learning(unit, settings, stream) as (alphas, sizes):
            descent = Descent(unit, data, settings, alphas, sizes, stream)
            with stepping(descent, graphs) as step:
                for _ in range(iterations):
                    step()
    codes = []
    for layer in quantized_layers(unit).values():
        layer.harden()
        assert layer.codes is not None
        codes.append(layer.codes.flatten().cpu())
    assert stream.step.item() == iterations
    return descent.losses.cpu(), torch.cat(codes)


@pytest.mark.parametrize("kind", ["shortcut", "attention"])
def test_a_unit_learns_the_same_with_and_without_graphs_and_nearly_that_on_the_cpu(kind: str) -> None:
    (replayed, codes), (eager, same) = (learned_block(kind, CUDA, graphs, 50) for graphs in (True, False))
    torch.testing.assert_close(replayed, eager, rtol=1e-3, atol=1e-6)
    assert (codes == same).double().mean() > 0.999
    (short, codes), (expected, same) = (
        learned_block(kind, device, True, 5) for device in (CUDA, torch.device("cpu"))
    )
    torch.testing.assert_close(
        short, expected, rtol=0.02, atol=1e-4
    )  # a value between two codes falls to either side
    assert (codes == same).double().mean() > 0.98


def test_reconstruction_lowers_errors_and_its_network_generates(
    cuda_unet: UNet2DModel,
    cuda_calibration: Calibration,
    ranges: dict[str, Tensor],
    bits: Bits,
    model: Model,
    tmp_path: Path,
) -> None:
    settings = Reconstruction(iterations=60, batch_size=4, weight_lr=0.05, scale_lr=1e-4)

    def run(folder: Path) -> tuple[nn.Module, list]:
        unet = quantized_copy(cuda_unet, bits)
        set_grids(unet, {name: tensor.to(CUDA) for name, tensor in ranges.items()})
        folder.mkdir(exist_ok=True)
        task = Task(
            cuda_unet,
            unet,
            trace_units(cuda_unet),
            as_rows(cuda_calibration),
            0,
            settings,
            FolderUnitStore(folder),
        )
        run_method(task)
        return unet, task.reports

    unet, reports = run(tmp_path / "units")
    improved = [report.after < report.before for _, report in reports]
    assert sum(improved) > 0.7 * len(improved)
    assert sum(report.after for _, report in reports) < 0.9 * sum(report.before for _, report in reports)
    again, same = run(tmp_path / "units")
    assert [report for _, report in same] == [report for _, report in reports]
    codes = [{name: layer.codes for name, layer in quantized_layers(u).items()} for u in (unet, again)]
    assert all(torch.equal(codes[0][name], codes[1][name]) for name in codes[0])
    save_quantized(unet, tmp_path / "quantized.safetensors", model.architecture, bits, {})
    images = []
    for device in ("cuda", "cpu"):
        denoise = Denoiser(load_quantized(tmp_path / "quantized.safetensors", device))
        images.append(
            generate_images(
                denoise, model.sampler, model.schedule, range(2), model.latent_shape, 0, 2, device
            )
        )
    difference = (images[0].int() - images[1].int()).abs().float()
    assert difference.mean() < 8  # rounding flips codes here and there, and five steps amplify that


# images, size, channels, rows of the weight, side of the window, stride, padding, number in the padding
INTEGER_LAYERS = [
    (4, 32, 128, 128, 3, 1, 1, 0),
    (3, 17, 224, 448, 3, 1, 1, -37),
    (2, 33, 320, 320, 3, 2, 0, 0),
    (2, 16, 96, 40, 1, 1, 0, 0),
    (5, 9, 3, 128, 3, 1, 1, 11),
    (2, 8, 128, 3, 3, 1, 1, -128),
    (1, 8, 2560, 1280, 3, 1, 1, 0),
    (5, 8, 128, 256, 3, 1, 1, 0),
    (300, 1, 128, 256, 1, 1, 0, 0),
    (20, 8, 96, 128, 3, 1, 1, 0),
    (3, 64, 320, 320, 3, 1, 1, 0),
    (5, 16, 320, 640, 1, 1, 0, 0),
    (70, 4, 128, 64, 3, 1, 1, 0),
]


@pytest.mark.parametrize("layer", INTEGER_LAYERS)
def test_integer_sums_are_exact_with_all_tiles(layer: tuple[int, ...]) -> None:
    images, size, channels, rows, side, stride, padding, zero = layer
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-128, 128, (images, size, size, channels), generator=generator, dtype=torch.int8)
    weight = torch.randint(-128, 128, (rows, side, side, channels), generator=generator, dtype=torch.int8)
    expected = reference.sums(x, weight, stride, padding, zero)  # below 2^24 by far for random numbers
    one, none = torch.ones(rows, device=CUDA), torch.zeros(rows, device=CUDA)
    problem = Problem(expected.numel() // rows, rows, channels, side, stride)
    arguments = x.to(CUDA), weight.to(CUDA), one, none, None, stride, padding, zero, torch.float32
    assert torch.equal(int8_convolution(*arguments).cpu(), expected.float())
    for tile in candidates(problem):
        assert torch.equal(triton_convolution(*arguments, tile).cpu(), expected.float()), tile


@pytest.mark.parametrize("kind", ["matrix", "descriptor"])
@pytest.mark.parametrize("size", [(1100, 320, 320), (2048, 1280, 640), (77, 48, 80)])
def test_feed_forward_numbers_are_those_of_the_meaning_with_all_tiles(
    size: tuple[int, int, int], kind: str
) -> None:
    given = feed_forward(*size)
    expected = reference.geglu(*given).int()
    for tile in candidates(Problem(size[0], 2 * size[1], size[2], 1, 1)):
        difference = (triton_geglu(*given, tile._replace(kind=kind, splits=1)).int() - expected).abs()
        assert difference.max() <= 1, tile
        assert (difference > 0).float().mean() < FAR, tile


@pytest.mark.parametrize("side", [1, 3])
def test_residuals_are_added_with_all_tiles(side: int) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(-128, 128, (3, 16, 16, 128), generator=generator, dtype=torch.int8).to(CUDA)
    weight = torch.randint(-128, 128, (256, side, side, 128), generator=generator, dtype=torch.int8).to(CUDA)
    scale, offset = (torch.randn(256, generator=generator).to(CUDA) for _ in range(2))
    for dtype in (torch.float32, torch.bfloat16):
        addend = torch.randn(3, 16, 16, 256, generator=generator).to(CUDA, dtype)
        arguments = x, weight, scale * 1e-4, offset, addend, 1, side // 2, 0, dtype
        expected, step = reference.convolution(*arguments), torch.finfo(dtype).eps
        sums = (
            2 * torch.finfo(torch.float32).eps * addend.abs().max().item()
        )  # where an addend takes most of a product away
        for tile in candidates(Problem(3 * 16 * 16, 256, 128, side, 1)):
            found = triton_convolution(*arguments, tile)
            torch.testing.assert_close(
                found, expected, rtol=2 * step, atol=sums, msg=lambda text, tile=tile: f"{tile}: {text}"
            )


def test_the_integer_network_agrees_with_the_simulated_one(
    cuda_unet: UNet2DModel, cuda_calibration: Calibration, ranges: dict[str, Tensor], bits: Bits
) -> None:
    simulated = quantized_copy(cuda_unet, bits)
    set_grids(simulated, {name: tensor.to(CUDA) for name, tensor in ranges.items()})
    for layer in quantized_layers(simulated).values():
        layer.set_codes(layer.nearest_codes())
    for name, quantizer in activation_quantizers(simulated).items():
        quantizer.enabled = "processor" not in name  # the integer network has no grids in attention
    x, timesteps = cuda_calibration
    with torch.no_grad():
        expected, exact = simulated(x, timesteps).sample, cuda_unet(x, timesteps).sample
        quantization = (expected - exact).square().mean().sqrt()
        for dtype, bound in (
            (torch.float32, 1.0),
            (torch.bfloat16, 2.0),
        ):  # as in tests/deploy/backends/test_cuda_int8.py
            for fuse in (False, True):
                eager = lower_for_cuda(simulated, dtype, fuse=fuse)(x.to(dtype), timesteps).sample.float()
                assert (eager - expected).square().mean().sqrt() < bound * quantization


@pytest.mark.parametrize("method", ["fbr", "layer"])
def test_limits_of_memory_change_no_bit_and_lower_the_peak(
    method: str, cuda_unet: UNet2DModel, ranges: dict[str, Tensor], bits: Bits, model: Model, tmp_path: Path
) -> None:
    rows, generator = 512, torch.Generator().manual_seed(3)
    inputs = (
        torch.randn(rows, *model.latent_shape, generator=generator).to(CUDA),
        torch.arange(0, rows, device=CUDA) % 1000,
    )
    settings = Reconstruction(
        method=method, iterations=8, batch_size=8, weight_lr=0.05, scale_lr=1e-4, chain_batch_size=32
    )
    units = trace_units(cuda_unet, METHODS[method].by_layer)
    kept = demand(cuda_unet, units, as_rows(inputs), settings).of_peak()

    def run(name: str, memory: Memory | None) -> tuple[dict[str, Tensor], list, int]:
        unet = quantized_copy(cuda_unet, bits)
        set_grids(unet, {name: tensor.to(CUDA) for name, tensor in ranges.items()})
        (tmp_path / name).mkdir()
        task = Task(
            cuda_unet,
            unet,
            units,
            as_rows(inputs),
            0,
            settings,
            FolderUnitStore(tmp_path / name),
            memory=memory,
            scratch=tmp_path / "scratch",
        )
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run_method(task)
        return state(unet), [report for _, report in task.reports], torch.cuda.max_memory_allocated() - before

    expected, reports, peak = run("free", None)
    assert peak > 0.8 * kept
    for name, device, host in (("host", kept // 10, kept), ("disk", kept // 10, kept // 10), ("none", 0, 0)):
        found, same_reports, lower = run(name, Memory(device=device / GIB, host=host / GIB))
        assert same(found, expected), name
        assert same_reports == reports, name
        assert lower < peak - 0.6 * kept, (name, lower, peak, kept)
        assert name == "host" or list((tmp_path / "scratch").iterdir()) == []


def test_without_wishes_nothing_leaves_a_gpu_with_room(
    cuda_unet: UNet2DModel, cuda_calibration: Calibration, bits: Bits
) -> None:
    settings = Reconstruction(batch_size=4)
    needed = demand(cuda_unet, trace_units(cuda_unet), as_rows(cuda_calibration), settings)
    work = work_bytes(needed, quantized_copy(cuda_unet, bits), settings)
    found = resolved(Budget(), CUDA, needed, work)
    free, _ = torch.cuda.mem_get_info()
    assert needed.of_peak() < found.device < free + torch.cuda.memory_reserved()
    assert on_disk(needed, found) == 0


def test_integer_networks_compete_with_floating_point(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        jaxtyping.config, "jaxtyping_disable", True
    )  # the compiler does not see through type checks
    model = load_config({}).models["cifar10_small"]
    bits, beside = (
        {"w4a8": load_config({}).bits["w4a8"]},
        [name for name in BESIDE if name != FLOATS[2]],
    )  # each takes its time to compile
    found = compare_with_integers(
        random_network(model, CUDA), bits, InputSpec.of(model).random(4, CUDA), beside=beside
    )
    integers = {"integer w4a8", "integer w4a8 fused"}
    assert set(found["networks"]) == {*integers, *beside}
    for name, row in found["networks"].items():
        assert ("ms" in row and row["ms"] > 0 and row["warm_evaluation_gib"] > 0) or (
            name == TORCHAO and "failed" in row
        ), (name, row)
    assert set(found["profiles"]) - {TORCHAO} == {*integers, FLOATS[1]}
    assert (
        found["networks"]["integer w4a8"]["weight_bytes"] < found["networks"][FLOATS[1]]["weight_bytes"] * 0.3
    )
    products = "implicit_gemm_kernel", "conv_tma_kernel", "conv_wgmma_kernel"
    norms = "normalise_kernel", "group_norm_resident_kernel"
    for name, kernels in (("integer w4a8", products), ("integer w4a8 fused", norms)):
        assert any(event["kernel"].startswith(kernels) for event in found["profiles"][name])


def test_a_replayed_network_gives_what_it_gave_before() -> None:
    model = load_config({}).models["cifar10_small"]
    network, inputs = random_network(model, CUDA), InputSpec.of(model).random(2, CUDA)
    with torch.no_grad():
        expected = network_call(network, inputs).clone()
        replayed = Replayed(network, inputs)
        replayed.output[0].zero_()
        torch.testing.assert_close(network_call(replayed, inputs), expected, rtol=1e-3, atol=1e-4)


def test_kernels_are_measured_with_the_tiles_that_were_found(tmp_path: Path) -> None:
    shapes = {
        Problem(2 * 16 * 16, 64, 64, 3, 1): (2, 16, 16, 64),
        Problem(2 * 8 * 8, 64, 32, 3, 2): (2, 17, 17, 32),
    }
    for row in measure(shapes, search=True, processes=2):
        assert row["int8_ms"] == min(row["tried"].values())
        assert row["ratio"] == pytest.approx(row["bf16_ms"] / row["int8_ms"])
