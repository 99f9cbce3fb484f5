"""Networks computed by OpenVINO against the simulated model."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edadm
from edadm.config.backends import BACKENDS
from edadm.config.schema import Bits
from edadm.deploy.backends.base import lower
from edadm.deploy.checkpoint import save_quantized
from edadm.deploy.diffusers import QuantizedUNet
from edadm.deploy.export.onnx_capture import translated
from edadm.deploy.export.onnx_graph import Target, replacements
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.nn.attention import QuantizedAttnProcessor
from edadm.nn.layers import QuantizedConv2d, QuantizedLinear
from edadm.quant import ranges

from ...networks.families import FAMILIES, calibrated, tiny
from ...networks.pixart import tiny_pixart
from ...networks.sdxl import calibrated_sdxl
from ...networks.single_file import unet_of
from .test_onednn import IMAGE_BOUND, filled, parts

W8A8 = Bits(weights=8, activations=8, softmax=8, range_bins=64, range_batch_size=4)
Made = tuple[QuantizedUNet, QuantizedUNet, Rows]


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Skips where OpenVINO is not installed; the folder in which it keeps graphs."""
    pytest.importorskip("openvino")
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("EDADM_CACHE", str(folder))
        yield folder


def few_thresholds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ranges, "THRESHOLDS", 10)


def of_largest(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).abs().max() / exact.abs().max()).item()


def mean_difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().mean().item()


class Scored(nn.Module):
    """Attention's first product, of a query that begins at zero with a key."""

    def __init__(self) -> None:
        super().__init__()
        self.processor = QuantizedAttnProcessor(8, 8)
        self.processor.query_quantizer.set_grid(torch.tensor([2.0**-5]), torch.tensor([0.0]))
        self.processor.key_quantizer.set_grid(torch.tensor([2.0**-5]), torch.tensor([128.0]))

    def forward(self, x: Tensor) -> Tensor:
        query, key = x.chunk(2, -1)
        return torch.bmm(
            self.processor.query_quantizer(query), self.processor.key_quantizer(key).transpose(-1, -2)
        )


class Mixed(nn.Module):
    """Attention's second product, of the softmax of the first channels with the last ones."""

    def __init__(self) -> None:
        super().__init__()
        self.processor = QuantizedAttnProcessor(8, 8)
        self.processor.softmax_quantizer.set_grid(torch.tensor([0.5 / 255]), torch.tensor([0.0]))
        self.processor.value_quantizer.set_grid(torch.tensor([2.0**-5]), torch.tensor([128.0]))

    def forward(self, x: Tensor) -> Tensor:
        scores, value = x.split((KEYS, x.shape[-1] - KEYS), -1)
        return torch.bmm(
            self.processor.softmax_quantizer(scores.softmax(-1)), self.processor.value_quantizer(value)
        )


KEYS = 16
NEIGHBOURS = torch.eye(KEYS // 2).repeat_interleave(2, 0).repeat_interleave(2, 1).expand(2, -1, -1)
SHARED = torch.cat([30 * NEIGHBOURS, parts((2, KEYS // 2, 8)).repeat_interleave(2, 1)], -1)
LIKE = torch.cat([8 + parts((2, 6, 16)), 4 + parts((2, 6, 16))], -1)  # sums of products of one sign
LAYER_BOUND = 1e-6  # of a layer's largest output; 5e-8 was seen, a bit of fp32
LAYERS = {
    name: (layer, x, sizes, zero_points)
    for name, layer, x, sizes, zero_points in (
        ("3x3", nn.Conv2d(24, 40, 3, padding=1), parts((2, 24, 9, 7)), (24,), (0,)),
        ("1x1 of two segments", nn.Conv2d(24, 16, 1), parts((2, 24, 8, 8)), (8, 16), (128, 3)),
        ("linear", nn.Linear(24, 12), parts((2, 5, 24)), (24,), (91,)),
        ("attention of two neighbours each", Mixed, SHARED, (), ()),
        ("attention of a query from zero", Scored, LIKE, (), ()),
    )
}
COMPUTE = """
import sys
import numpy, openvino
settings, rows = dict(zip(sys.argv[2::2], sys.argv[3::2])), numpy.load(sys.argv[1] + "/rows.npz")
core = openvino.Core()
found = {name: core.compile_model(f"{sys.argv[1]}/{name}", "CPU", settings)([rows[name]])[0] for name in rows}
numpy.savez(sys.argv[1] + "/found.npz", **found)
"""


@pytest.fixture(scope="module")
def layers(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """Graphs of layers with the largest codes in two forms, as this backend has them and as a file, their inputs, and what they compute in double precision."""
    for name in ("onnx", "onnxscript"):
        pytest.importorskip(name)
    import openvino

    from edadm.deploy.backends.openvino.graph import replacements as traced

    folder, rows, exact = tmp_path_factory.mktemp("layers"), {}, {}
    for name, (float_layer, x, sizes, zero_points) in LAYERS.items():
        if isinstance(float_layer, type):
            layer: nn.Module = float_layer()
        else:
            kind = QuantizedConv2d if isinstance(float_layer, nn.Conv2d) else QuantizedLinear
            layer = filled(kind(float_layer, 8, 8, sizes), zero_points)
        for form in ("exact", "full"):
            own = copy.deepcopy(layer, dict(traced(layer, any_sums=form == "full"))).eval()
            graph = openvino.convert_model(own, example_input=x)
            openvino.save_model(graph, folder / f"{name}, {form}.xml", compress_to_fp16=False)
            memo: dict[int, Any] = dict(replacements(layer, Target(form=form)))
            written = copy.deepcopy(layer, memo).eval()
            file = folder / f"{name}, {form}.onnx"
            translated(written, [x], [()], lambda count: None).save(file, external_data=False)
        forms = [f"{name}, {form}.{kind}" for form in ("exact", "full") for kind in ("xml", "onnx")]
        rows |= dict.fromkeys(forms, x.numpy())
        exact |= dict.fromkeys(forms, layer.double()(x.double()))
    np.savez(folder / "rows.npz", **rows)
    return folder, exact


@pytest.mark.parametrize("instructions", ["AVX2", "ALL"])
@torch.no_grad()
def test_a_layer_computes_the_sums_of_its_codes_exactly(
    instructions: str, layers: tuple[Path, dict[str, Tensor]]
) -> None:
    """With AVX2 alone, the instructions of VNNI are kept from OpenVINO, in a process of its own; there, weights as they are come out wrong."""
    folder, expected = layers
    from edadm.deploy.backends.openvino.compiled import SETTINGS

    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
    settings = [word for pair in SETTINGS.items() for word in pair]
    subprocess.run([sys.executable, "-c", COMPUTE, folder, *settings], env=environment, check=True)
    found = np.load(folder / "found.npz")
    error = {name: of_largest(torch.from_numpy(found[name]), exact) for name, exact in expected.items()}
    for kind in ("xml", "onnx"):
        assert max(error[f"{name}, exact.{kind}"] for name in LAYERS) < LAYER_BOUND
        if instructions == "AVX2":
            assert min(error[f"{name}, full.{kind}"] for name in LAYERS) > 0.1


@pytest.mark.long  # half a minute each; `made` is one of them
@pytest.mark.parametrize("family", [*FAMILIES, "sdxl"])
@torch.no_grad()
def test_every_family_predicts_what_its_simulation_does(
    family: str, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_thresholds(monkeypatch)
    monkeypatch.setenv("EDADM_CACHE", str(tmp_path))  # `runtime` is for the graph of `made` alone
    unet, quantized, rows = calibrated_sdxl(W8A8) if family == "sdxl" else calibrated(family, W8A8)
    lowered = lower(quantized, backend="openvino")
    if family == "sdxl":
        assert lowered.add_embedding.linear_1.in_features == 34
    simulated = network_call(quantized, rows)
    bound = IMAGE_BOUND * mean_difference(simulated, network_call(unet, rows))
    one_by_one = [network_call(lowered, rows[i : i + 1]) for i in range(len(simulated))]
    for found in (network_call(lowered, rows), torch.cat(one_by_one)):
        assert mean_difference(found, simulated) <= bound  # of all images: one alone scatters more


@pytest.fixture(scope="module")
def made(runtime: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The tiny Stable Diffusion network, simulated and by OpenVINO, and rows; to be left as they are."""
    path = tmp_path_factory.mktemp("openvino") / "quantized.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        few_thresholds(patch)
        _, quantized, rows = calibrated("sd14_coco", W8A8)
    save_quantized(quantized, path, tiny("sd14_coco").architecture, W8A8, {})
    return edadm.load(path), edadm.load(path, backend="openvino"), rows


def named(rows: Rows, **others: Any) -> dict[str, Any]:
    """The arguments as pipelines give them."""
    own = {"sample": "latents", "timestep": "timesteps", "encoder_hidden_states": "context"}
    empty = {"cross_attention_kwargs": {}, "added_cond_kwargs": None}
    return {name: rows.tensors[key] for name, key in own.items()} | empty | others


@torch.no_grad()
def test_it_is_called_as_the_network_of_diffusers(made: Made) -> None:
    simulated, unet, rows = made
    expected = unet(**named(rows)).sample
    difference = mean_difference(expected, simulated(**named(rows)).sample)
    assert (
        difference < 0.05 * expected.std().item()
    )  # 0.034 was seen; the error of its grids is the bound above
    assert type(unet) is type(simulated)
    assert type(unet(**named(rows))) is type(simulated(**named(rows)))
    assert (unet.dtype, unet.device.type, unet.backend) == (torch.float32, "cpu", "openvino")
    assert unet.config["sample_size"] == simulated.config["sample_size"]
    assert torch.equal(unet(**named(rows), return_dict=False)[0], expected)
    assert torch.equal(copy.deepcopy(unet)(**named(rows)).sample, expected)
    last_channels = rows.latents.contiguous(memory_format=torch.channels_last)
    assert torch.equal(unet(**named(rows, sample=last_channels)).sample, expected)
    for time in (400, 400.0, torch.tensor(400), torch.tensor([400.0])):
        assert torch.equal(unet(**named(rows, timestep=time)).sample[1], expected[1])


LORA = {f"unet.conv_in.lora_{side}.weight": torch.zeros(1, 1, 1, 1) for side in "AB"}
REFUSED: dict[str, tuple[Callable[[Any, Rows], object], str]] = {
    "a move": (lambda unet, rows: unet.to("meta"), "a CPU stays there and in fp32, and cannot go to meta"),
    "a cast": (lambda unet, rows: unet.half(), "cannot go to cpu in torch.float16"),
    "a mask": (
        lambda unet, rows: unet(**named(rows, encoder_attention_mask=torch.ones(4, 5))),
        "takes no encoder_attention_mask; leave it out, or load with backend 'simulated'",
    ),
    "another size": (
        lambda unet, rows: unet(**named(rows, sample=torch.zeros(4, 4, 16, 8))),
        "takes sample of 4 x 4 x 8 x 8 alone, not of 4 x 4 x 16 x 8",
    ),
    "tokens of another width": (
        lambda unet, rows: unet(**named(rows, encoder_hidden_states=torch.zeros(4, 5, 23))),
        "takes encoder_hidden_states of 4 x any x 24 alone, not of 4 x 5 x 23",
    ),
    "one context for all": (
        lambda unet, rows: unet(**named(rows, encoder_hidden_states=torch.zeros(1, 5, 24))),
        "takes encoder_hidden_states of 4 x any x 24 alone, not of 1 x 5 x 24",
    ),
    "no context": (
        lambda unet, rows: unet(**named(rows, encoder_hidden_states=None)),
        "was given no encoder_hidden_states; give it one",
    ),
    "a weight of a LoRA": (
        lambda unet, rows: unet(**named(rows, cross_attention_kwargs={"scale": 0.5})),
        "takes no cross_attention_kwargs.scale; leave it out",
    ),
    "between timesteps": (
        lambda unet, rows: unet(**named(rows, timestep=torch.tensor([1, 2, 3.5, 4]))),
        "takes whole numbers as timestep, not 3.5; load with backend 'simulated' for others",
    ),
    "FreeU": (lambda unet, rows: unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4), "no blocks for FreeU"),
    "processors": (lambda unet, rows: unet.set_attn_processor(object()), "keeps its processors"),
    "saving": (lambda unet, rows: unet.save_pretrained("folder"), "cannot be saved"),
    "a pickle": (lambda unet, rows: pickle.dumps(unet), "a network by OpenVINO cannot be pickled"),
    "a state": (lambda unet, rows: unet.load_state_dict(unet.state_dict()), "takes no state; load the file"),
    "a LoRA": (lambda unet, rows: unet.load_lora_adapter(LORA), "has no place for a LoRA beside one"),
    "token merging": (lambda unet, rows: setattr(unet, "_tome_info", {}), "token merging finds no blocks"),
    "casting": (lambda unet, rows: unet.enable_layerwise_casting(), "layerwise casting finds no weights"),
}


@pytest.mark.parametrize("what", REFUSED)
@torch.no_grad()
def test_what_it_does_not_do_is_refused_and_changes_nothing(what: str, made: Made) -> None:
    _, unet, rows = made
    expected = unet(**named(rows)).sample
    act, sentence = REFUSED[what]
    with pytest.raises(EdadmError, match=sentence):
        act(unet, rows)
    unet.to("cpu", torch.float32).to(memory_format=torch.channels_last)
    assert torch.equal(unet(**named(rows)).sample, expected)


WHETHER = """
from edadm.deploy.backends.openvino.compiled import sums_are_exact
print(sums_are_exact())
"""


@pytest.mark.parametrize("instructions", ["AVX2", "ALL"])
def test_whether_sums_are_exact_is_tried_out(instructions: str, runtime: Path) -> None:
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": instructions}
    command = [sys.executable, "-c", WHETHER]
    found = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    has_vnni = "vnni" in Path("/proc/cpuinfo").read_text()
    assert found.strip() == str(instructions == "ALL" and has_vnni)


@torch.no_grad()
def test_graphs_and_what_was_compiled_are_kept_for_the_next_time(
    made: Made, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edadm.deploy.backends.openvino import compiled

    simulated, unet, rows = made
    expected = unet(**named(rows)).sample
    (folder,) = (runtime / "graphs").iterdir()
    assert {file.suffix for file in folder.iterdir()} == {".xml", ".bin", ".blob"}
    monkeypatch.setattr(compiled, "graph_of", lambda *_: pytest.fail("it is there"))
    simulated.save_pretrained(tmp_path)
    again = edadm.load(tmp_path, backend="openvino")
    assert torch.equal(again(**named(rows), return_dict=False)[0], expected)
    for count in range(1, compiled.MOST_SHAPES + 2):
        again(**named(rows[:1], encoder_hidden_states=torch.zeros(1, count, 24)))
    assert len(again.network.graph.compiled) == compiled.MOST_SHAPES
    assert torch.equal(again(**named(rows), return_dict=False)[0], expected)


@torch.no_grad()
@pytest.mark.parametrize("damaged", ["cut", "gone"])
def test_a_damaged_graph_is_made_again(
    damaged: str, made: Made, runtime: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulated, unet, rows = made
    expected = unet(**named(rows)).sample
    shutil.copytree(runtime, tmp_path / "cache")
    monkeypatch.setenv("EDADM_CACHE", str(tmp_path / "cache"))
    (folder,) = (tmp_path / "cache" / "graphs").iterdir()
    for file in (folder / "graph.xml", folder / "graph.bin"):
        file.write_bytes(file.read_bytes()[:100]) if damaged == "cut" else file.unlink()
    simulated.save_pretrained(tmp_path / "saved")
    for _ in range(2):  # by memory, then by what is kept of it
        again = edadm.load(tmp_path / "saved", backend="openvino")
        assert torch.equal(again(**named(rows), return_dict=False)[0], expected)
    assert (folder / "graph.xml").stat().st_size > 100


def test_its_weights_are_counted(made: Made) -> None:
    simulated, unet, _ = made
    assert unet.num_parameters() == simulated.num_parameters()
    assert unet.get_memory_footprint() > sum(p.numel() for p in simulated.parameters())


def test_no_number_in_gives_no_number_out_of_that_image_alone(made: Made) -> None:
    _, unet, rows = made
    expected = unet(**named(rows)).sample
    for name, bad in (("sample", torch.inf), ("encoder_hidden_states", torch.nan), ("timestep", torch.nan)):
        given = named(rows)
        given[name] = given[name].float()
        given[name][1] = bad
        found = unet(**given).sample
        assert found[1].isnan().all()
        assert torch.equal(found[[0, 2, 3]], expected[[0, 2, 3]])


def test_other_types_are_refused(runtime: Path, folded: nn.Module) -> None:
    with pytest.raises(EdadmError, match=r"load with dtype torch\.float32, not torch\.bfloat16"):
        lower(folded, torch.bfloat16, "openvino")


def test_where_it_is_absent_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    for name in [name for name in sys.modules if name.startswith(BACKENDS["openvino"].module)]:
        monkeypatch.delitem(sys.modules, name)
    sentence = (
        r"backend 'openvino' needs the package 'openvino'; install it with `pip install edadm\[openvino\]`"
    )
    with pytest.raises(EdadmError, match=f"^{sentence}$"):
        edadm.load(tmp_path / "absent.safetensors", backend="openvino")


def test_networks_that_are_given_an_image_are_refused(runtime: Path) -> None:
    from edadm.deploy.backends.openvino import lower_for_openvino

    for channels, family in ((9, "inpainting"), (8, "instruct_pix2pix")):
        said = f"the family '{family}' that is given an image, a score or a class is not computed by OpenVINO"
        with pytest.raises(EdadmError, match=said):
            lower_for_openvino(unet_of({"in_channels": channels}))
    with pytest.raises(
        EdadmError, match="the family 'pixart' is told a text with a mask, and is not computed"
    ):
        lower_for_openvino(tiny_pixart())
