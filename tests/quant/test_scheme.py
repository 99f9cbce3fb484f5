"""Number formats, schemes, and the table of them in a header."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from edadm.quant.format import FORMATS, INTEGERS
from edadm.quant.scheme import (
    ROTATIONS,
    Scheme,
    SchemeError,
    SiteScheme,
    from_table,
    refuse_unknown,
    to_table,
)

WEIGHT, ACTIVATION = Scheme(INTEGERS[4], "channel"), Scheme(INTEGERS[8], "tensor")
TOKEN = Scheme(INTEGERS[8], "token", is_dynamic=True, is_symmetric=True)
TOLD = {"format": "int4", "granularity": "channel", "dynamic": False, "symmetric": False, "transforms": []}


def test_formats_are_the_integers_of_2_to_8_bits() -> None:
    ranges = {name: number_format.code_range for name, number_format in FORMATS.items()}
    assert ranges == {
        "int2": (0, 3),
        "int3": (0, 7),
        "int4": (0, 15),
        "int5": (0, 31),
        "int6": (0, 63),
        "int7": (0, 127),
        "int8": (0, 255),
    }


@pytest.mark.parametrize(
    "scheme",
    [
        WEIGHT,
        ACTIVATION,
        Scheme(INTEGERS[6], "group", is_dynamic=True),
        Scheme(INTEGERS[2], "step", is_symmetric=True, transforms=("smooth", "hadamard")),
    ],
)
def test_what_is_told_in_json_is_the_same_scheme(scheme: Scheme) -> None:
    assert Scheme.from_json(json.loads(json.dumps(scheme.to_json()))) == scheme


def test_a_scheme_is_told_by_its_names() -> None:
    assert WEIGHT.to_json() == TOLD


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": "fp4"}, "there is no number format 'fp4'; known are int2, int3"),
        (
            {"granularity": "row"},
            "there is no granularity 'row'; known are tensor, channel, token, group, step",
        ),
        ({"dynamic": 0}, "dynamic and symmetric are true or false"),
        ({"transforms": [1]}, "transforms names"),
        ({"more": 1}, "which has the keys dynamic, format, granularity, symmetric, transforms"),
    ],
)
def test_what_is_no_scheme_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SchemeError, match=sentence):
        Scheme.from_json(TOLD | change)


@pytest.mark.parametrize(
    ("scheme", "role", "told"),
    [
        (replace(WEIGHT, is_dynamic=True), "weight", "dynamic affine int4 per channel"),
        (replace(WEIGHT, is_symmetric=True), "weight", "static symmetric int4 per channel"),
        (replace(WEIGHT, transforms=("wavelet",)), "weight", "int4 per channel after wavelet"),
        (replace(WEIGHT, transforms=("low_rank", "hadamard")), "weight", "channel after low_rank, hadamard"),
        (replace(WEIGHT, transforms=ROTATIONS), "weight", "after hadamard, regular_hadamard"),
        (replace(ACTIVATION, transforms=("low_rank",)), "input", "int8 per tensor after low_rank"),
        (replace(TOKEN, is_symmetric=False), "input", "dynamic affine int8 per token"),
        (TOKEN, "q", "dynamic symmetric int8 per token"),
        (replace(WEIGHT, granularity="group"), "weight", "static affine int4 per group"),
        (replace(WEIGHT, granularity="tensor"), "weight", "static affine int4 per tensor"),
        (replace(ACTIVATION, transforms=("smooth", "smooth")), "input", "per tensor after smooth, smooth"),
        (replace(ACTIVATION, transforms=("smooth",)), "q", "int8 per tensor after smooth"),
        (replace(ACTIVATION, granularity="channel"), "input", "static affine int8 per channel"),
        (replace(ACTIVATION, granularity="step"), "q", "static affine int8 per step"),
    ],
)
def test_what_no_code_computes_is_refused_by_the_name_of_its_site(
    scheme: Scheme, role: str, told: str
) -> None:
    fix = f"take static affine {scheme.format.name} per {'channel' if role == 'weight' else 'tensor'}$"
    with pytest.raises(SchemeError, match=rf"^a\.b: no code here computes .*{told}; {fix}"):
        refuse_unknown(scheme, role, "a.b")


@pytest.mark.parametrize("bits", INTEGERS)
def test_static_affine_integers_of_all_widths_are_computed(bits: int) -> None:
    for granularity, role, other in (("channel", "weight", "tensor"), ("tensor", "probabilities", "channel")):
        refuse_unknown(Scheme(INTEGERS[bits], granularity), role, "a")
        with pytest.raises(
            SchemeError, match=f"a: no code here computes static affine int{bits} per {other}"
        ):
            refuse_unknown(Scheme(INTEGERS[bits], other), role, "a")
    refuse_unknown(Scheme(INTEGERS[bits], "channel", transforms=("smooth",)), "weight", "a")
    refuse_unknown(Scheme(INTEGERS[bits], "tensor", transforms=("smooth",)), "input", "a")


@pytest.mark.parametrize("before", [(), ("smooth",)])
@pytest.mark.parametrize("rotation", [(), ("hadamard",), ("regular_hadamard",)])
def test_transforms_of_linear_layers_are_known_in_their_order(
    before: tuple[str, ...], rotation: tuple[str, ...]
) -> None:
    for scheme in (ACTIVATION, TOKEN):
        refuse_unknown(replace(scheme, transforms=(*before, *rotation)), "input", "a")
    for branch in ((), ("low_rank",)):
        refuse_unknown(replace(WEIGHT, transforms=(*before, *rotation, *branch)), "weight", "a")
    for scheme, role, transforms in (
        (TOKEN, "input", (*before, *rotation, "low_rank")),  # a branch is the weight's
        (WEIGHT, "weight", ("low_rank", *before, *rotation, "hadamard")),
    ):
        with pytest.raises(SchemeError, match="a: "):
            refuse_unknown(replace(scheme, transforms=transforms), role, "a")


SITES = {
    "b.weight": SiteScheme(WEIGHT, ()),
    "b.input": SiteScheme(ACTIVATION, ()),
    "a.weight": SiteScheme(WEIGHT, (2, 3)),
    "a.input": SiteScheme(ACTIVATION, (2, 3)),
}


def test_a_table_holds_each_scheme_once_and_an_index_for_each_site() -> None:
    table = to_table(SITES)
    assert table["schemes"] == [ACTIVATION.to_json(), TOLD]
    assert list(table["sites"].items()) == [
        ("a.input", [0, [2, 3]]),
        ("a.weight", [1, [2, 3]]),
        ("b.input", [0, []]),
        ("b.weight", [1, []]),
    ]
    table["sites"]["a.weight"].append([7, 5])
    assert from_table(json.loads(json.dumps(table))) == SITES


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({}, "its table of schemes is none"),
        ({"schemes": 3, "sites": {}}, "its table of schemes is none"),
        ({"schemes": [TOLD], "sites": {"a": 0}}, "its table of schemes is none"),
        ({"schemes": [TOLD], "sites": {"a": [0]}}, "its table of schemes is none"),
        ({"schemes": [TOLD], "sites": {"a": [1, []]}}, "its table of schemes has no scheme 1"),
        ({"schemes": [TOLD], "sites": {"a": [-1, []]}}, "its table of schemes has no scheme -1"),
        ({"schemes": [TOLD], "sites": {"a": [0, [0]]}}, r"has the segments \[0\], which are no sizes"),
        ({"schemes": [None], "sites": {}}, "None is no scheme"),
    ],
)
def test_a_table_that_is_none_is_refused(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(SchemeError, match=sentence):
        from_table(table)


def test_schemes_and_the_policy_import_no_torch() -> None:
    program = "import sys; import edadm.quant.policy, edadm.quant.scheme; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
