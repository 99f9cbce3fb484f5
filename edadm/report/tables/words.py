"""Numbers, sizes and durations as people read them."""

from __future__ import annotations

ABSENT = "–"
INDISTINCT = "not distinguishable"
MEGABYTE = 1e6


def signed(value: float, digits: int = 2) -> str:
    """With its sign, e.g. "+0.31" and "−1.20" (a true minus)."""
    return f"{value:+.{digits}f}".replace("-", "−")


def megabytes(size: int) -> str:
    """Bytes as decimal MB, e.g. "13.41 MB"."""
    return f"{size / MEGABYTE:.2f} MB"


def kilobytes(size: int) -> str:
    """Bytes as decimal kB, e.g. "230.4 kB", so that the rows of a column compare."""
    return f"{size / 1000:,.1f} kB"


def duration(seconds: float | None) -> str:
    """Seconds in words, e.g. "3.2 s", "4 min 12 s", "1 h 03 min"."""
    if seconds is None:
        return ABSENT
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def milliseconds(*seconds: float) -> str:
    """One duration or a range, e.g. "4.31 ms" and "401–916 ms"."""
    values = [1000 * second for second in seconds]
    return "–".join(f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values) + " ms"
