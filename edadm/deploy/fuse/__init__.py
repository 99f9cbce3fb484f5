"""Modules of integer networks: layers, and blocks whose parts run as one."""
