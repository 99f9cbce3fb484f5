"""Arithmetic of what units need."""

from __future__ import annotations

from edadm.offload.demand import Demand, UnitBytes


def test_the_most_is_kept_where_tables_and_passes_together_are_largest() -> None:
    """Tables of 50 and 40 bytes a row, 20 and 50 bytes that wait; 10 rows."""
    first = UnitBytes("first", {"inputs": 40, "target": 10}, 20, forward=20, step=10, parameters=100)
    second = UnitBytes("second", {"inputs": 30, "target": 10}, 50, forward=50, step=10, parameters=90)
    needed = Demand([first, second], rows=10)
    assert needed.table_sizes(first) == {"inputs": 400, "target": 100}
    assert (needed.of_tables(first), needed.of_passes(first), needed.of_unit(first)) == (500, 200, 700)
    assert needed.largest_unit() == first
    assert needed.peak() == second
    assert needed.of_peak() == 10 * (40 + 50)
    assert needed.of_work(step_rows=2, pass_rows=3) == 100 + 5 * 2 * 10
    assert needed.of_work(step_rows=0, pass_rows=3) == 3 * 50
