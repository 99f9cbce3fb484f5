"""Samplers: from noise to images, step by step."""
