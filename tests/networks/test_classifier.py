"""The classifier whose features score images."""

from __future__ import annotations

import pytest
import torch

from edadm.config.files.sources import locate
from edadm.errors import EdadmError
from edadm.networks.classifier import CLASSES, CifarClassifier
from edadm.networks.weights import read_state


def test_maps_are_non_negative_and_eight_by_eight() -> None:
    network = CifarClassifier((8, 12, 16), blocks=1).eval()
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    maps = network.maps(images)
    assert maps.shape == (2, 16, 8, 8)
    assert maps.min() >= 0
    assert network(images).shape == (2, len(CLASSES))


def test_the_bundled_weights_fit() -> None:
    state = read_state(locate("bundled:cifar10_classifier"))
    expected = CifarClassifier().state_dict()
    assert {name: tensor.shape for name, tensor in state.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }


def test_an_absent_bundled_file_is_refused_with_the_known_names() -> None:
    with pytest.raises(EdadmError, match=r"use one of .*bundled:cifar10_classifier"):
        locate("bundled:absent")
