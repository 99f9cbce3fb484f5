"""Shards: which images a job makes, and how many jobs there are."""
