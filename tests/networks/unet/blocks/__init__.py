"""Tests of `edadm.networks.unet.blocks`."""
