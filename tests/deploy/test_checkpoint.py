"""The quantized checkpoint (acceptance checks 2 and 6)."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edadm.config.schema import Bits, Model
from edadm.deploy.checkpoint import digest, is_quantized, load_quantized, read_metadata, save_quantized
from edadm.deploy.grids import grids, quantized_copy, set_grids
from edadm.errors import EdadmError
from edadm.networks.weights import CheckpointError
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.sampling.denoiser import Denoiser
from edadm.sampling.generate import generate_images

from .conftest import PROVENANCE

Calibration = tuple[Tensor, Tensor]


@torch.no_grad()
def test_a_loaded_network_gives_the_outputs_of_the_saved_one_bit_for_bit(
    folded: nn.Module, saved: Path, calibration: Calibration
) -> None:
    loaded = load_quantized(saved)
    for x, t in (calibration, (calibration[0][:1], calibration[1][:1])):
        assert torch.equal(loaded(x, t).sample, folded(x, t).sample)


def test_images_of_a_loaded_network_are_those_of_the_saved_one(
    folded: nn.Module, saved: Path, model: Model
) -> None:
    images = [
        generate_images(Denoiser(unet), model.sampler, model.schedule, range(3), model.latent_shape, 0, 2)
        for unet in (folded, load_quantized(saved))
    ]
    assert torch.equal(*images)


def test_saving_twice_gives_the_same_bytes_and_so_does_saving_what_was_loaded(
    folded: nn.Module, saved: Path, model: Model, bits: Bits, tmp_path: Path
) -> None:
    for name, unet in (("again", folded), ("loaded", load_quantized(saved))):
        save_quantized(unet, tmp_path / name, model.architecture, bits, PROVENANCE)
        assert (tmp_path / name).read_bytes() == saved.read_bytes(), name


def test_the_file_has_the_size_that_its_codes_imply(folded: nn.Module, saved: Path) -> None:
    layers = quantized_layers(folded)
    weights, bytes_expected = {f"{name}.weight" for name in layers}, 0
    for layer in layers.values():
        count = layer.weight.numel()
        bytes_expected += -(-count // 2) if layer.weight_quantizer.bits == 4 else count
    count = sum(layer.weight_quantizer.scale.numel() for layer in layers.values())
    bytes_expected += 4 * count + -(-count // 8)  # fp32 scales, a bit per zero point
    bytes_expected += sum(5 * quantizer.scale.numel() for quantizer in activation_quantizers(folded).values())
    bytes_expected += sum(
        4 * parameter.numel() for name, parameter in folded.named_parameters() if name not in weights
    )
    content = saved.read_bytes()
    (header,) = struct.unpack("<Q", content[:8])
    assert len(content) - 8 - header == bytes_expected
    float_size = sum(4 * parameter.numel() for parameter in folded.parameters())
    assert len(content) < 0.25 * float_size


def test_the_file_tells_what_it_is(saved: Path, model: Model, bits: Bits) -> None:
    facts = read_metadata(saved)
    assert facts["architecture"] == model.architecture.model_dump(mode="json")
    assert Bits.model_validate(facts["bits"]) == bits
    assert facts["provenance"] == PROVENANCE
    assert is_quantized(saved)


def test_codes_are_integers_in_the_file(saved: Path) -> None:
    tensors = load_file(saved)
    codes = {name: tensor for name, tensor in tensors.items() if name.endswith(".codes")}
    assert {tensor.dtype for tensor in codes.values()} == {torch.uint8}
    assert not [
        name
        for name in tensors
        if name.removesuffix(".weight") + ".codes" in tensors and name.endswith(".weight")
    ]


def test_a_loaded_network_is_frozen_and_in_inference_mode(saved: Path) -> None:
    loaded = load_quantized(saved)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize(
    "missing", ["conv_in.codes", "conv_in.bias", "grids.activation_scales", "conv_norm_out.weight"]
)
def test_a_file_without_one_of_its_tensors_is_refused_by_its_name(
    missing: str, saved: Path, tmp_path: Path
) -> None:
    tensors = load_file(saved)
    del tensors[missing]
    save_file(tensors, tmp_path / "less.safetensors", {"edadm": json.dumps(read_metadata(saved))})
    with pytest.raises(
        CheckpointError, match=rf"less\.safetensors lacks the tensor '{missing}'; copy it again"
    ):
        load_quantized(tmp_path / "less.safetensors")


@pytest.mark.parametrize(
    "name", ["conv_in.codes", "conv_in.bias", "grids.weight_scales", "grids.activation_zero_points"]
)
@pytest.mark.parametrize("change", [lambda tensor: tensor[1:], lambda tensor: tensor.to(torch.float16)])
def test_a_tensor_of_another_shape_or_type_is_refused(
    name: str, change: Callable[[Tensor], Tensor], saved: Path, tmp_path: Path
) -> None:
    tensors = load_file(saved)
    tensors[name] = change(tensors[name])
    save_file(tensors, tmp_path / "other.safetensors", {"edadm": json.dumps(read_metadata(saved))})
    with pytest.raises(
        CheckpointError, match=rf"other\.safetensors does not fit the network it describes: '{name}' "
    ):
        load_quantized(tmp_path / "other.safetensors")


def test_no_changed_byte_goes_unnoticed(saved: Path, tmp_path: Path) -> None:
    content, path = saved.read_bytes(), tmp_path / "changed.safetensors"
    (header,) = struct.unpack("<Q", content[:8])
    positions = [
        *range(0, 8 + header, 997),
        *range(content.index(b"architecture"), content.index(b"sha256"), 61),
        len(content) - 1,
    ]
    for position in positions:
        changed = bytearray(content)
        changed[position] ^= 1
        path.write_bytes(changed)
        with pytest.raises(CheckpointError, match=r"changed\.safetensors"):
            load_quantized(path)


@pytest.mark.parametrize("share", [0.1, 0.999])
def test_a_truncated_file_is_refused(share: float, saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    (tmp_path / "short.safetensors").write_bytes(content[: int(share * len(content))])
    with pytest.raises(
        CheckpointError, match=r"short\.safetensors cannot be read .*; copy it again or make it again"
    ):
        load_quantized(tmp_path / "short.safetensors")


@torch.no_grad()
def test_a_file_of_the_first_format_is_still_read(
    folded: nn.Module, saved: Path, calibration: Calibration, tmp_path: Path
) -> None:
    first = _of_the_first_format(folded, saved)
    save_file(
        first,
        tmp_path / "first.safetensors",
        {"edadm": json.dumps(read_metadata(saved) | {"format_version": 1})},
    )
    loaded = load_quantized(tmp_path / "first.safetensors")
    assert torch.equal(loaded(*calibration).sample, folded(*calibration).sample)
    del first["conv_in.input_quantizer.scale"]
    save_file(
        first,
        tmp_path / "less.safetensors",
        {"edadm": json.dumps(read_metadata(saved) | {"format_version": 1})},
    )
    with pytest.raises(
        CheckpointError, match=r"less\.safetensors: the file lacks the grid 'conv_in\.input_quantizer\.scale'"
    ):
        load_quantized(tmp_path / "less.safetensors")


def _of_the_first_format(unet: nn.Module, saved: Path) -> dict[str, Tensor]:
    """Grids under the names of their quantizers."""
    return {
        name: tensor for name, tensor in load_file(saved).items() if not name.startswith("grids.")
    } | grids(unet)


def test_float_weights_are_no_quantized_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "float.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    assert not is_quantized(path)
    with pytest.raises(
        CheckpointError, match="is no quantized checkpoint of edadm; make one with `edadm reconstruct`"
    ):
        load_quantized(path)


def test_a_newer_format_is_refused(saved: Path, tmp_path: Path) -> None:
    facts = read_metadata(saved) | {"format_version": 99}
    save_file(load_file(saved), tmp_path / "newer.safetensors", {"edadm": json.dumps(facts)})
    with pytest.raises(CheckpointError, match="has format 99, this edadm reads up to 3; upgrade edadm"):
        load_quantized(tmp_path / "newer.safetensors")


@pytest.mark.parametrize("reader", [is_quantized, read_metadata, load_quantized])
@pytest.mark.parametrize("content", [b"", b"damaged"])
def test_a_damaged_or_absent_file_is_refused(
    reader: Callable[[Path], object], content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.safetensors"
    with pytest.raises(
        CheckpointError, match=r"there is no file .*damaged\.safetensors; name a quantized checkpoint"
    ):
        reader(path)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"damaged\.safetensors cannot be read"):
        reader(path)


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("granularity", "step", r"\S+: no code here computes static affine int\d per step; take static"),
        ("dynamic", True, r"\S+: no code here computes dynamic affine int\d per \w+; take static"),
        ("format", "fp4", "there is no number format 'fp4'; known are int2"),
    ],
)
def test_a_scheme_that_no_code_computes_is_refused_though_the_digest_is_right(
    key: str, value: object, sentence: str, saved: Path, tmp_path: Path
) -> None:
    tensors, facts = load_file(saved), read_metadata(saved)
    facts["schemes"][0][key] = value
    facts["sha256"] = digest(tensors, facts)
    save_file(tensors, tmp_path / "other.safetensors", {"edadm": json.dumps(facts)})
    with pytest.raises(
        CheckpointError, match=rf"other\.safetensors says schemes that this edadm .* \({sentence}"
    ):
        load_quantized(tmp_path / "other.safetensors")


@pytest.mark.parametrize("name", ["conv_in.weight", "conv_of_others.weight"])
def test_schemes_of_other_sites_than_the_networks_are_refused(name: str, saved: Path, tmp_path: Path) -> None:
    tensors, facts = load_file(saved), read_metadata(saved)
    entry = facts["sites"].pop("conv_in.weight")
    facts["sites"]["conv_of_others.weight"] = entry
    if name == "conv_of_others.weight":
        facts["sites"]["conv_in.weight"] = entry
    facts["sha256"] = digest(tensors, facts)
    save_file(tensors, tmp_path / "other.safetensors", {"edadm": json.dumps(facts)})
    with pytest.raises(CheckpointError, match=r"\(conv_\S+: the network has no such site, or not with"):
        load_quantized(tmp_path / "other.safetensors")


def test_ranges_of_other_bits_are_refused(
    float_unet: nn.Module, ranges: dict[str, Tensor], bits: Bits
) -> None:
    whole = quantized_copy(float_unet, bits)
    less = {name: tensor for name, tensor in ranges.items() if not name.startswith("conv_in.")}
    with pytest.raises(CheckpointError, match="it was made for other bits or another network"):
        set_grids(whole, less)


def test_ranges_of_a_split_shortcut_do_not_fit_an_unsplit_one(
    float_unet: nn.Module, ranges: dict[str, Tensor], bits: Bits
) -> None:
    unsplit = quantized_copy(float_unet, bits.model_copy(update={"split_shortcuts": False}))
    with pytest.raises(CheckpointError, match="it was made for other bits or another network"):
        set_grids(unsplit, ranges)


BROKEN = [
    ("grids.weight_scales", torch.nan, "the scale of .*weight_quantizer is nan, no positive number"),
    ("grids.weight_scales", -0.25, "the scale of .*weight_quantizer is -0.25, no positive number"),
    ("grids.activation_scales", 0.0, "the scale of .*_quantizer is 0.0, no positive number"),
    ("grids.activation_scales", torch.inf, "the scale of .*_quantizer is inf, no positive number"),
    ("conv_in.bias", torch.nan, "conv_in.bias holds nan"),
    ("conv_norm_out.weight", -torch.inf, "conv_norm_out.weight holds -inf"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), BROKEN)
def test_numbers_that_no_file_may_hold_are_refused_by_name_though_the_digest_is_right(
    name: str, value: float, sentence: str, saved: Path, tmp_path: Path
) -> None:
    tensors, facts = load_file(saved), read_metadata(saved)
    tensors[name].flatten()[-1] = value
    facts["sha256"] = digest(tensors, facts)
    save_file(tensors, tmp_path / "broken.safetensors", {"edadm": json.dumps(facts)})
    with pytest.raises(CheckpointError, match=rf"broken\.safetensors: {sentence}; make the file again"):
        load_quantized(tmp_path / "broken.safetensors")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("conv_in.weight_quantizer.scale", torch.nan, "the scale of conv_in.weight_quantizer is nan"),
        ("conv_in.bias", torch.inf, "conv_in.bias holds inf"),
        ("conv_norm_out.weight", torch.nan, "conv_norm_out.weight holds nan"),
        ("time_embedding.linear_2.codes", 16, "time_embedding.linear_2 has the code 16, not from 0 to 15"),
        (
            "conv_in.input_quantizer",
            None,
            "the network has lost 1 of its grids, such as conv_in.input_quantizer",
        ),
    ],
)
def test_a_network_with_such_numbers_is_not_written(
    name: str, value: float | None, sentence: str, folded: nn.Module, model: Model, bits: Bits, tmp_path: Path
) -> None:
    parent, _, attribute = name.rpartition(".")
    owner = folded.get_submodule(parent)
    before = getattr(owner, attribute)
    after = (
        None if value is None else torch.full_like(before, value)
    )  # not in place: other tests share the tensors
    setattr(
        owner,
        attribute,
        nn.Parameter(after, requires_grad=False) if isinstance(before, nn.Parameter) else after,
    )
    with pytest.raises(EdadmError, match=sentence):
        save_quantized(folded, tmp_path / "broken.safetensors", model.architecture, bits, PROVENANCE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("value", "said"), [(torch.nan, "nan"), (-1.0, "-1.0")])
def test_ranges_that_are_no_grids_are_refused_and_not_written(
    value: float, said: str, float_unet: nn.Module, ranges: dict[str, Tensor], bits: Bits
) -> None:
    broken = ranges | {"conv_in.input_quantizer.scale": torch.tensor([value])}
    unet = quantized_copy(float_unet, bits)
    with pytest.raises(
        CheckpointError, match=f"the scale of conv_in.input_quantizer is {said}, no positive number"
    ):
        set_grids(unet, broken)
    with pytest.raises(EdadmError, match="nothing was written"):
        grids(unet)
