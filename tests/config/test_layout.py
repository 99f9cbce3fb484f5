"""Paths of artifacts."""

from __future__ import annotations

from pathlib import Path

from edadm.artifacts import facts
from edadm.artifacts.metadata import remember
from edadm.config.layout import Layout, Variant


def test_a_path_is_a_sentence_of_decisions() -> None:
    layout, variant = Layout(Path("results")), Variant("tdac/w4a8/fbr_w4")
    assert layout.weights("m", variant) == Path("results/m/tdac/w4a8/fbr_w4/quantized.safetensors")
    assert layout.samples("m", variant, 2) == [
        Path(f"results/m/tdac/w4a8/fbr_w4/samples/{shard}.npy") for shard in range(2)
    ]
    assert layout.calibration("m", "tdac") == Path("results/m/tdac")
    assert layout.trajectories("m", 3) == Path("results/m/trajectories/3.zarr")


def test_full_precision_is_a_variant_like_any_other() -> None:
    layout, variant = Layout(Path("results")), Variant("fp32")
    assert not variant.is_quantized
    assert (
        layout.weights("m", variant) == layout.float_weights("m") == Path("results/m/fp32/unet.safetensors")
    )
    assert layout.samples("m", variant, 1) == [Path("results/m/fp32/samples/0.npy")]


def test_the_parts_of_a_variant_are_its_presets() -> None:
    assert Variant("tdac/w4a8/fbr_w4").presets == ("tdac", "w4a8", "fbr_w4")
    assert Variant("tdac/w4a8/fbr_w4").is_quantized


def test_integers_have_images_of_their_own_and_the_weights_of_the_simulated_variant() -> None:
    layout, simulated, integer = (
        Layout(Path("results")),
        Variant("tdac/w4a8/fbr_w4"),
        Variant("tdac/w4a8/fbr_w4/integer"),
    )
    assert (simulated.backend, integer.backend, Variant("fp32").backend) == (
        "simulated",
        "integer",
        "simulated",
    )
    assert integer.checkpoint == simulated == simulated.checkpoint
    assert integer.presets == simulated.presets
    assert layout.weights("m", integer) == layout.weights("m", simulated)
    assert layout.losses("m", integer) == Path("results/m/tdac/w4a8/fbr_w4/losses.csv")
    assert layout.samples("m", integer, 1) == [Path("results/m/tdac/w4a8/fbr_w4/integer/samples/0.npy")]


def test_a_backends_own_name_makes_a_variant_and_the_default_one_none() -> None:
    named = Variant("tdac/w4a8/fbr_w4/onednn")
    assert (named.backend, named.checkpoint.name) == ("onednn", "tdac/w4a8/fbr_w4")
    unnamed = Variant("tdac/w4a8/fbr_w4/simulated")
    assert unnamed.checkpoint == unnamed


def test_of_an_unknown_number_of_shards_the_first_says_how_many_there_are(tmp_path: Path) -> None:
    layout, variant, folder = Layout(tmp_path), Variant("fp32"), tmp_path / "m/fp32/samples"
    folder.mkdir(parents=True)
    files = [folder / f"{shard}.npy" for shard in range(11)]
    for file in files:
        file.touch()
    assert layout.samples("m", variant, "auto") == files
    remember(files[0], facts("samples", {"evaluation": {"images": 5, "batch_size": 1, "shards": 2}}))
    assert layout.samples("m", variant, "auto") == files[:2]
    files[1].unlink()
    assert layout.samples("m", variant, "auto") == files[:2]  # whoever reads it says that it is not there
    remember(files[0], facts("samples", {"evaluation": {"images": 5, "batch_size": 1}}))
    assert layout.samples("m", variant, "auto") == [files[0], *files[2:]]
    for file in files:
        file.unlink(missing_ok=True)
    assert layout.samples("m", variant, "auto") == files[:1]  # which is to be made
