"""The ONNX graph, run by onnxruntime, against the simulated model."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from edadm.cli import app_with
from edadm.config.schema import Bits
from edadm.deploy.checkpoint import save_quantized
from edadm.deploy.export import onnx as exporter
from edadm.deploy.export import onnx_graph as graphs
from edadm.deploy.export.onnx import TARGETS
from edadm.deploy.export.onnx_capture import OPSET
from edadm.deploy.export.onnx_graph import Target
from edadm.deploy.grids import quantized_copy
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.networks.settings.architecture import Architecture
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.passes.prepare import prepare
from edadm.quant import ranges

from ...conftest import as_rows
from ...networks.edited import CHANNELS, parts_of
from ...networks.families import FAMILIES, calibrated
from ...networks.single_file import WIDTH

Calibration = tuple[Tensor, Tensor]


def folded(unet: nn.Module, bits: Bits, calibration: Calibration) -> nn.Module:
    quantized = quantized_copy(unet, bits)
    prepare(quantized, as_rows(calibration), bits)
    for layer in quantized_layers(quantized).values():
        layer.set_codes(layer.nearest_codes())
    return quantized.eval()


@pytest.fixture
def w8a6(float_unet: nn.Module, calibration: Calibration) -> nn.Module:
    """8-bit weights, among them negated rows; 6-bit activations; split shortcuts; scales that differ, as learned ones do.

    The middle is smoothed.
    """
    middle: dict[str, float | None] = {"mid_block.*": 0.5}
    widths = {"weights": 8, "activations": 6, "softmax": 6, "range_batch_size": 8, "range_bins": 64}
    unet = folded(float_unet, Bits(**widths, smoothing_layers=middle), calibration)
    for index, quantizer in enumerate(activation_quantizers(unet).values()):
        quantizer.set_grid(quantizer.scale * (1 + 1e-3 * index), quantizer.zero_point)
    return unet


def outputs(path: Path, calibration: Calibration) -> Tensor:
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    rows = [  # a pipeline's call has one timestep
        session.run(None, {"sample": x[None].numpy(), "timestep": t.float().numpy()})[0]
        for x, t in zip(*calibration, strict=True)
    ]
    return torch.from_numpy(np.concatenate(rows))


@pytest.fixture
def exported(w8a6: nn.Module, architecture: Architecture, tmp_path: Path) -> Path:
    """Written by the command, from a checkpoint."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    bits = Bits(weights=8, activations=6, softmax=6)
    save_quantized(w8a6, tmp_path / "quantized.safetensors", architecture, bits, {})
    options = ["--format", "onnx", "--output", str(tmp_path / "unet.onnx")]
    run = CliRunner().invoke(app_with(), ["export", str(tmp_path / "quantized.safetensors"), *options])
    assert run.exit_code == 0, run.output
    return tmp_path / "unet.onnx"


@torch.no_grad()
def test_onnxruntime_computes_the_simulated_model(
    exported: Path, w8a6: nn.Module, float_unet: nn.Module, calibration: Calibration
) -> None:
    onnx = pytest.importorskip("onnx")
    for rows in (slice(8), slice(3)):
        batch = calibration[0][rows], calibration[1][rows]
        simulated, error = w8a6(*batch).sample, (w8a6(*batch).sample - float_unet(*batch).sample).abs().mean()
        difference = (outputs(exported, batch) - simulated).abs().flatten(1)
        assert (
            difference.mean() <= error
        )  # the bound of integer inference: tests/deploy/backends/test_onednn.py
        assert (difference.amax(1) < 1e-4).any()
    model = onnx.load(exported)
    onnx.checker.check_model(model)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [OPSET]
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == [
        "sample",
        "timestep",
        "out_sample",
    ]

    integers = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    segments = [
        module for module in exporter.export_graph(w8a6).modules() if isinstance(module, graphs._Segment)
    ]
    assert any(
        segment.sign is not None for segment in segments
    )  # rows that reach 128, which 6-bit activations leave whole
    expected = [part if part.dim() == 4 else part.t() for segment in segments for part in segment.parts]
    assert sorted(onnx.numpy_helper.to_array(tensor).tobytes() for tensor in integers) == sorted(
        w.contiguous().numpy().tobytes() for w in expected
    )
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    grids = activation_quantizers(w8a6)
    rounded = [name for name in grids if name.endswith("softmax_quantizer")]  # in nodes of arithmetic
    assert len([node for node in model.graph.node if node.op_type == "Round"]) == len(rounded) > 0
    assert len(pairs) + len(rounded) == sum(len(quantizer.segments) for quantizer in grids.values())
    assert len([node for node in model.graph.node if node.op_type == "DequantizeLinear"]) == len(pairs) + len(
        expected
    )


@torch.no_grad()
def test_weights_of_4_bits_may_take_4_bits(
    float_unet: nn.Module,
    bits: Bits,
    calibration: Calibration,
    architecture: Architecture,
    tmp_path: Path,
) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    onnx = pytest.importorskip("onnx")
    unet = folded(float_unet, bits, calibration)
    for layer in quantized_layers(unet).values():
        grid = layer.weight_quantizer
        grid.set_grid(
            grid.scale, torch.full_like(grid.zero_point, 2 ** (grid.bits - 1) - 1)
        )  # so that rows reach 8
        layer.set_codes(layer.nearest_codes())
    paths = {int4: tmp_path / f"{int4}.onnx" for int4 in (False, True)}
    for int4, path in paths.items():
        exporter.export_onnx(unet, path, Target(int4=int4))
    simulated, error = (
        unet(*calibration).sample,
        (unet(*calibration).sample - float_unet(*calibration).sample).abs().mean(),
    )
    assert (outputs(paths[True], calibration) - simulated).abs().mean() <= error
    model = onnx.load(paths[True])
    onnx.checker.check_model(model)
    narrow = [tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT4]
    layers = [layer for layer in quantized_layers(unet).values() if layer.weight_quantizer.bits == 4]
    assert len(narrow) == sum(len(layer.channel_sizes) for layer in layers) > 0
    weights = sum(layer.codes.numel() for layer in layers if layer.codes is not None)
    sizes = {
        int4: sum(len(tensor.raw_data) for tensor in onnx.load(path).graph.initializer)
        for int4, path in paths.items()
    }
    signs = sum(
        4 * len(layer.weight) * len(layer.channel_sizes) for layer in layers
    )  # fp32, of rows that reach 8
    assert sizes[False] - sizes[True] == pytest.approx(weights / 2, abs=signs)
    assert all(str(Path(onnx.__file__).parent).encode() not in path.read_bytes() for path in paths.values())


def outputs_of(path: Path, rows: Rows) -> Tensor:
    """What onnxruntime computes, row by row."""
    session = pytest.importorskip("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
    found = []
    for index in range(len(rows)):
        inputs = {
            exporter.input_name(name): tensor.float().numpy()
            for name, tensor in rows[index : index + 1].tensors.items()
        }
        inputs["timestep"] = inputs["timestep"].reshape(())
        found.append(torch.from_numpy(session.run(["out_sample"], inputs)[0]))
    return torch.cat(found)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_family_can_be_exported_for_any_size_and_fraction_of_timesteps(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    monkeypatch.setattr(ranges, "THRESHOLDS", 10)
    unet, quantized, rows = calibrated(
        family, Bits(weights=8, activations=8, range_bins=64, range_batch_size=4)
    )
    exporter.export_onnx(quantized, tmp_path / "unet.onnx")
    wide = {"latents": rows.latents.repeat(1, 1, 1, 2), "timesteps": rows.timesteps + 0.5}
    for given in (rows, Rows({**rows.tensors, **wide})[:2]):
        simulated, found = network_call(quantized, given), outputs_of(tmp_path / "unet.onnx", given)
        assert (found - simulated).abs().mean() <= (simulated - network_call(unet, given)).abs().mean()


@torch.no_grad()
@pytest.mark.parametrize("kind", CHANNELS)
def test_an_image_behind_the_noise_is_part_of_the_sample(kind: str, tmp_path: Path) -> None:
    """As diffusers' pipelines, and so optimum's, join them; the graph has no other input for it."""
    bits = Bits(weights=8, activations=8, range_bins=8, range_batch_size=2)
    unet = parts_of(kind)["unet"]
    quantized = quantized_copy(unet, bits)
    generator = torch.Generator().manual_seed(3)
    both = torch.randn(2, CHANNELS[kind], 8, 8, generator=generator)
    rows = Rows(
        {
            "latents": both[:, :4],
            "timesteps": torch.tensor([9, 700]),
            "context": torch.randn(2, 5, WIDTH, generator=generator),
            "image": both[:, 4:],
        }
    )
    prepare(quantized, rows, bits)
    for layer in quantized_layers(quantized).values():
        layer.set_codes(layer.nearest_codes())
    expected = network_call(quantized, rows)
    told = rows.tensors["timesteps"], rows.tensors["context"]
    assert torch.equal(graphs._Exported(quantized)(both, *told), expected)
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    session = pytest.importorskip("onnxruntime")
    exporter.export_onnx(quantized, tmp_path / "unet.onnx")
    run = session.InferenceSession(tmp_path / "unet.onnx", providers=["CPUExecutionProvider"])
    assert [value.name for value in run.get_inputs()] == ["sample", "timestep", "encoder_hidden_states"]
    for index in range(2):
        given = {
            "sample": both[index : index + 1].numpy(),
            "timestep": told[0][index].float().numpy(),
            "encoder_hidden_states": told[1][index : index + 1].numpy(),
        }
        found = torch.from_numpy(run.run(["out_sample"], given)[0])
        error = (expected[index] - network_call(unet, rows[index : index + 1])).abs().mean()
        assert (found - expected[index]).abs().mean() <= error


@torch.no_grad()
def test_tensorrt_gets_int8_around_zero_alone_and_the_same_numbers(
    w8a6: nn.Module, float_unet: nn.Module, calibration: Calibration, tmp_path: Path
) -> None:
    """Run by onnxruntime, in TensorRT's place: these rules are its documentation's, which nobody ran here."""
    onnx = pytest.importorskip("onnx")
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    exporter.export_onnx(w8a6, tmp_path / "unet.onnx", TARGETS["onnx_tensorrt"])
    batch = calibration[0][:3], calibration[1][:3]
    simulated = w8a6(*batch).sample
    error = (simulated - float_unet(*batch).sample).abs().mean()
    assert (outputs(tmp_path / "unet.onnx", batch) - simulated).abs().mean() <= error
    graph = onnx.load(tmp_path / "unet.onnx").graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type.endswith("tizeLinear")]
    assert len(nodes) == len([n for n in graph.node if "Linear" in n.op_type]) > 0
    for node in nodes:
        _, scale, *zero_point = (constants.get(name) for name in node.input)
        assert scale is not None
        assert (scale > 0).all()
        assert all(zero.dtype == np.int8 and not zero.any() for zero in zero_point)
    assert {np.dtype(np.int8)} == {c.dtype for c in constants.values() if c.dtype.itemsize == 1}


@torch.no_grad()
def test_onnxruntime_gets_whole_convolutions_and_the_same_numbers(
    w8a6: nn.Module, float_unet: nn.Module, calibration: Calibration, tmp_path: Path
) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    target = TARGETS["onnx_onnxruntime"]
    exporter.export_onnx(w8a6, tmp_path / "unet.onnx", target)
    batch = calibration[0][:3], calibration[1][:3]
    simulated = w8a6(*batch).sample
    error = (simulated - float_unet(*batch).sample).abs().mean()
    assert (outputs(tmp_path / "unet.onnx", batch) - simulated).abs().mean() <= error
    segments = [m for m in exporter.export_graph(w8a6, target).modules() if isinstance(m, graphs._Segment)]
    assert {len(segment.parts) for segment in segments if segment.parts[0].dim() == 4} == {1}


OPENVINO = """
import sys
import numpy as np
import openvino
core = openvino.Core()
core.set_property("CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
rows = np.load(sys.argv[2])
model = core.compile_model(sys.argv[1], "CPU")
rows = zip(rows["sample"], rows["timestep"].astype(np.float32))
np.save(sys.argv[3], np.concatenate([model({"sample": x[None], "timestep": np.asarray(t)})[0] for x, t in rows]))
"""


@pytest.mark.parametrize("target", ["onnx", "onnx_7bit", "onnx_uint8"])
@torch.no_grad()
def test_openvino_computes_it_without_vnni_too(
    target: str, float_unet: nn.Module, calibration: Calibration, tmp_path: Path
) -> None:
    """On a processor with VNNI its instructions are kept from OpenVINO, in a process of its own."""
    for name in ("onnx", "onnxscript", "openvino"):
        pytest.importorskip(name)
    unet = folded(
        float_unet, Bits(weights=8, activations=8, softmax=8, range_batch_size=8, range_bins=64), calibration
    )
    exporter.export_onnx(unet, tmp_path / "unet.onnx", TARGETS[target])
    np.savez(tmp_path / "rows.npz", sample=calibration[0].numpy(), timestep=calibration[1].numpy())
    files = [tmp_path / name for name in ("unet.onnx", "rows.npz", "eps.npy")]
    subprocess.run(
        [sys.executable, "-c", OPENVINO, *files], env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}, check=True
    )
    simulated, error = (
        unet(*calibration).sample,
        (unet(*calibration).sample - float_unet(*calibration).sample).abs().mean(),
    )
    difference = (torch.from_numpy(np.load(files[2])) - simulated).abs().mean()
    assert difference <= (2 if target == "onnx_7bit" else 1) * error


def test_a_network_that_no_file_holds_is_refused_before_it_is_exported(
    w8a6: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    exports: list[object] = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(exporter, "translated", lambda *given: exports.append(given))
    weights = sum(layer.weight.numel() for layer in quantized_layers(w8a6).values())
    monkeypatch.setattr(exporter, "LARGEST", weights)
    with pytest.raises(
        EdadmError, match=r"one ONNX file holds \S+ GiB, and the network has \S+; use backend 'integer'"
    ):
        exporter.onnx_program(w8a6)
    assert exports == []
    monkeypatch.setattr(exporter, "LARGEST", 5 * weights)
    with pytest.raises(AttributeError):  # nothing was exported here that could be looked at
        exporter.onnx_program(w8a6)
    assert len(exports) == 1


@pytest.mark.parametrize(("int4", "expected"), [(False, 6 + 5 + 4), (True, 3 + 5 + 4)])
def test_what_a_graph_will_store_is_counted(int4: bool, expected: int) -> None:
    graph = nn.Module()
    graph.register_buffer("narrow", torch.tensor([-8, 7, 0, 1, 2, 3], dtype=torch.int8))
    graph.register_buffer("wide", torch.tensor([-8, 8, 0, 1, 2], dtype=torch.int8))
    graph.register_buffer("scale", torch.zeros(1))
    assert exporter._stored_bytes(graph, Target(int4=int4)) == expected


def test_the_count_is_that_of_the_file(w8a6: nn.Module) -> None:
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    program = exporter.onnx_program(w8a6)
    stored = sum(value.const_value.nbytes for value in program.model.graph.initializers.values())
    counted = exporter._stored_bytes(graphs.export_graph(w8a6, TARGETS["onnx"]), TARGETS["onnx"])
    assert counted == pytest.approx(stored, rel=0.03)


def test_a_pair_of_6_bits_ends_where_the_grid_does(gridded: Callable[[], nn.Module]) -> None:
    quantizer = next(iter(activation_quantizers(gridded()).values()))
    quantizer.bits = 6
    quantizer.set_grid(torch.tensor([0.25]), torch.tensor([20.0]))
    pair = graphs._Pair(quantizer, 0)
    assert pair.range == (-5.0, 10.75)
    assert np.array_equal(
        quantizer(torch.tensor([-100.0, 100.0])).numpy(), np.array(pair.range, dtype=np.float32)
    )


@torch.no_grad()
def test_attention_may_be_left_in_floating_point(
    w8a6: nn.Module, calibration: Calibration, tmp_path: Path
) -> None:
    graph = exporter.export_graph(w8a6, Target(attention=False))
    kept = {name for name, module in graph.named_modules() if isinstance(module, graphs._Pair)}
    assert kept
    assert not [name for name in kept if "processor" in name]
    whole = {
        name
        for name, module in exporter.export_graph(w8a6).named_modules()
        if isinstance(module, graphs._Pair | graphs._Rounded)
    }
    assert (
        len([name for name in whole if "processor" in name])
        == len(whole) - len(kept)
        == 4 * len({n.rpartition(".")[0] for n in whole - kept})
    )


def test_without_onnx_the_command_says_what_to_install(
    w8a6: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        EdadmError, match=r"needs the package 'onnx'; install it with `pip install edadm\[onnx\]`"
    ):
        exporter.export_onnx(w8a6, tmp_path / "unet.onnx")
    assert not list(tmp_path.iterdir())
