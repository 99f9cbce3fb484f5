"""Tests of `edadm.learning`."""
