"""Descriptions that files give of the networks in them, as settings of this package; imports no torch."""
