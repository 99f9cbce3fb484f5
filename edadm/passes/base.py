"""A pass: a step of a reconstruction method over a network or its units, and what it reads and writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edadm.config.methods import Inputs
from edadm.learning.task import AfterUnit, BeforeUnit, Task

State = Literal["weights", "ranges", "rows", "codes", "biases"]
GIVEN: frozenset[State] = frozenset({"weights", "ranges", "rows", "biases"})  # before the first pass
WANTED: frozenset[State] = frozenset({"ranges", "codes", "biases"})  # what a quantized checkpoint is made of


@dataclass(frozen=True)
class Pass:
    """A pass over a quantized network, or over each of its units as soon as its rounding is decided.

    Attributes:
        reads: state of the network that it starts from: floating-point `weights`, `ranges` (scales and zero
            points), calibration `rows`, integer `codes` of the weights, `biases`.
        writes: state that it makes or changes.
        run: does it to the whole network.
        before_unit: weighs the rows that a unit is about to learn from.
        after_unit: does it to a unit when its rounding is decided, before a unit behind it sees its output.
        inputs: activations from which it learns, see `Method`; None where it learns nothing.
    """

    reads: frozenset[State]
    writes: frozenset[State]
    run: Callable[[Task], None] | None = None
    before_unit: BeforeUnit | None = None
    after_unit: AfterUnit | None = None
    inputs: Inputs | None = None

    @property
    def learns(self) -> bool:
        """Whether it learns, step by step, instead of computing what it writes."""
        return self.inputs is not None
