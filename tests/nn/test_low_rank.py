"""Low-rank branches beside layers."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import Tensor, nn

from edadm.errors import EdadmError
from edadm.nn.low_rank import Branch, LowRank, beside, without_branches


def numbers(*shapes: tuple[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes}


def test_a_branch_between_two_convolutions_of_one_pixel_is_the_product_of_its_three_factors() -> None:
    layer = nn.Conv2d(5, 6, 3, stride=2, padding=1, bias=False)
    factors = numbers(("down", (2, 5, 1, 1)), ("up", (6, 2, 1, 1)), ("mid", (2, 2, 3, 3)))
    x = torch.randn(2, 5, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        layer.weight.copy_(
            torch.einsum(
                "or,rshw,si->oihw", factors["up"].flatten(1), factors["mid"], factors["down"].flatten(1)
            )
        )
        torch.testing.assert_close(Branch(layer, factors, 0.5)(x), 0.5 * layer(x), rtol=1e-4, atol=1e-5)


def test_factors_of_a_convolution_fit_a_linear_layer_of_as_many_channels() -> None:
    factors = numbers(("down", (2, 5, 1, 1)), ("up", (6, 2, 1, 1)))
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    expected = x @ factors["down"].flatten(1).T @ factors["up"].flatten(1).T
    torch.testing.assert_close(Branch(nn.Linear(5, 6), factors, 1.0)(x), expected)


@pytest.mark.parametrize("shapes", [((2, 4), (6, 2)), ((2, 5), (6, 3)), ((2, 5), (7, 2))])
def test_factors_of_another_layer_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(EdadmError, match=r"do not fit a layer of \(6, 5\)"):
        Branch(nn.Linear(5, 6), numbers(("down", shapes[0]), ("up", shapes[1])), 1.0)


def test_a_layer_without_its_branches_is_as_it_was() -> None:
    layer = nn.Linear(5, 6).requires_grad_(False)
    x, before = torch.ones(1, 5), dict(layer._modules)
    expected = layer(x)
    branches = beside(layer)
    assert branches is beside(layer)
    branches.add("a.b", Branch(layer, numbers(("down", (2, 5)), ("up", (6, 2))), 1.0))
    assert torch.equal(layer(x), expected)  # none acts yet
    branches.strengths = {"a.b": 1.0}
    changed = layer(x)
    assert not torch.equal(changed, expected)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), changed)
    assert layer.state_dict().keys() == {"weight", "bias"}
    branches.remove("other")
    without_branches(layer)
    assert torch.equal(layer(x), expected)
    assert (layer._modules, len(layer._forward_hooks)) == (before, 0)
    assert isinstance(branches, LowRank)
