"""Readers of what users write or collect: configurations, prompts, folders of images; no torch."""
