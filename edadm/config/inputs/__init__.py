"""Readers of what users write or collect: configuration files, prompts, folders of images; they import no torch."""
