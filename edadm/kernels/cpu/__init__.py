"""Convolutions of integers on a CPU, by either of two routes that give the same bits."""
