"""Tests of `edadm.calibration`."""
