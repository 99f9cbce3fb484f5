"""Number formats: what the codes of a quantized tensor are. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NumberFormat:
    """A number format says which codes stand for values; a scheme says which values.

    Args:
        name: under which configurations, headers and reports know it.
        bits: width of a code.
    """

    name: str
    bits: int

    @property
    def code_range(self) -> tuple[int, int]:
        """The smallest and the largest code; zero points lie in this range, too."""
        return 0, 2**self.bits - 1


# Integers on an affine grid. Floating-point formats (fp8, fp4) come in rows of their own.
INTEGERS = {bits: NumberFormat(f"int{bits}", bits) for bits in range(2, 9)}
FORMATS = {number_format.name: number_format for number_format in INTEGERS.values()}
