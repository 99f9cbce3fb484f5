"""InceptionV3 with random weights in the files' own layout, beside what the libraries make of the same file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import pytorch_fid.inception
import torch
from PIL import Image
from pytorch_fid.fid_score import get_activations
from torch import Tensor
from torch_fidelity.utils import create_feature_extractor

from edadm.config.files.scoring import Scoring
from edadm.config.files.sources import file_sha256
from edadm.config.schema import Evaluation
from edadm.errors import EdadmError
from edadm.metrics.evaluate import evaluate
from edadm.metrics.extractors.extract import build_extractor, extract_features
from edadm.metrics.references import write_reference
from edadm.metrics.scores.frechet import frechet_distance, statistics
from tests.metrics.drawn import random_images

LIBRARY_NAME = "pt_inception-2015-12-05-6726825d.pth"
COUNT = 4


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dictionary as both projects publish it, where pytorch-fid looks for it below TORCH_HOME."""
    folder = tmp_path_factory.mktemp("hub") / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = pytorch_fid.inception._inception_v3(num_classes=1008, aux_logits=False, weights=None)
    state = {
        name: tensor
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    for name, tensor in state.items():
        if name.endswith("conv.weight"):
            tensor.mul_(
                6**0.5
            )  # from a third to twice the inverse fan-in, so that activations keep their size through all layers
    torch.save(state, folder / LIBRARY_NAME)
    return folder / LIBRARY_NAME


@pytest.fixture(scope="module")
def images() -> Tensor:
    return random_images(COUNT)


@pytest.fixture(scope="module")
def inception(weights: Path, images: Tensor) -> dict[str, Tensor]:
    """All three layers of torch-fidelity's network."""
    return extract_features(images, "inception", 3, weights)


@pytest.fixture(scope="module")
def pytorch_fid_features(weights: Path, images: Tensor) -> dict[str, Tensor]:
    return extract_features(images, "pytorch_fid", 3, weights, ("pooled", "spatial"))


def test_features_are_those_of_torch_fidelity(
    weights: Path, images: Tensor, inception: dict[str, Tensor]
) -> None:
    own = ["2048", "logits_unbiased"]
    network = create_feature_extractor(
        "inception-v3-compat", own, cuda=False, verbose=False, feature_extractor_weights_path=str(weights)
    )
    maps = []
    network.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: maps.append(output))
    pooled, logits = network(images)
    torch.testing.assert_close(inception["pooled"], pooled, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(inception["logits"], logits, rtol=1e-4, atol=1e-5)
    assert inception["spatial"].shape == (COUNT, 2023)
    torch.testing.assert_close(
        inception["spatial"].reshape(COUNT, 17, 17, 7).permute(0, 3, 1, 2),
        maps[0][:, :7],
        rtol=1e-4,
        atol=1e-5,
    )


def test_features_are_those_of_pytorch_fid(
    weights: Path,
    images: Tensor,
    pytorch_fid_features: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(weights.parents[2]))
    files = [tmp_path / f"{index}.png" for index in range(COUNT)]
    for file, pixels in zip(files, images, strict=True):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file)
    model = pytorch_fid.inception.InceptionV3([3])
    expected = get_activations(files, model, batch_size=COUNT, dims=2048, device="cpu", num_workers=0)
    np.testing.assert_allclose(pytorch_fid_features["pooled"].numpy(), expected, rtol=1e-4, atol=1e-5)
    assert pytorch_fid_features["spatial"].shape == (COUNT, 2023)


def test_the_libraries_differ_in_how_they_resize(
    inception: dict[str, Tensor], pytorch_fid_features: dict[str, Tensor]
) -> None:
    """So their FIDs are not one number under two names."""
    scale = inception["pooled"].std()
    assert scale > 0.01
    assert (inception["pooled"] - pytorch_fid_features["pooled"]).abs().max() > 0.01 * scale


def test_a_score_names_weights_and_preparation(
    weights: Path, images: Tensor, pytorch_fid_features: dict[str, Tensor], tmp_path: Path
) -> None:
    facts = {"set": "noise", "preparation": "centre crop to a square, bicubic to 32 px"}
    write_reference(tmp_path / "r.h5", random_images(3, 1), "pytorch_fid", weights, facts)
    real = extract_features(random_images(3, 1), "pytorch_fid", 3, weights, ("pooled",))
    settings = Evaluation(scores=("fid",), extractor="pytorch_fid")
    scores = evaluate(images, None, settings, Scoring("pytorch_fid", weights, tmp_path / "r.h5", 32))
    expected = frechet_distance(statistics(pytorch_fid_features["pooled"]), statistics(real["pooled"]))
    assert scores["fid"] == pytest.approx(expected, rel=1e-3)
    conditions = scores["conditions"]
    assert conditions["extractor"] == "pytorch_fid"
    assert conditions["extractor_sha256"] == file_sha256(weights)
    assert conditions["preparation"] == conditions["reference_preparation"] == facts["preparation"]


def test_pytorch_fid_gives_no_inception_score(weights: Path) -> None:
    with pytest.raises(
        EdadmError, match=r"gives no class scores for IS; take inception_score out of `scores`"
    ):
        build_extractor("pytorch_fid", weights, ("pooled", "logits"))


@pytest.mark.parametrize("extractor", ["inception", "pytorch_fid"])
def test_other_weights_are_refused(extractor: str, weights: Path, tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(EdadmError, match=r"other\.pth is not the Inception of FID \(Missing key"):
        build_extractor(extractor, tmp_path / "other.pth", ("pooled",))
    (tmp_path / "broken.pth").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EdadmError, match=r"broken\.pth cannot be read as a checkpoint"):
        build_extractor(extractor, tmp_path / "broken.pth", ("pooled",))


@pytest.mark.parametrize("extractor", ["inception", "pytorch_fid"])
def test_no_pickle_is_executed(extractor: str, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "executed",))

    torch.save({"conv.weight": Hostile()}, tmp_path / "hostile.pth")
    with pytest.raises(EdadmError, match=r"hostile\.pth (cannot be read as a checkpoint|holds 'conv)"):
        build_extractor(extractor, tmp_path / "hostile.pth", ("pooled",))
    assert not (tmp_path / "executed").exists()
