"""Transformers of patches: a file for each family, and what they are made of."""
