"""Tests of `edadm.nn`."""
