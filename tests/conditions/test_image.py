"""Images and masks that a network is given, and what is refused of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from edadm.conditions.condition import build_condition_network, make_condition
from edadm.conditions.image import TextAndImage, mask_of, pixels_of
from edadm.config.files.sources import locate_images
from edadm.config.load import load_config
from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.networks.autoencoder import build_autoencoder
from edadm.networks.settings.parts import Conditioning, TextEncoder

from ..networks.edited import write_images
from ..networks.families import random_network
from ..networks.single_file import AUTOENCODER

ENCODER = TextEncoder(channels=8, hidden_channels=16, layers=1, heads=2, tokens=8)


def settings_of(folder: Path, kind: str = "inpainting") -> Conditioning:
    (folder / "prompts.txt").write_text("one\ntwo\nthree\n")
    own = {"image_guidance": 1.5} if kind == "instruct_pix2pix" else {}
    images, prompts = str(folder / "images"), str(folder / "prompts.txt")
    given = {"kind": kind, "guidance": 3.0, "encoder": ENCODER, "prompts": prompts, "image_folder": images}
    return Conditioning.model_validate(given | own)


def network_of(settings: Conditioning) -> TextAndImage:
    network = build_condition_network(settings, 8, build_autoencoder(AUTOENCODER), 8)
    random_network(network, 1)
    assert isinstance(network, TextAndImage)
    network.scale.fill_(0.5)
    return network


def test_masks_are_rectangles_that_index_and_seed_decide() -> None:
    masks = [mask_of(index, 32, 7) for index in range(400)]
    assert all(torch.equal(mask, mask_of(index, 32, 7)) for index, mask in enumerate(masks[:9]))
    assert not all(torch.equal(mask, mask_of(index, 32, 8)) for index, mask in enumerate(masks[:9]))
    assert sum(bool(mask.all()) for mask in masks) == pytest.approx(100, abs=30)
    drawn = [mask[0] for mask in masks if not mask.all()]
    sides = [(int(mask.any(1).sum()), int(mask.any(0).sum())) for mask in drawn]
    assert all(int(mask.sum()) == height * width for mask, (height, width) in zip(drawn, sides, strict=True))
    for axis in (0, 1):
        found = {side[axis] for side in sides}
        assert (min(found), max(found)) == (8, 24)
        shown = torch.stack(drawn).amax(1 + axis).sum(0)
        assert shown.min() > 0  # every row and column is hidden in some


@torch.no_grad()
def test_what_is_hidden_does_not_reach_the_network(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    settings = settings_of(tmp_path)
    network = network_of(settings)
    before = make_condition(network, settings, 3).rows([0, 1, 2])["image"]
    assert before.shape == (3, 5, 8, 8)
    masks = torch.stack([mask_of(index, 8, settings.seed) for index in range(3)])
    assert torch.equal(before[:, :1], masks)
    hidden = masks.repeat_interleave(2, 2).repeat_interleave(2, 3).bool()
    for index in range(3):
        pixels = ((pixels_of(tmp_path / "images" / f"{index}.png", 16) + 1) * 127.5).round().byte()
        pixels[hidden[index].expand_as(pixels)] = 7
        Image.fromarray(np.asarray(pixels.permute(1, 2, 0))).save(tmp_path / "images" / f"{index}.png")
    after = make_condition(network, settings, 3).rows([0, 1, 2])["image"]
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)
    network.scale.fill_(1.0)
    scaled = make_condition(network, settings, 3).rows([0, 1, 2])["image"]
    torch.testing.assert_close(scaled[:, 1:], 2 * after[:, 1:])


@torch.no_grad()
def test_guidance_drops_the_image_of_one_kind_alone(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 2)
    for kind, names in (("inpainting", {"context"}), ("instruct_pix2pix", {"context", "image"})):
        settings = settings_of(tmp_path, kind)
        condition = make_condition(network_of(settings), settings, 2)
        nothing = condition.unconditional()
        assert set(nothing) == names
        assert settings.drops_image == (len(names) == 2)
    assert not nothing["image"].any()
    assert nothing["image"].shape == (1, 4, 8, 8)
    one, both = condition.rows([1])["image"], condition.rows([0, 1])["image"]
    torch.testing.assert_close(one[0], both[1], rtol=1e-4, atol=1e-5)
    assert one.std() > 0.05


def test_too_few_images_and_captions_without_an_order_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 1)
    settings = settings_of(tmp_path)
    network = network_of(settings)
    with pytest.raises(EdadmError, match=r"2 images exceed the 1 in .*images; add images or make fewer"):
        make_condition(network, settings, 2)
    (tmp_path / "coco.json").write_text('{"annotations": [{"id": 1, "image_id": 1, "caption": "a"}]}')
    captions = settings.model_copy(update={"prompts": str(tmp_path / "coco.json")})
    with pytest.raises(EdadmError, match="captions in no order of images; give a text file with a prompt"):
        make_condition(network, captions, 1)


def test_a_folder_without_images_is_named_with_its_key(tmp_path: Path) -> None:
    model = load_config().models["sd14_coco"]
    (tmp_path / "images").mkdir()
    told = settings_of(tmp_path)
    with pytest.raises(EdadmError, match=r"models\.m\.conditioning\.image_folder: .* holds no images"):
        locate_images("m", Model.model_construct(**{**dict(model), "conditioning": told}))
    for folder, said in ((None, "no folder is named; set it"), (str(tmp_path / "x"), "there is no folder")):
        changed = told.model_copy(update={"image_folder": folder})
        with pytest.raises(EdadmError, match=rf"models\.m\.conditioning\.image_folder: {said}"):
            locate_images("m", Model.model_construct(**{**dict(model), "conditioning": changed}))
    assert locate_images("m", model) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"kind": "text", "image_folder": "x"},
            "the kind 'text' has no setting 'image_folder'; remove it, or set kind: sdxl_refiner or inpainting",
        ),
        (
            {"kind": "inpainting", "image_guidance": 2.0},
            "has no setting 'image_guidance'; remove it, or set kind",
        ),
        (
            {"kind": "instruct_pix2pix", "image_folder": "x"},
            "the kind 'instruct_pix2pix' needs image_guidance",
        ),
    ],
)
def test_settings_of_images_belong_to_their_kinds(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Conditioning.model_validate(settings)
