"""Learning that diverges: a sentence names the unit and the settings to lower, and units before it are kept."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from edadm.learning import chain

from .children import run
from .conftest import Whole, contents

UNITS = 15


def diverging_at(number: int) -> None:
    """The learning of one unit ends with an error that is no number."""
    learn, seen = chain.learn_unit, [0]

    def learn_unit(*arguments: Any) -> Any:
        seen[0] += 1
        report = learn(*arguments)
        return dataclasses.replace(report, after=math.nan) if seen[0] == number else report

    chain.learn_unit = learn_unit  # in a child alone


def test_a_unit_that_diverges_is_named_and_those_before_it_are_kept(whole: Whole, tmp_path: Path) -> None:
    index = whole.index("reconstruct")
    folder = whole.before(index, tmp_path)
    status, said = run(whole.stages[index].argv, folder, lambda: diverging_at(4))
    assert status == 2, said
    (sentence,) = (line for line in said.splitlines() if line.startswith("edadm: "))
    assert (
        "was not kept, since its error after learning is nan; units before it are; lower weight_lr"
        in sentence
    )
    kept = sorted(folder.glob("toy/tdac/w4a8/.fbr.progress/*/*.safetensors"))
    assert len(kept) == 3
    status, said = run(whole.stages[index].argv, folder, lambda: diverging_at(UNITS - 3 + 1))
    assert status == 0, said  # as many are learned as were left
    expected, found = whole.after(index), contents(folder)
    assert [name for name in expected if found.get(name) != expected[name]] == []
