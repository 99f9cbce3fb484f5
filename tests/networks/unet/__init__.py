"""Tests of `edadm.networks.unet`."""
