"""Normalisations from floating point to int8 numbers on a GPU."""
