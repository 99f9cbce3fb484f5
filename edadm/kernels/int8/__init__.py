"""Arithmetic of int8 numbers on a GPU."""
