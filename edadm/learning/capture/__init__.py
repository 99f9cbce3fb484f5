"""Capture of what units learn from: paused passes give their inputs and targets, and tables keep these."""
