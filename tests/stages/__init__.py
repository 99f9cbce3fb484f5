"""Tests of `edadm.stages`."""
