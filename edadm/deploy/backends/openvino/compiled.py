"""Graphs compiled for the shapes that they are called with, and kept on disk for the next process."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from numpy.typing import NDArray
from openvino import opset13 as ops

from edadm.deploy.backends.kept import digest_of, folder_for
from edadm.deploy.backends.openvino.graph import graph_of
from edadm.networks.family import Network

MOST_SHAPES = 3  # compiled at once; each has weights of its own
GRAPH = "graph.xml"
SETTINGS = {
    "INFERENCE_PRECISION_HINT": "f32",  # else bf16 between the integers, where the processor has it
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # else inputs without a grid may be given one
    "ENABLE_CPU_PINNING": "NO",  # else processes of one thread each take the same core
    "PERFORMANCE_HINT": "LATENCY",
}
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@cache
def core() -> openvino.Core:
    """OpenVINO in this process."""
    return openvino.Core()


@cache
def sums_are_exact() -> bool:
    """Whether OpenVINO's products of bytes are exact on this processor, tried out with the largest ones.

    Without VNNI sums of two products are cut off at int16.
    """
    weight = np.tile(np.array([127, -128], np.int8)[:, None], (16, 64))
    codes = np.full((1, 64, 8, 8), 255.0, np.float32)
    given = ops.parameter(codes.shape, np.float32)
    zero, top, one = (np.array([number], np.float32) for number in (0, 255, 1))
    grid = ops.fake_quantize(given, zero, top, zero, top, 256)
    wide = ops.multiply(ops.convert(ops.constant(weight[:, :, None, None]), "f32"), one)
    sums = ops.convolution(grid, wide, [1, 1], [0, 0], [0, 0], [1, 1])
    model = openvino.Model([sums], [given])
    found = core().compile_model(model, "CPU", SETTINGS)([codes])[0]
    return bool((found == (weight.astype(np.float32).sum(1) * 255)[None, :, None, None]).all())


class Graph:
    """A network's graph, and what was compiled of it.

    Graph and compiled networks lie in `kept.folder_for`, from where the next process takes both.

    Args:
        unet: a quantized U-Net on the CPU; left as it was.
    """

    def __init__(self, unet: Network):
        threads = {"INFERENCE_NUM_THREADS": str(torch.get_num_threads())}
        self.settings: dict[str, str] = SETTINGS | threads
        self.compiled: dict[Shapes, openvino.CompiledModel] = {}
        any_sums = sums_are_exact()
        known = [openvino.get_version(), any_sums, Path(__file__).with_name("graph.py").read_bytes()]
        folder = folder_for("graphs", digest_of(unet, known), lambda place: _write(place, unet, any_sums))
        self.model = _read(folder)
        if self.model is None:
            self.model = graph_of(unet, any_sums)
        else:
            self.settings["CACHE_DIR"] = str(folder)

    def __call__(self, rows: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """The prediction for inputs by name, after compiling for their shapes where they are new."""
        shapes = tuple((name, row.shape) for name, row in rows.items())
        if shapes not in self.compiled:
            model = self.model.clone()
            model.reshape({name: openvino.PartialShape(list(shape)) for name, shape in shapes})
            while len(self.compiled) >= MOST_SHAPES:
                del self.compiled[next(iter(self.compiled))]
            self.compiled[shapes] = core().compile_model(model, "CPU", self.settings)
        prediction: NDArray[Any] = self.compiled[shapes](dict(rows))[0]
        return prediction

    @property
    def nbytes(self) -> int:
        """Bytes of the graph's constants."""
        constants = (node for node in self.model.get_ops() if node.get_type_name() == "Constant")
        return sum(node.get_byte_size() for node in constants)


def _read(folder: Path | None) -> Any:
    """The graph that a folder keeps; None without one, and where it is damaged, after that was removed."""
    if folder is None:
        return None
    try:
        return core().read_model(folder / GRAPH)
    except RuntimeError:
        shutil.rmtree(folder, ignore_errors=True)
        return None


def _write(place: Path, unet: Network, any_sums: bool) -> None:
    openvino.save_model(graph_of(unet, any_sums), place / GRAPH, compress_to_fp16=False)
