"""Modules that quantize. Setting is an act, forward only computes."""
