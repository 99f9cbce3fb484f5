"""Tests of `edadm.pilot`."""
