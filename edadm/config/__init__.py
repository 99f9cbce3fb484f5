"""Presets, their schema, and what decides whether a stage must run again; imports no torch."""
