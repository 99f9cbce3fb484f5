"""What a U-Net is told in training, and shows afterwards: prompts of class names and colours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from edadm.conditions.text import TextCondition, build
from edadm.config.schema import Model
from edadm.networks.layouts import clip
from edadm.training.files import State, rounded
from edadm.training.latent.colours import COLOURS, colours_of
from edadm.training.latent.told import Asked

FORMS = ("a photo of {} {}", "{} {}", "a photo of {}", "{}")  # with a colour, and without


class Contexts(nn.Module):
    """The contexts of all prompts that there are, by number; nothing in it is trained."""

    def __init__(self, contexts: Float[Tensor, "n tokens channels"]):
        super().__init__()
        self.register_buffer("contexts", contexts, persistent=False)

    def forward(self, numbers: Int[Tensor, " n"]) -> Float[Tensor, "n tokens channels"]:
        """Their contexts."""
        contexts: Tensor = self.get_buffer("contexts")
        return contexts[numbers]


class ToldPrompts:
    """Prompts such as "a photo of a red truck", by a text encoder with random weights that are kept.

    Args:
        model: the preset.
        images: of the training set, whose colours are measured.
        labels: the class of each.
        names: of classes, as they stand in prompts.
    """

    def __init__(
        self,
        model: Model,
        images: UInt8[Tensor, "n 3 h w"],
        labels: Int[Tensor, " n"],
        names: Sequence[str],
    ):
        channels = model.architecture.context_channels
        assert model.conditioning is not None and channels is not None
        self._labels, self._colours, self._names = labels.cpu(), colours_of(images).cpu(), names
        prompts = [
            prompt_of(name, colour, form)
            for name in names
            for colour in COLOURS
            for form in range(len(FORMS))
        ]
        first = (self._labels * len(COLOURS) + self._colours) * len(FORMS)
        self.numbers = (first[:, None] + torch.arange(len(FORMS))).to(images.device)
        self.classes, self.nothing = len(names), len(prompts)
        self._sizes = model.conditioning.encoder
        self._encoder = build(model.conditioning, channels).eval().requires_grad_(False)
        draw_apart(self._encoder)
        self._encoder.load_state_dict(rounded(self._encoder.state_dict()))
        self._encoder.to(images.device)
        told = self._condition([*prompts, ""])
        self.network = Contexts(told.rows(range(len(told.prompts)))["context"])

    def _condition(self, prompts: Sequence[str]) -> TextCondition:
        return TextCondition(self._encoder, prompts, self._sizes)

    def weights(self, trained: State) -> State:
        """The tensors of a file's `cond_stage_model`."""
        return clip.from_transformers(self._encoder.state_dict())

    def asked(self, images: int) -> Asked:
        """Every class equally often, one after the other, in colours that images of it have."""
        labels, colours = combinations(self._labels, self._colours, self.classes, images)
        pairs = zip(labels.tolist(), colours.tolist(), strict=True)
        prompts = [prompt_of(self._names[label], COLOURS[colour]) for label, colour in pairs]
        return Asked(self._condition(prompts), labels, colours)


def prompt_of(name: str, colour: str, form: int = 0) -> str:
    """A prompt of one of the `FORMS`."""
    words = [colour, name] if FORMS[form].count("{}") > 1 else [name]
    article = "an" if words[0][0] in "aeiou" else "a"
    return FORMS[form].format(f"{article} {words[0]}", *words[1:])


def combinations(
    labels: Int[Tensor, " n"], colours: Int[Tensor, " n"], classes: int, images: int
) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Classes in turn, each with the colours of its own images, in shuffled order.

    Args:
        labels, colours: of the training set.
        classes: how many there are.
        images: how many are wanted.
    """
    wanted = torch.arange(images) % classes
    found = torch.empty_like(wanted)
    for label in range(classes):
        own, places = colours[labels == label], (wanted == label).nonzero().flatten()
        order = torch.randperm(len(own), generator=torch.Generator().manual_seed(label))
        found[places] = own[order[torch.arange(len(places)) % len(own)]]
    return wanted, found


@torch.no_grad()
def draw_apart(encoder: nn.Module) -> None:
    """Makes the embeddings of tokens as large as what layers add, so that contexts tell words apart."""
    for name, parameter in encoder.named_parameters():
        if name.endswith("token_embedding.weight"):
            parameter.normal_()
