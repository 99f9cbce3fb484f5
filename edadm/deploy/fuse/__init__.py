"""Modules of integer networks: layers, and blocks whose parts are fused."""
