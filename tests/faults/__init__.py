"""Faults: whatever goes wrong, a rerun ends with the same bytes, or one sentence says what to do and nothing is lost."""
