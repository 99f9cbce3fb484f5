"""Scaling of channels: what differs between a layer's input channels moves into its weight."""
