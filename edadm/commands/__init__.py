"""Subcommands: parse, load, call, save."""
