"""Quantizes the bundled network by NNCF, onnxruntime and ModelOpt, and compares images with edadm's.

`peers.py RESULTS FOLDER`, from `.ci/peers`: results of the workflow for the model, and where to keep graphs.
"""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from diffusers.models.unets.unet_2d import UNet2DOutput
from safetensors.torch import load_file

from edadm.config.load import load_config
from edadm.console import say
from edadm.metrics.scores.psnr import psnr
from edadm.networks.load import load_network
from edadm.sampling.denoiser import Denoiser
from edadm.sampling.generate import generate_images

SPARED = ("conv_in", "conv_out")  # convolutions that stay in floating point where asked for
IMAGES, BATCH = 64, 32
Feed = dict[str, np.ndarray]
Call = Callable[[Feed], np.ndarray]


def float_graph(unet: torch.nn.Module, path: Path) -> Path:
    """The float network as an ONNX file, made as PyTorch's documentation says."""
    names = ["sample", "timestep"]
    batch = torch.export.Dim("n", min=1, max=1024)
    example = torch.zeros(2, 3, 32, 32), torch.zeros(2, dtype=torch.int64)
    program = torch.onnx.export(
        _Predicts(unet).eval(),
        example,
        dynamo=True,
        input_names=names,
        output_names=["out_sample"],
        dynamic_shapes=({0: batch}, {0: batch}),
        verbose=False,
    )
    program.save(path)
    model = onnx.load(path)
    first, *_, last = (node for node in model.graph.node if node.op_type == "Conv")
    first.name, last.name = SPARED
    onnx.save(model, path)
    return path


class _Predicts(torch.nn.Module):
    def __init__(self, unet: torch.nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        return self.unet(sample, timestep).sample


def nncf(graph: Path, rows: list[Feed], spared: Sequence[str], output: Path) -> Path:
    """By NNCF, of OpenVINO's form of the network."""
    import nncf as library
    import openvino

    model = openvino.convert_model(graph)
    found = [node for node in model.get_ordered_ops() if node.type_info.name == "Convolution"]
    names = [found[0].get_friendly_name(), found[-1].get_friendly_name()]
    scope = library.IgnoredScope(names=names) if spared else None
    quantized = library.quantize(model, library.Dataset(rows), ignored_scope=scope)
    openvino.save_model(quantized, output.with_suffix(".xml"), compress_to_fp16=False)
    return output.with_suffix(".xml")


def onnxruntime(graph: Path, rows: list[Feed], spared: Sequence[str], output: Path) -> Path:
    """By onnxruntime's static quantization: pairs of nodes, a scale for each output channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(rows)

        def get_next(self) -> Feed | None:  # type: ignore[override]
            return next(self.left, None)

    prepared = output.with_suffix(".prepared.onnx")
    quant_pre_process(graph, prepared, skip_symbolic_shape=True)  # it does not end with a free batch
    # All kinds of nodes but norms, on which it ends (findings/onnxruntime_copies_of_biases_take_names.sh).
    kinds = sorted({*QDQRegistry, *QLinearOpsRegistry} - {"InstanceNormalization"})
    options = {"quant_format": QuantFormat.QDQ, "per_channel": True, "op_types_to_quantize": kinds}
    quantize_static(prepared, output, Reader(), nodes_to_exclude=list(spared), **options)
    return output


def modelopt(graph: Path, rows: list[Feed], spared: Sequence[str], output: Path) -> Path:
    """By NVIDIA ModelOpt's quantization of ONNX files; what is not integer stays in fp32."""
    from modelopt.onnx.quantization import quantize

    own = Path(shutil.copy(graph, output.with_suffix(".float.onnx")))  # which it writes again
    stacked = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    quantize(
        str(own),
        calibration_data=stacked,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        nodes_to_exclude=list(spared),
        output_path=str(output),
    )
    return output


def opened(path: Path) -> Call:
    """A graph as a function of its inputs, by OpenVINO in fp32 or by onnxruntime."""
    if path.suffix == ".xml":
        import openvino

        hints = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = openvino.Core().compile_model(path, "CPU", hints)
        return lambda feed: compiled(feed)[0]
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)[0]


class _Called(torch.nn.Module):
    """A graph, called as the U-Net that it was."""

    family = "ddim"

    def __init__(self, call: Call):
        super().__init__()
        self.call = call

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, **_: Any) -> UNet2DOutput:
        feed = {"sample": sample.contiguous().numpy(), "timestep": timestep.expand(len(sample)).numpy()}
        return UNet2DOutput(torch.from_numpy(np.array(self.call(feed))))


def images_of(network: torch.nn.Module) -> torch.Tensor:
    """The images, from the same noises whichever network makes them."""
    config = load_config()
    model, settings = config.models["cifar10_small"], config.evaluations["quick"]
    sampling = model.sampler, model.schedule, range(IMAGES), model.latent_shape
    return generate_images(Denoiser(network), *sampling, settings.seed, BATCH)


def samples(file: Path) -> torch.Tensor:
    """As many images of a file of the workflow."""
    return torch.from_numpy(np.load(file)[:IMAGES])


def row(name: str, images: torch.Tensor, references: torch.Tensor) -> str:
    """A row of the table: the mean PSNR, its standard error, and the mean difference of each colour."""
    decibels = psnr(images, references)
    error = decibels.std().item() / len(decibels) ** 0.5
    colours = (images.float() - references.float()).mean((0, 2, 3)).tolist()
    moved = ", ".join(f"{colour:+.1f}" for colour in colours)
    return f"| {name} | {decibels.mean():.1f} +- {error:.1f} dB | {moved} |"


@torch.no_grad()
def main() -> None:
    """Prints the table, a row as soon as it is known."""
    results, folder = Path(sys.argv[1]), Path(sys.argv[2])
    unet = load_network(
        load_config().models["cifar10_small"].architecture, results / "fp32" / "unet.safetensors"
    )
    graph = float_graph(unet, folder / "float.onnx")
    calibration = load_file(results / "tdac" / "calibration.safetensors")
    inputs = zip(calibration["latents"].split(1), calibration["timesteps"].split(1), strict=True)
    rows = [{"sample": x.numpy(), "timestep": t.numpy()} for x, t in inputs]
    references = samples(results / "fp32" / "samples" / "0.npy")
    peers = {"onnxruntime": onnxruntime, "nncf": nncf, "nvidia-modelopt": modelopt}
    say(f"{len(rows)} calibration rows, {IMAGES} images; {platform.processor()}, torch {version('torch')}")
    say("| | PSNR to full precision | mean colour shift (of 255) |\n|---|---|---|")
    say(row("float graph by onnxruntime", images_of(_Called(opened(graph))), references))
    for name, quantize in peers.items():
        for spared in ((), SPARED):
            output = quantize(graph, rows, spared, folder / f"{name}_{len(spared)}.onnx")
            kept = ", `conv_in` and `conv_out` in floating point" if spared else ", defaults"
            made = images_of(_Called(opened(output)))
            say(row(f"{name} {version(name)}{kept}", made, references))
    for file in sorted(results.glob("tdac/**/samples/0.npy")):
        variant = file.parent.parent.relative_to(results)
        say(row(f"edadm, `{variant}`", samples(file), references))


main()
