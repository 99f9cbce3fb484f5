"""From a `bits` preset and a site to the site's scheme."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from edadm.config.schema import Bits, LayerBits, LearnedScales, Linear
from edadm.errors import EdadmError
from edadm.quant.format import INTEGERS
from edadm.quant.policy import layer_bits, policy, site_scheme, smoothing_strength
from edadm.quant.scheme import Scheme, SiteScheme

BITS = Bits(
    weights=4,
    activations=6,
    softmax=8,
    layers={
        "out": LayerBits(weights=8, activations=None),
        "first*": LayerBits(weights=5, activations=7),
        "first.kept": LayerBits(weights=None, activations=None),
    },
)


@dataclass(frozen=True)
class Place:
    module: str
    role: str
    segments: tuple[int, ...] = (8,)
    is_linear: bool = False


def test_the_last_matching_pattern_decides_the_widths() -> None:
    general, special = LayerBits(weights=6, activations=7), LayerBits(weights=8, activations=None)
    bits = Bits(weights=4, activations=8, layers={"conv*": general, "conv_out": special})
    assert layer_bits("down.conv_in", bits) == LayerBits(weights=4, activations=8)
    assert layer_bits("conv_in", bits) == general
    assert layer_bits("conv_out", bits) == special


@pytest.mark.parametrize(
    ("module", "role", "width"),
    [
        ("mid", "weight", 4),
        ("mid", "input", 6),
        ("first.linear", "weight", 5),
        ("first.linear", "input", 7),
        ("out", "weight", 8),
        ("out", "input", None),
        ("first.kept", "weight", None),
        ("attention", "q", 6),
        ("attention", "k", 6),
        ("attention", "v", 6),
        ("attention", "probabilities", 8),
        ("first.attention", "q", 6),
    ],
)
def test_a_site_has_the_bits_of_its_role_and_of_its_layer(module: str, role: str, width: int | None) -> None:
    found = site_scheme(Place(module, role), BITS)
    granularity = "channel" if role == "weight" else "tensor"
    assert found == (None if width is None else SiteScheme(Scheme(INTEGERS[width], granularity), ()))


@pytest.mark.parametrize(
    ("segments", "is_split", "expected"),
    [((5, 3), True, (5, 3)), ((5, 3), False, ()), ((8,), True, ()), ((), True, ())],
)
def test_segments_have_grids_of_their_own_where_there_are_several(
    segments: tuple[int, ...], is_split: bool, expected: tuple[int, ...]
) -> None:
    found = site_scheme(Place("a", "input", segments), Bits(split_shortcuts=is_split))
    assert found is not None
    assert found.segments == expected


def test_a_layer_is_smoothed_with_its_input_by_the_last_matching_pattern() -> None:
    bits = BITS.model_copy(update={"smoothing": 0.5, "smoothing_layers": {"mid*": None, "mid.a": 0.8}})
    places = [Place(name, role) for name in ("a", "mid", "mid.a", "out") for role in ("weight", "input")]
    schemes = {f"{place.module}.{place.role}": site_scheme(place, bits) for place in places}
    smoothed = {name for name, given in schemes.items() if given and given.scheme.transforms == ("smooth",)}
    assert smoothed == {
        "a.weight",
        "a.input",
        "mid.a.weight",
        "mid.a.input",
    }  # the input of `out` has no grid
    assert [smoothing_strength(name, bits) for name in ("a", "mid", "mid.a")] == [0.5, None, 0.8]
    of_query = site_scheme(Place("a", "q"), bits)
    assert of_query is not None
    assert of_query.scheme.transforms == ()


def test_the_policy_names_the_sites_that_are_quantized() -> None:
    sites = [Place(module, role) for module in ("first.kept", "out", "first") for role in ("weight", "input")]
    assert list(policy(sites, BITS)) == ["out.weight", "first.weight", "first.input"]


def test_a_pattern_for_no_layer_is_refused_by_name() -> None:
    with pytest.raises(EdadmError, match=r"bits: the pattern 'first\.kept' matches no layer of the network"):
        policy([Place("out", "weight"), Place("first", "weight"), Place("first.kept", "input")], BITS)


def test_a_pattern_that_would_smooth_no_layer_with_an_input_grid_is_refused_by_name() -> None:
    sites = [Place(name, "weight") for name in ("out", "first.kept", "first", "mid")]
    for fine in ({"*": 0.5}, {"out": None}, {"first*": 0.5}):
        assert policy(sites, BITS.model_copy(update={"smoothing_layers": fine}))
    for pattern in ("out", "first.kept"):
        bits = BITS.model_copy(update={"smoothing_layers": {"mid": 0.5, pattern: 0.5}})
        sentence = (
            f"^bits: the pattern '{pattern}' of `smoothing_layers` matches only layers whose input stays"
        )
        with pytest.raises(EdadmError, match=sentence):
            policy(sites, bits)


LINEAR = Bits(
    weights=8,
    layers={"kept": LayerBits(weights=8, activations=6)},
    smoothing_layers={"mid.*": 0.5},
    linear=Linear(layers=("mid*", "kept"), weights=4, inputs="dynamic", rotation="hadamard", rank=2),
)


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (Place("mid", "weight", is_linear=True), "static affine int4 per channel after hadamard, low_rank"),
        (Place("mid", "input", is_linear=True), "dynamic symmetric int8 per token after hadamard"),
        (
            Place("mid.b", "weight", is_linear=True),
            "affine int4 per channel after smooth, hadamard, low_rank",
        ),
        (Place("mid.b", "input", is_linear=True), "symmetric int8 per token after smooth, hadamard"),
        (Place("mid", "weight"), "static affine int8 per channel"),
        (Place("mid", "input"), "static affine int8 per tensor"),
        (Place("kept", "weight", is_linear=True), "static affine int8 per channel"),
        (Place("kept", "input", is_linear=True), "static affine int6 per tensor"),
        (Place("up", "input", is_linear=True), "static affine int8 per tensor"),
        (Place("mid", "q"), "static affine int8 per tensor"),
    ],
)
def test_linear_layers_without_an_exception_have_what_is_told_of_them(place: Place, told: str) -> None:
    found = site_scheme(place, LINEAR)
    assert found is not None
    assert str(found.scheme).endswith(told)


def test_patterns_of_linear_layers_that_match_none_are_refused() -> None:
    sites = [Place("mid", "weight", is_linear=True), Place("kept", "weight", is_linear=True)]
    bits = LINEAR.model_copy(update={"smoothing_layers": {}})
    with pytest.raises(EdadmError, match=r"pattern 'kept' of `linear\.layers` matches no linear layer"):
        policy(sites, bits)
    with pytest.raises(EdadmError, match=r"pattern 'mid\*' of `linear\.layers` matches no linear layer"):
        policy([Place("mid", "weight"), Place("kept", "weight", is_linear=True)], bits)


def test_settings_of_linear_layers_exclude_learned_scales_and_are_silent_where_there_are_none() -> None:
    with pytest.raises(ValueError, match="leave out `linear` or `learned_scales`"):
        Bits(linear=Linear(), learned_scales=LearnedScales())
    assert "linear" not in Bits().model_dump(mode="json")
    assert Bits.model_validate(LINEAR.model_dump(mode="json")) == LINEAR
