"""Recipes by name, for help and checks that import nothing else."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """Widths, and whether rounding and step sizes are learned.

    Attributes:
        weights: bits of the weights; inputs have 8.
        learns: whether units are reconstructed (FBR).
        description: for people.
    """

    weights: int
    learns: bool
    description: str


RECIPES = {
    "w8a8": Recipe(8, True, "8-bit weights and inputs, rounding and step sizes learned"),
    "w8a8-fast": Recipe(8, False, "8-bit weights and inputs, rounded to nearest"),
    "w4a8": Recipe(4, True, "4-bit weights and 8-bit inputs, rounding and step sizes learned"),
}
