"""Training of the bundled classifier."""

from __future__ import annotations

import torch

from edadm.networks.classifier import CifarClassifier
from edadm.training.classifier import ClassifierTraining, accuracy, augment, train_classifier

WIDTHS = (
    16,
    16,
    16,
)  # PyTorch 2.13 ends the process in the backward pass of convolutions with 4 channels, with AVX2 and no AVX-512


def coloured(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two classes told apart by their colour."""
    labels = torch.arange(count) % 2
    images = torch.randint(0, 60, (count, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    images[:, 0] += 150 * labels[:, None, None]
    return images.to(torch.uint8), labels


def test_a_separable_problem_is_learned() -> None:
    torch.manual_seed(0)
    images, labels = coloured(64)
    model, epochs = CifarClassifier(WIDTHS, blocks=1, classes=2), []
    settings = ClassifierTraining(epochs=3, batch_size=16, learning_rate=0.1)
    train_classifier(model, images, labels, settings, lambda epoch, loss: epochs.append((epoch, loss)))
    assert [epoch for epoch, _ in epochs] == [0, 1, 2]
    assert epochs[-1][1] < epochs[0][1]
    assert accuracy(model, images, labels, batch_size=24) == 1
    assert not model.training


def test_accuracy_counts_hits() -> None:
    class Constant(CifarClassifier):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.0, 1.0]]).expand(len(images), 2)

    images, labels = coloured(10)
    labels[:] = torch.tensor([1] * 7 + [0] * 3)
    assert accuracy(Constant((2, 2, 2), blocks=1, classes=2), images, labels, batch_size=4) == 0.7


def test_augmentation_moves_flips_and_hides_a_square_but_invents_no_pixel() -> None:
    image = torch.arange(32 * 32, dtype=torch.int32).reshape(1, 1, 32, 32) % 100
    images = image.expand(20, 3, 32, 32).to(torch.uint8)
    found = augment(images, 4, 8, torch.Generator().manual_seed(0))
    assert found.shape == images.shape
    hidden = (found == 128).all(1)
    assert hidden.flatten(1).sum(1).min() >= 16
    assert hidden.flatten(1).sum(1).max() <= 64
    assert set(found[~hidden[:, None].expand_as(found)].tolist()) <= set(range(100))
    assert len({tuple(row.flatten().tolist()) for row in found}) == 20


def test_without_padding_and_square_only_flips_remain() -> None:
    images = torch.randint(
        256, (30, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    found = augment(images, 0, 0, torch.Generator().manual_seed(0))
    same, flipped = ((found == other).flatten(1).all(1) for other in (images, images.flip(3)))
    assert (same ^ flipped).all()
    assert 5 < same.sum() < 25
