"""Descriptions of checkpoints by themselves, held against a preset, and as a preset of their own."""
