"""Prompts of class names and colours, and their contexts."""

from __future__ import annotations

import pytest
import torch

from edadm.config.load import load_config
from edadm.training.latent.prompts import FORMS, ToldPrompts, combinations, prompt_of

MODEL = load_config().models["cifar10_latent_text"]
NAMES = ["airplane", "truck"]


def painted() -> tuple[torch.Tensor, torch.Tensor]:
    """An orange airplane, a blue truck and a red one."""
    colours = torch.tensor([(240, 120, 30), (40, 60, 200), (200, 30, 30)], dtype=torch.uint8)
    return colours[:, :, None, None].repeat(1, 1, 32, 32), torch.tensor([0, 1, 1])


@pytest.mark.parametrize(
    ("form", "expected"),
    enumerate(("a photo of an orange truck", "an orange truck", "a photo of a truck", "a truck")),
)
def test_forms(form: int, expected: str) -> None:
    assert prompt_of("truck", "orange", form) == expected
    assert len(FORMS) == 4


def test_every_image_is_told_its_class_and_colour() -> None:
    torch.manual_seed(0)
    told = ToldPrompts(MODEL, *painted(), NAMES)
    sizes = MODEL.conditioning.encoder
    assert told.network.contexts.shape == (2 * 10 * 4 + 1, sizes.tokens, sizes.channels)
    for image, name, colour in ((0, "airplane", "orange"), (2, "truck", "red")):
        prompts = [prompt_of(name, colour, form) for form in range(len(FORMS))]
        expected = told._condition(prompts).rows(range(len(FORMS)))["context"]
        torch.testing.assert_close(told.network(told.numbers[image]), expected)
    nothing = told._condition(["x"]).unconditional()["context"]
    torch.testing.assert_close(told.network(torch.tensor([told.nothing])), nothing)
    contexts = told.network.contexts
    assert (contexts[told.numbers[1, 0]] - contexts[told.numbers[2, 0]])[5].abs().mean() > 0.5
    assert not list(told.network.parameters())
    weights = told.weights({})
    assert all(name.startswith("transformer.text_model.") for name in weights)
    assert all(torch.equal(tensor, tensor.half().float()) for tensor in weights.values())


def test_images_are_asked_for_in_colours_of_their_class() -> None:
    torch.manual_seed(0)
    asked = ToldPrompts(MODEL, *painted(), NAMES).asked(5)
    assert asked.labels.tolist() == [0, 1, 0, 1, 0]
    assert asked.condition.prompts[0] == "a photo of an orange airplane"
    assert sorted(asked.condition.prompts[1::2]) == ["a photo of a blue truck", "a photo of a red truck"]


def test_colours_are_as_frequent_as_in_the_training_set() -> None:
    labels, colours = torch.tensor([0] * 40 + [1] * 40), torch.tensor([3] * 30 + [5] * 10 + [7] * 40)
    wanted, found = combinations(labels, colours, 2, 80)
    assert found[wanted == 0].bincount(minlength=6).tolist() == [0, 0, 0, 30, 0, 10]
    assert found[wanted == 1].unique().tolist() == [7]
