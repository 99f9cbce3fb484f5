"""Random integer networks for timing, and what is counted of them; the timing itself needs a GPU (tests/test_gpu.py)."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from edadm.benchmark import contest, integer
from edadm.benchmark.contest import Contest, weight_bytes
from edadm.benchmark.integer import (
    BESIDE,
    check_choices,
    compare_with_integers,
    quantized_by_magnitude,
    random_integer_unet,
)
from edadm.benchmark.kernels import problems_of
from edadm.config.load import load_config
from edadm.config.schema import Bits
from edadm.errors import EdadmError
from edadm.kernels.int8.tiles import Problem
from edadm.networks.families import network_call
from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.random_weights import random_network
from edadm.nn.insert import activation_quantizers, quantized_layers

from ..networks.families import tiny

CPU = torch.device("cpu")


def bits(name: str) -> Bits:
    return load_config({}).bits[name]


@torch.no_grad()
def test_grids_reach_to_what_occurs_and_no_further() -> None:
    model = tiny("sd14_coco")
    unet, inputs = random_network(model, CPU), InputSpec.of(model).random(2, CPU)
    quantized = quantized_by_magnitude(unet, bits("official_w8a8"), inputs)
    for name, layer in quantized_layers(quantized).items():
        weight = unet.get_submodule(name).weight
        assert (layer.weight - weight).abs().max() <= layer.weight_quantizer.scale.max(), name
    for name, quantizer in activation_quantizers(quantized).items():
        assert ((quantizer.scale != 1) & torch.isfinite(quantizer.scale)).all(), name
    exact, found = network_call(unet, inputs), network_call(quantized, inputs)
    assert 0 < (found - exact).square().mean() < 0.05 * exact.square().mean()


@pytest.mark.parametrize(
    ("name", "smallest", "largest"), [("official_w8a8", 3.0, 4.0), ("official_w4a8", 5.0, 8.0)]
)
def test_an_integer_network_has_a_fraction_of_the_bytes(name: str, smallest: float, largest: float) -> None:
    model = tiny("ldm8_church")
    ratio = weight_bytes(random_network(model, CPU)) / weight_bytes(
        random_integer_unet(model, bits(name), CPU)
    )
    assert smallest < ratio < largest


def test_problems_are_those_of_the_layers_and_a_split_layer_poses_two() -> None:
    model = tiny("ldm4_imagenet")
    network, inputs = (
        random_integer_unet(model, bits("official_w4a8"), CPU),
        InputSpec.of(model).random(2, CPU),
    )
    found = problems_of(network, inputs)
    first = network.get_submodule("conv_in").segments[0].shape
    assert found[Problem(2 * 8 * 8, first[0], first[3], 1, 1)] == (
        2,
        8,
        8,
        first[3],
    )  # few channels: a window's numbers are gathered
    split = next(module for module in network.modules() if len(getattr(module, "sizes", ())) == 2)
    channels = {
        problem.channels
        for problem in found
        if problem.columns == split.segments[0].shape[0] and problem.side == 1
    }
    assert set(split.sizes) <= channels


def test_bytes_of_a_tensor_are_those_of_the_tensors_that_it_is_made_of() -> None:
    class Packed(torch.Tensor):
        def __tensor_flatten__(self) -> tuple[list[str], None]:
            return ["codes", "nothing"], None

    packed = torch.zeros(8).as_subclass(Packed)
    packed.codes, packed.nothing = torch.zeros(8, dtype=torch.int8), None
    network = nn.Linear(3, 2)
    network.register_buffer("packed", packed)
    assert weight_bytes(network) == 8 * 4 + 8


@pytest.mark.parametrize(
    ("mode", "beside", "sentence"),
    [("reduce-overhead", BESIDE, "no mode 'reduce-overhead'"), ("default", ["fp8"], "'fp8'")],
)
def test_choices_are_refused_before_work_starts(mode: str, beside: Sequence[str], sentence: str) -> None:
    with pytest.raises(EdadmError, match=f"{sentence}.* known are"):
        check_choices(mode, beside)
    check_choices("max-autotune-no-cudagraphs")


class Ill(nn.Module):
    """Fails from the n-th evaluation on."""

    family = "diffusers"

    def __init__(self, healthy: int):
        super().__init__()
        self.left = healthy

    def forward(self, x: Tensor, return_dict: bool = True) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise torch.OutOfMemoryError("out of memory. Tried to allocate 3 GiB\nmore")
        return x


@pytest.fixture
def clockless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU's clock and memory counts; an evaluation takes 2 ms."""

    def evaluated(network: nn.Module, inputs: Rows) -> int:
        network_call(network, inputs)
        return 2

    monkeypatch.setattr(contest, "_milliseconds", evaluated)
    monkeypatch.setattr(contest, "_warm_bytes", evaluated)


@pytest.mark.usefixtures("clockless")
def test_a_network_that_fails_leaves_the_others_their_rows() -> None:
    seen = []
    contest = Contest(
        Rows({"latents": torch.zeros(4, 1, 1, 1)}), on_rows=lambda rows: seen.append(copy.deepcopy(rows))
    )

    def absent() -> nn.Module:
        raise ImportError("no torchao")

    contest.enter("absent", absent, torch.float32, False)
    contest.enter("at once", lambda: Ill(0), torch.float32, False)
    contest.enter("well", lambda: Ill(1000), torch.float32, False, note="a note")
    contest.enter("later", lambda: Ill(2 + 1 + 2 * 3 + 5), torch.float32, False)
    assert "ms" in seen[-1]["later"]
    rows = contest.rounds(5)
    assert rows["absent"] == {"failed": "ImportError: no torchao"}
    assert (
        rows["at once"]["failed"]
        == rows["later"]["failed"]
        == "OutOfMemoryError: out of memory. Tried to allocate 3 GiB"
    )
    assert rows["well"]["ms"] == 2
    assert rows["well"]["samples_per_second"] == 2000
    assert rows["well"]["note"] == "a note"
    assert "failed" not in rows["well"]
    assert [list(rows) for rows in seen] == [
        ["absent", "at once", "well", "later"][:count] for count in (1, 2, 3, 4, 4)
    ]


@pytest.mark.usefixtures("clockless")
def test_a_profile_that_fails_leaves_the_times() -> None:
    contest = Contest(Rows({"latents": torch.zeros(4, 1, 1, 1)}))
    contest.enter("well", lambda: Ill(1000), torch.float32, False)
    with contest.guarded("well", "profile_failed"):
        raise RuntimeError("no profiler")
    assert contest.rows["well"]["ms"] == 2
    assert contest.rows["well"]["profile_failed"] == "RuntimeError: no profiler"
    assert "failed" not in contest.rows["well"]


class Noted(Contest):
    """Makes every network, and evaluates none."""

    def enter(
        self, name: str, make: Callable[[], nn.Module], dtype: torch.dtype, compiled: bool, **notes: str
    ) -> None:
        with self.guarded(name):
            parameters = {parameter.dtype for parameter in make().parameters()}
            self.rows[name] = {"dtypes": parameters | {dtype}, "compiled": compiled, **notes}


@pytest.mark.parametrize("fuse", [(False, True), (True,)])
def test_networks_that_are_compared(fuse: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integer, "Contest", Noted)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "none")
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    model = tiny("sd14_coco")
    inputs = InputSpec.of(model).random(2, CPU)
    found = compare_with_integers(
        random_network(model, CPU), {"w8": bits("official_w8a8")}, inputs, fuse=fuse
    )["networks"]
    integers = ["integer w8", "integer w8 fused"][-len(fuse) :]
    assert list(found) == ["fp32 eager", "bf16 compiled", *integers, "torchao int8 linear", "tf32 compiled"]
    assert found.pop("torchao int8 linear")["failed"].startswith("ModuleNotFoundError: import of torchao")
    for name, row in found.items():
        assert row["dtypes"] == {torch.float32 if "32" in name else torch.bfloat16}, name
        assert row["compiled"] == (name != "fp32 eager")
