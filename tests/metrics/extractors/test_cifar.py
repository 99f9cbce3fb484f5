"""The classifier as an extractor of torch-fidelity."""

from __future__ import annotations

import pytest
import torch
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY
from torch_fidelity.utils import create_feature_extractor

from edadm.errors import EdadmError
from edadm.metrics.extractors import cifar as features
from edadm.metrics.extractors.extract import build_extractor, extract_features
from tests.metrics.drawn import random_images


def test_the_registered_extractor_gives_its_three_layers() -> None:
    features.register()
    features.register()
    assert features.NAME in FEATURE_EXTRACTORS_REGISTRY
    network = create_feature_extractor(features.NAME, list(features.LAYERS), cuda=False, verbose=False)
    layers = network(random_images(5))
    assert [layer.shape for layer in layers] == [(5, 128), (5, 128), (5, 10)]


def test_layers_come_in_the_order_asked_for() -> None:
    features.register()
    images = random_images(2)
    both = create_feature_extractor(features.NAME, ["logits", "pooled"], cuda=False, verbose=False)(images)
    assert [layer.shape for layer in both] == [(2, 10), (2, 128)]


def test_layers_are_what_their_names_say() -> None:
    images = random_images(3)
    extractor = features.CifarFeatureExtractor(features.NAME, list(features.LAYERS))
    pooled, spatial, logits = extractor(images)
    maps = extractor.classifier.maps(images)
    torch.testing.assert_close(pooled, maps.mean((2, 3)))
    torch.testing.assert_close(spatial.reshape(3, 8, 4, 4).mean((2, 3)), pooled[:, :8])
    torch.testing.assert_close(logits, extractor.classifier(images))


def test_features_do_not_depend_on_the_batch_size() -> None:
    images = random_images(7)
    whole, parts = (extract_features(images, features.NAME, batch_size) for batch_size in (7, 3))
    assert set(whole) == set(features.LAYERS)
    for layer in features.LAYERS:
        assert len(whole[layer]) == 7
        torch.testing.assert_close(whole[layer], parts[layer], rtol=1e-4, atol=1e-4)


def test_images_of_another_size_are_refused_with_the_setting_that_helps() -> None:
    wide = torch.zeros(2, 3, 32, 64, dtype=torch.uint8)
    with pytest.raises(
        EdadmError, match="images have 32 x 64 pixels, and the bundled classifier sees 32 x 32; set"
    ):
        extract_features(wide, features.NAME)


def test_an_extractor_that_is_not_bundled_asks_for_its_weights() -> None:
    with pytest.raises(
        EdadmError, match="extractor 'inception' needs a file with its weights; see `edadm download`"
    ):
        build_extractor("inception", None)
